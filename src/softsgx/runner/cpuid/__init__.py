"""The processor that a program sees: CPUID, /proc/cpuinfo, and the options that choose it."""
