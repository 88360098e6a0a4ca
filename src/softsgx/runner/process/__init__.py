"""Supervised threads and their address spaces: registers, signals, calls on their behalf."""
