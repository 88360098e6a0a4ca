"""One run of `softsgx run`: what it reads, what it writes, how it ends."""
