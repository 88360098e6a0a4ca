"""The header of systrap.c and systrap.S, made of the declarations in Python: one place for numbers.

r_NAME(record), t_NAME(table) and s_NAME are the fields in C; RECORD_NAME and SHARED_NAME offsets.
"""

import errno
import signal
from collections.abc import Iterator, Mapping
from typing import Final

from softsgx.runner.host import abi, nr
from softsgx.runner.inserted import box, layout, systrap_layout
from softsgx.runner.inserted.systrap_layout import RECORD, RECORDS, RECORDS_MAX, SHARED, TABLE
from softsgx.runner.native import slots
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.registers import REGISTER_NAMES
from softsgx.spec.structure import Field

# Linux 6.12, arch/x86/include/uapi/asm/{signal,sigcontext,ucontext,prctl}.h, processor-flags.h;
# include/uapi/linux/{sched,wait,signal,futex}.h, include/uapi/asm-generic/{signal-defs,siginfo}.h.
LINUX: Final[Mapping[str, int]] = {
    "SA_NOCLDSTOP": 0x1,
    "SA_NOCLDWAIT": 0x2,
    "SA_EXPOSE_TAGBITS": 0x800,
    "SA_ONSTACK": 0x0800_0000,
    "SA_RESTART": 0x1000_0000,
    "SA_NODEFER": 0x4000_0000,
    "SA_RESETHAND": 0x8000_0000,
    "SS_ONSTACK": 1,
    "SS_DISABLE": 2,
    "SS_AUTODISARM": 1 << 31,
    "MINSIGSTKSZ": 2048,
    "SIG_BLOCK": 0,
    "SIG_SETMASK": 2,
    "SI_KERNEL": 0x80,
    "SI_TIMER": -2,
    "O_RDONLY": 0,
    "O_CLOEXEC": 0o2000000,
    "SI_QUEUE": -1,
    "SI_CODE_SECCOMP": 1,
    "FP_XSTATE_MAGIC1": 0x4650_5853,
    "UC_SIGCONTEXT_SS": 2,
    "UC_STRICT_RESTORE_SS": 4,
    "FX_MXCSR": 24,
    "FX_SOFTWARE": 464,
    "FCW_INITIAL": 0x37F,
    "MXCSR_INITIAL": 0x1F80,
    "PAGE_FAULT": 14,
    "RFLAGS_TF": 1 << 8,
    "RFLAGS_DF": 1 << 10,
    "RFLAGS_RF": 1 << 16,
    "RFLAGS_AC": 1 << 18,
    "CLONE_SIGHAND": 0x800,
    "CLONE_CLEAR_SIGHAND": 1 << 32,
    "CLONE_ARGS_SIZE_VER0": 64,
    "FUTEX_OWNER_DIED": 0x4000_0000,
    "P_PID": 1,
    "WNOHANG": 1,
    "WEXITED": 4,
    "WNOWAIT": 0x0100_0000,
    "__WALL": 0x4000_0000,
}
_ABI: Final = (
    *("RED_ZONE", "USER_CS", "USER_DS", "USER_RFLAGS", "AUDIT_ARCH_X86_64"),
    *(
        "SA_SIGINFO",
        "SA_RESTORER",
        "ARCH_SET_GS",
        "ARCH_GET_GS",
        "CLONE_VM",
        "CLONE_VFORK",
        "CLONE_THREAD",
        "SYSCALL_LENGTH",
    ),
    *("FUTEX_WAIT", "FUTEX_WAKE", "SIG_UNBLOCK", "SI_TKILL", "SI_USER"),
    *("PROT_RW", "SHARED_FIXED"),
)
_ERRNO: Final = (
    *("EAGAIN", "EFAULT", "EINTR", "EINVAL", "ENOMEM", "EPERM", "ESRCH", "E2BIG", "ETIMEDOUT"),
)
_SHIFT: Final = (RECORDS_MAX * systrap_layout.RECORD_STRIDE).bit_length() - 1


def numbers() -> dict[str, int]:
    """Every plain number of the header."""
    own = {name: value for name, value in vars(systrap_layout).items() if isinstance(value, int)}
    return {
        **own,
        **LINUX,
        **{f"SYS_{name}": value for name, value in vars(nr).items() if isinstance(value, int)},
        **{name: getattr(abi, name) for name in _ABI},
        **{name: getattr(errno, name) for name in _ERRNO},
        **{s.name: s.value for s in signal.Signals},
        **{name: getattr(box, name) for name in ("IDLE", "REQUEST", "REPLY", "FX_SIZE")},
        **{f"RECORD_{field.name}": field.offset for field in RECORD.FIELDS},
        **{f"SHARED_{field.name}": field.offset for field in SHARED.FIELDS},
        **{
            f"MAILBOX_{name}": systrap_layout.RECORD_AT["MAILBOX"] + 8 * i
            for i, name in enumerate(REGISTER_NAMES)
        },
        **{name: getattr(slots, name) for name in ("ARMED", "CLAIMED", "LEAVING", "EXITS_MAX")},
        **{name: getattr(layout, name) for name in ("NATIVE_SLOTS", "SLOTS_SIZE", "SLOT_STRIDE")},
        **{name: getattr(layout, name) for name in ("BOX", "BOX_SIZE")},
        **{name: getattr(leaves, name) for name in ("EENTER", "EEXIT", "ENCLU_LENGTH")},
        "USER_BITS": slots.USER_BITS,
        "OWN_SCRATCH_SIZE": next(f.width for f in RECORD.FIELDS if f.name == "OWN_SCRATCH"),
        "BASE": layout.BASE,
        "PAGE_SIZE": PAGE_SIZE,
        "RECORDS_SHIFT": _SHIFT,
        "RECORDS_UPPER": RECORDS >> _SHIFT,
    }


def _field(name: str, base: str, field: Field) -> str:
    at = f"((u64)({base}) + {field.offset:#x})"
    if not field.integer:
        return f"#define {name} ((u8 *){at})"
    return f"#define {name} (*(volatile u{8 * field.width} *){at})"


def _number(value: int) -> str:
    return f"{value:#x}" if value >= 0 else f"({value})"


def header() -> Iterator[str]:
    """The lines of systrap.h."""
    yield "/* Made by tools/systrap_header.py. */"
    for name, value in sorted(numbers().items()):
        # The assembler has no suffixes, and takes any size.
        yield f"#define {name} {_number(value)}"
    yield "#ifndef __ASSEMBLER__"
    for bits, kind in ((8, "char"), (32, "int"), (64, "long")):
        yield f"typedef unsigned {kind} u{bits};"
    for field in RECORD.FIELDS:
        yield _field(f"r_{field.name}(r)", "r", field)
    for field in slots.SLOT.FIELDS:
        yield _field(f"slot_{field.name}(s)", "s", field)
    for field in TABLE.FIELDS:
        yield _field(f"t_{field.name}(t)", "t", field)
    for field in SHARED.FIELDS:
        yield _field(f"s_{field.name}", f"{systrap_layout.SYSTRAP_CONTROL:#x}", field)
    yield "#endif"


if __name__ == "__main__":
    print("\n".join(header()))
