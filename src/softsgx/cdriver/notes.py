"""The kinds of notes, in the order of enum k_note of c/runtime.h."""

READ, WRITE, READ_ONCE, WRITE_ONCE, ATOMIC, ACQUIRE, RELEASE, ALLOCATED, FREED = range(9)
