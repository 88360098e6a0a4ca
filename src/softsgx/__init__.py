"""Intel SGX2 in software: processor, Linux driver, and tools that drive both."""

__version__ = "0.1.0"
