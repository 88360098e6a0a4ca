"""Whatever a program is refused is explained: every rule, every errno, random programs."""
