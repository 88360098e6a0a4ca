"""Where the kernel itself would break. Linux 6.12, lib/bug.c."""


class KernelBug(Exception):
    """The kernel would oops here: a NULL dereference or a failed assertion in its own code."""
