"""Machine code of programs and enclaves: what the bytes are, and where control goes. ELF files."""
