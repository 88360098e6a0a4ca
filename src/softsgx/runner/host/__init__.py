"""The real kernel, as the supervisor calls it: ptrace, memory of processes, futexes, filters."""
