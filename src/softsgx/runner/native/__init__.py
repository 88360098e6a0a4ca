"""The native engine: enclave code on the real processor, inside its process."""
