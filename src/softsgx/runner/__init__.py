"""Real programs: a ptrace supervisor, a vDSO image, and the engines that execute enclave code."""
