"""System calls that concern enclaves, and what is answered."""
