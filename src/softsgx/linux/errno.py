"""Error numbers of Linux; the kernel returns them negated. include/uapi/asm-generic/errno.h."""

from typing import Final

EPERM: Final = 1
ENOENT: Final = 2
ESRCH: Final = 3
EINTR: Final = 4
EIO: Final = 5
ENXIO: Final = 6
EBADF: Final = 9
EAGAIN: Final = 11
ENOMEM: Final = 12
EACCES: Final = 13
EFAULT: Final = 14
EBUSY: Final = 16
EEXIST: Final = 17
ENODEV: Final = 19
ENOTDIR: Final = 20
EISDIR: Final = 21
EINVAL: Final = 22
EMFILE: Final = 24
ENOTTY: Final = 25
ESPIPE: Final = 29
ENOSYS: Final = 38
ENODATA: Final = 61
EOPNOTSUPP: Final = 95
# Never seen by user space.
ERESTARTSYS: Final = 512
ERESTARTNOINTR: Final = 513
ERESTARTNOHAND: Final = 514
ENOIOCTLCMD: Final = 515  # becomes ENOTTY

ERRNO_NAMES: Final[dict[int, str]] = {
    value: name for name, value in globals().copy().items() if name.startswith("E")
}


def errno_text(result: int) -> str:
    """'-EINVAL' for -22; the number itself if it is not an error."""
    if result >= 0:
        return str(result)
    return f"-{ERRNO_NAMES.get(-result, -result)}"
