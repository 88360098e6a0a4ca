"""Threads in enclaves: what the kernel does with them, and the protocol of an engine."""
