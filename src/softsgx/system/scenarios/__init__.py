"""Scenarios of a machine with an enclave; `catalogue` lists those that are shipped."""
