"""Enclave ELF files as scenarios of `explore`."""
