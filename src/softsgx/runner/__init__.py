"""Real processes: unmodified SGX programs run under supervision, their enclaves in an emulator."""
