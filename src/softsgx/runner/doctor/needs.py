"""What the supervisor needs of the machine: one table for `doctor`, which shows it, and `run`.

There is a row for everything that a container engine, a service manager, a security module or an
old kernel may refuse: what uses it, what to do about it, and what `run` does without it. There is
none for what Python itself needs: files, pipes, fork, exec, wait, kill, futexes, private memory.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softsgx.runner.doctor import attempts, untraced
from softsgx.runner.errors import RunnerError
from softsgx.runner.host import probes
from softsgx.runner.host.process_memory import try_vm_calls
from softsgx.runner.ways import UD2, WAYS

_CONTAINER: Final = "in a container: --security-opt seccomp=unconfined, or seccomp=FILE with"
_PROFILE: Final = f"{_CONTAINER} a profile that allows"
# With this capability the default profiles allow ptrace and process_vm_*, whatever the kernel.
_CAPABILITY: Final = "in a container: --cap-add SYS_PTRACE, or --security-opt seccomp=unconfined"


@dataclass(frozen=True)
class Need:
    """One row. `fallback` is what `run` does without it; if that is empty, nothing runs."""

    name: str
    users: str
    attempt: Callable[[], None]
    worked: str
    remedy: str | Callable[[], str]
    fallback: str = ""
    use_fallback: Callable[[], None] = lambda: None

    @property
    def advice(self) -> str:
        """What to do about it, and what happens until then."""
        remedy = self.remedy if isinstance(self.remedy, str) else self.remedy()
        return f"{self.fallback}; {remedy}" if self.fallback else remedy


def _ptrace_remedy(proc: Path = Path("/proc")) -> str:
    scope = _read(proc / "sys/kernel/yama/ptrace_scope")
    if scope == "3":
        return "kernel.yama.ptrace_scope is 3, which forbids all tracing until the next boot"
    if scope == "2":
        return "sysctl kernel.yama.ptrace_scope=1, or give CAP_SYS_PTRACE"
    tracer = re.search(r"^TracerPid:\s*([1-9]\d*)$", _read(proc / "self/status"), re.MULTILINE)
    if tracer is not None:
        return f"process {tracer[1]} traces this one already: run without strace -f and the like"
    label = _read(proc / "self/attr/current").rstrip("\0")
    if not label or label.startswith("unconfined"):
        return _CAPABILITY
    option = "label=disable" if ":" in label else "apparmor=unconfined"
    module = f"the security module runs this process as {label}, and may be what refuses"
    return f"{_CAPABILITY}; {module}: --security-opt {option}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _file_remedy() -> str:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return "ulimit -f unlimited; in a container: --ulimit fsize=-1"
    return f"{_PROFILE} memfd_create, or a /dev/shm that can be written"


def _listener_remedy(proc: Path = Path("/proc")) -> str:
    if re.search(r"^Seccomp:\s*2$", _read(proc / "self/status"), re.MULTILINE):
        return f"{_PROFILE} seccomp, and has no listener of its own; Linux 5.5 or newer"
    return f"Linux 5.5 or newer; {_PROFILE} seccomp"


def _memfd_remedy() -> str:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return "ulimit -f unlimited; in a container: --ulimit fsize=-1"
    return f"{_PROFILE} memfd_create"


def _inotify_remedy(proc: Path = Path("/proc")) -> str:
    if not (proc / "self/fd").is_dir():
        return "this is tried on a file in /proc: see /proc above"
    return f"sysctl fs.inotify.max_user_instances=1024; {_PROFILE} inotify_init1, inotify_add_watch"


def _by_file() -> None:
    WAYS.memory_by_file = True


def _files_in_shm() -> None:
    WAYS.files_in_shm = True


def _by_prctl() -> None:
    WAYS.filter_by_prctl = True


def _ud2_for_cpuid() -> None:
    WAYS.cpuid = UD2


def _ud2_for_enclu() -> None:
    WAYS.enclu = UD2


# If a row fails, later ones may fail because of it, so a run names the first.
NEEDS: Final = (
    Need(
        "ptrace",
        "stopping threads, their registers, signals and code",
        attempts.try_ptrace,
        "a child was traced",
        _ptrace_remedy,
    ),
    Need(
        "/proc",
        "process memory, mappings, descriptors, thread groups; opening shared memory in a process",
        attempts.try_proc,
        "is the one of this pid namespace",
        "mount -t proc proc /proc in this pid namespace (bwrap: --proc /proc), without hidepid",
    ),
    Need(
        "seccomp",
        "which system calls stop",
        attempts.try_filter_any,
        "a system call was answered",
        f"CONFIG_SECCOMP_FILTER; {_PROFILE} seccomp or prctl",
    ),
    Need(
        "seccomp(2)",
        "filters for all threads of a process, added while it runs",
        attempts.try_filter,
        "a filter was installed",
        f"{_PROFILE} seccomp",
        "one filter by prctl, so read, write and mprotect always stop; not with --engine native",
        _by_prctl,
    ),
    Need(
        "int 0x80 as ENCLU",
        "stops at ENCLU of the program, and in the stub",
        attempts.try_int80_enclu,
        "stops for the tracer",
        "boot without ia32_emulation=off, with CONFIG_IA32_EMULATION; "
        f"{_CONTAINER} a profile for i386, too",
        "UD2 is used: SIGILL instead of a stop at a filter",
        _ud2_for_enclu,
    ),
    Need(
        "int 0x80 as CPUID",
        "stops at CPUID of the program",
        attempts.try_int80_cpuid,
        "stops for the tracer",
        f"{_CONTAINER} a profile that passes every number of i386: the number is the leaf of CPUID",
        "UD2 is used: SIGILL instead of a stop at a filter",
        _ud2_for_cpuid,
    ),
    Need(
        "process_vm_readv",
        "arguments and buffers of the program, memory that enclaves share with it",
        try_vm_calls,
        "read and written",
        _CAPABILITY,
        "/proc/PID/mem, with the rights of each area looked up: slower",
        _by_file,
    ),
    Need(
        "memory files",
        "EPC, mailboxes, what stands for an open device",
        attempts.try_memory_file,
        "created",
        _file_remedy,
    ),
    Need(
        "memfd",
        "as for memory files",
        attempts.try_memfd,
        "created",
        _memfd_remedy,
        "files without a name in /dev/shm, which is what /proc/PID/maps calls open devices",
        _files_in_shm,
    ),
    Need(
        "inotify",
        "the end of an enclave: the last descriptor and mapping are gone",
        attempts.try_inotify,
        "watches",
        _inotify_remedy,
    ),
    Need(
        "writable code",
        "the emulator, the doorbell",
        attempts.try_writable_code,
        "mapped",
        "a security module forbids it: SELinux boolean deny_execmem, or systemd's "
        "MemoryDenyWriteExecute; in a container: --security-opt label=disable",
    ),
    Need(
        "address space",
        "the gate, the stub and the vDSO image in each process; the emulator",
        attempts.try_address_space,
        "free where it must be",
        "ulimit -v unlimited",
    ),
    Need(
        "descriptors",
        "memory files, files in /proc of each process, libraries",
        attempts.try_descriptors,
        "enough of them",
        "ulimit -n 1024; in a container: --ulimit nofile=1024",
    ),
    Need(
        "vDSO",
        "the function that enters enclaves",
        attempts.try_vdso,
        "there",
        "boot without vdso=0",
    ),
)

_TRACED: Final = "programs are traced"
# What the supervisor that does not trace needs besides.
UNTRACED: Final = (
    Need(
        "SECCOMP_RET_TRAP",
        "system calls that are answered in the process",
        untraced.try_trap,
        "a handler answered",
        f"{_PROFILE} seccomp",
        _TRACED,
    ),
    Need(
        "seccomp listener",
        "system calls that wait for the supervisor",
        untraced.try_listener,
        "a system call waited",
        _listener_remedy,
        _TRACED,
    ),
    Need(
        "SECCOMP_ADDFD",
        "descriptors of devices, given to the process",
        untraced.try_add_descriptor,
        "a descriptor arrived",
        f"Linux 5.14 or newer; {_PROFILE} seccomp",
        _TRACED,
    ),
    Need(
        "exec hand-over",
        "a new program, from execve to its first instruction",
        untraced.try_exec,
        "seized, stopped, detached",
        _ptrace_remedy,
        _TRACED,
    ),
    Need(
        "FSGSBASE",
        "the record of a thread, found by its GS base",
        probes.try_fsgsbase,
        "the GS base was written",
        "Linux 5.9 or newer, without nofsgsbase",
        _TRACED,
    ),
    Need(
        "pidfd",
        "the end of a process that is no child",
        untraced.try_pidfd,
        "tells the end of a process",
        f"Linux 5.3 or newer; {_PROFILE} pidfd_open",
        _TRACED,
    ),
)


def examine() -> list[tuple[Need, str]]:
    """Each need, and why it is refused, "" if it is not. From now on fallbacks are in use."""
    whys = probes.guarded([need.attempt for need in NEEDS])
    for need, why in zip(NEEDS, whys, strict=True):
        if why:
            need.use_fallback()
    return list(zip(NEEDS, whys, strict=True))


def refusal(name: str, why: str) -> RunnerError:
    """The error that ends a run whose need is not met, at its start or later."""
    (need,) = (need for need in NEEDS if need.name == name)
    return RunnerError(name, f"{why}: {need.advice}")


def meet(native: bool) -> None:
    """Use the fallbacks that this machine needs. RunnerError if a refused need has none."""
    for need, why in examine():
        if why and not need.fallback:
            raise refusal(need.name, why)
    if native and WAYS.filter_by_prctl:
        why = "seccomp(2) is refused, without which system calls inside enclaves are not #UD"
        raise RunnerError("--engine native", f"{why}: use --engine unicorn")


def systrap_refusal() -> str | None:
    """Why the supervisor that does not trace cannot work here: the first row that is refused.

    None if it can. Everything is tried at once first, which costs less than row by row.
    """
    (refused,) = probes.guarded([untraced.try_all])
    if not refused:
        return None
    for need, why in examine_untraced():
        if why:
            return f"{need.name}: {why}"
    return refused


def examine_untraced() -> list[tuple[Need, str]]:
    """Each row of `UNTRACED`, and why it is refused, "" if it is not."""
    return list(zip(UNTRACED, probes.guarded([need.attempt for need in UNTRACED]), strict=True))
