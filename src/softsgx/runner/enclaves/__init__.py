"""Threads in enclaves: what both engines share."""
