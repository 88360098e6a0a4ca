"""The reference engine: enclave code in Unicorn."""
