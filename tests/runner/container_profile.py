"""What the default seccomp profile of container engines refuses, without capabilities.

Facts of moby's profile (2024, the same since kernel 4.8 was its minimum for ptrace): everything
that it does not name is EPERM, clone3 is ENOSYS, clone with a namespace flag is EPERM. It covers
x86-64, i386 and x32. Numbers are those of Linux 6.1; what is newer is refused.
"""

from __future__ import annotations

import errno
from typing import Final

from tests.runner.denying import Denied

# fmt: off
_X86_64: Final = (
    103, 134, 136, 139, 153, *range(155, 157), 161, *range(163, 186), 212, 227, *range(236, 240),
    246, *range(248, 251), 256, 272, 279, 298, 300, 304, 308,
    312,  # kcmp
    313, 320, 321, 323, *range(425, 434), 438, 440, 442, 443, 450,
)
# As numbers these are leaves of CPUID, too: leaf 18 (SGX) is oldstat.
_I386: Final = (
    17, 18, 21, 22, 25, 28, 31, 32, 34, 35, 44, 48, *range(51, 54), 56, 58, 59, 61, 62,
    *range(67, 70), *range(72, 75), 79, 84, *range(86, 90), 98, 101, 103, *range(109, 114), 115,
    121, *range(127, 132), 134, 135, 137, 149, 166, 167, 169, 188, 189, 217, 222, 223, 251, 253,
    264, *range(273, 277), 283, *range(285, 289), 294, 310, 317, 336, 338, 342, 346, 349, 350,
    357, 374, *range(387, 393), 404, 415, *range(425, 434), 435, 438, 440, 442, 443,
)
# fmt: on
_NAMESPACES: Final = 0x7E020000

MOBY: Final = Denied(
    calls=dict.fromkeys(_X86_64, errno.EPERM) | {435: errno.ENOSYS},
    above=(450, errno.EPERM),
    clone_flags=_NAMESPACES,
    calls32=dict.fromkeys(_I386, errno.EPERM),
    above32=(450, errno.EPERM),
)
# Before kernel 4.8, and in engines of that time: ptrace and its kin need CAP_SYS_PTRACE.
OLDER: Final = Denied(
    calls=MOBY.calls | dict.fromkeys((101, 310, 311), errno.EPERM),
    above=MOBY.above,
    clone_flags=MOBY.clone_flags,
    calls32=MOBY.calls32,
    above32=MOBY.above32,
)
