"""The command line: exit codes, lazy imports, output."""
