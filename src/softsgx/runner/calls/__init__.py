"""System calls that concern enclaves, and their answers."""
