"""What stops when a host program executes it: CPUID, ENCLU, accesses to enclave memory."""
