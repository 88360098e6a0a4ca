"""Scenarios of a machine with an enclave. Each file is one."""
