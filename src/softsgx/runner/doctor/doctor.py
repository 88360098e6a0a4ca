"""Whether this machine can run SGX programs under supervision: what is tried, and the remedies.

What can be tried is tried, in a child process; the rest is what the kernel says about itself. No
check needs the superuser.
"""

from __future__ import annotations

import fcntl
import platform
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from struct import pack_into
from typing import Final, NamedTuple

from softsgx.runner.code import disassembler
from softsgx.runner.cpuid import faulting
from softsgx.runner.doctor import needs
from softsgx.runner.doctor.needs import Need
from softsgx.runner.errors import RunnerError
from softsgx.runner.host import probes
from softsgx.runner.host.abi import PROCMAP_QUERY, PROCMAP_QUERY_COVERING_OR_NEXT_VMA
from softsgx.runner.host.inherited import keep_statuses

KERNEL_MIN: Final = (4, 17)  # MAP_FIXED_NOREPLACE; the rest of what is used is older
_PROCMAP_QUERY_BYTES: Final = 104
_MMAP_MIN_ADDR_USUAL: Final = 65536
_PROC: Final = Path("/proc")
_NEWER: Final = "update the kernel"


class Check(NamedTuple):
    """One line of the report. If a `needed` check fails, nothing runs; others are optional."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def platform_check() -> Check:
    """x86-64 Linux: host programs run natively."""
    system, machine = platform.system(), platform.machine()
    ok = (system, machine) == ("Linux", "x86_64")
    return Check("platform", ok, f"{system} {machine}", "use an x86-64 Linux machine, or a VM")


def kernel_check() -> Check:
    """The version of the kernel."""
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    ok = numbers is not None and (int(numbers[1]), int(numbers[2])) >= KERNEL_MIN
    return Check("kernel", ok, release, f"{_NEWER}: {'.'.join(map(str, KERNEL_MIN))} or newer")


def mmap_min_addr_check(proc: Path = _PROC) -> Check:
    """How low memory can be mapped: enclaves with base 0 start there."""
    text = _read(proc / "sys/vm/mmap_min_addr")
    ok = text.isdecimal() and int(text) <= _MMAP_MIN_ADDR_USUAL
    remedy = f"for enclaves with base 0: sysctl vm.mmap_min_addr={_MMAP_MIN_ADDR_USUAL}"
    return Check("vm.mmap_min_addr", ok, text or "cannot be read", remedy, needed=False)


def procmap_query_check(proc: Path = _PROC) -> Check:
    """A VMA can be queried; otherwise /proc/PID/maps is read as text, which is 30 times slower."""
    name, remedy = "PROCMAP_QUERY", f"{_NEWER} for speed: 6.11 or newer"
    query = bytearray(_PROCMAP_QUERY_BYTES)
    pack_into("<QQQ", query, 0, _PROCMAP_QUERY_BYTES, PROCMAP_QUERY_COVERING_OR_NEXT_VMA, 0)
    try:
        with open(proc / "self/maps", "rb") as maps:
            fcntl.ioctl(maps, PROCMAP_QUERY, query)
    except OSError as error:
        return Check(name, False, _said(error), remedy, needed=False)
    found = int.from_bytes(query[24:32], "little")
    return Check(name, found != 0, f"lowest mapping at {found:#x}", remedy, needed=False)


def limits_check(proc: Path = _PROC) -> Check:
    """What a container or a service manager has set for this process, as a hint."""
    status = _status(proc)
    said = [
        f"NoNewPrivs {status.get('NoNewPrivs', '?')}",
        f"Seccomp {status.get('Seccomp', '?')}",
        f"CapEff {status.get('CapEff', '?')}",
        f"ptrace_scope {_read(proc / 'sys/kernel/yama/ptrace_scope') or '-'}",
    ]
    filtered = status.get("Seccomp", "0") != "0"
    remedy = "a filter is in force here: if a check above fails, it is the first suspect"
    return Check("limits", not filtered, ", ".join(said), remedy, needed=False)


def emulator_check() -> Check:
    """The emulator and the disassembler can be loaded."""
    try:
        import_module("unicorn")
        disassembler.load()
        versions = [f"{name} {version(name)}" for name in ("unicorn", "capstone")]
    except (ImportError, OSError, RunnerError) as error:
        return Check("emulator", False, str(error), "pip install unicorn capstone, for this Python")
    return Check("emulator", True, ", ".join(versions))


def enclu_check() -> Check:
    """Which exception ENCLU raises outside enclaves on this processor: each can be served."""
    remedy = "report what `lscpu` says: ENCLU is expected to be #UD, #GP or #PF"
    try:
        number = probes.enclu_answer()
    except (probes.Refused, RunnerError, OSError) as error:
        return Check("ENCLU", False, str(error), remedy)
    answers = {
        signal.SIGILL: "#UD: a processor without SGX",
        signal.SIGSEGV: "#GP: a processor with SGX, in use, switched off or hidden",
    }
    return Check("ENCLU", True, answers[signal.Signals(number)])


def cpuid_faulting_check() -> Check:
    """With CPUID faulting, no CPUID must be found and replaced beforehand."""
    name = "CPUID faulting"
    (why,) = probes.guarded([probes.try_cpuid_faulting])
    if why:
        return Check(name, False, why, f"{faulting.CpuidTraps.NEVER.value}", needed=False)
    cost = faulting.switch_us()
    detail = f"{faulting.CpuidTraps.ALWAYS.value}; a switch costs {cost:.1f} us"
    remedy = "--cpuid until-entry, or patch, is faster here (docs/run.md)"
    return Check(name, cost <= faulting.SWITCH_US_DEAR, detail, remedy, needed=False)


def native_check() -> Check:
    """Whether enclave code can run on this processor."""
    return _tried(
        "native engine",
        probes.try_native,
        "FSGSBASE, executable memory files",
        "--engine native cannot run here; the reference engine can",
        needed=False,
    )


def gcc_check() -> Check:
    """gcc compiles the demo when it is run."""
    path = shutil.which("gcc")
    remedy = "for make demo: install gcc"
    return Check("gcc", path is not None, path or "not in PATH", remedy, needed=False)


CHECKS: Final[tuple[Callable[[], Check], ...]] = (
    kernel_check,
    emulator_check,
    mmap_min_addr_check,
    procmap_query_check,
    enclu_check,
    cpuid_faulting_check,
    native_check,
    gcc_check,
    limits_check,
)


def examine() -> list[Check]:
    """All checks; on other platforms than x86-64 Linux only the first makes sense."""
    keep_statuses()
    first = platform_check()
    if not first.ok:
        return [first]
    return [
        first,
        *(need_check(*found) for found in (*needs.examine(), *needs.examine_untraced())),
        supervisor_check(),
        *(check() for check in CHECKS),
    ]


def need_check(need: Need, why: str) -> Check:
    """The check of a row of `needs`."""
    return Check(need.name, not why, why or need.worked, need.advice, not need.fallback)


def supervisor_check() -> Check:
    """How a run supervises its programs here, unless an option says otherwise."""
    why = needs.systrap_refusal()
    detail = "systrap: programs are not traced" if why is None else f"ptrace: {why}"
    return Check("supervisor", why is None, detail, "see the row of that name above", needed=False)


def _tried(
    name: str, attempt: Callable[[], None], worked: str, remedy: str, needed: bool = True
) -> Check:
    (why,) = probes.guarded([attempt])
    return Check(name, not why, why or worked, remedy, needed)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _status(proc: Path) -> Mapping[str, str]:
    lines = (line.partition(":") for line in _read(proc / "self/status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _said(error: OSError) -> str:
    return error.strerror or str(error)
