"""Design `ioctl`: what Linux 6.0 merged, unchanged. Source: Linux 6.12, sgx/ioctl.c."""

from softsgx.lab.designs.base import Design


class Ioctl(Design):
    """RESTRICT_PERMISSIONS; page by page EMODPR, ETRACK, IPIs. mprotect() changes the VMA only."""

    name = "ioctl"
    about = "Linux 6.x: an ioctl; per page EMODPR, ETRACK, IPIs"
