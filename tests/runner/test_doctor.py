"""What doctor tries and reads, on this machine and on worse ones."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from softsgx.runner import disassembler, doctor, native_load, probes
from softsgx.runner.doctor import Check
from softsgx.runner.errors import RunnerError


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.parametrize("check", doctor.CHECKS, ids=lambda check: check.__name__)
def test_every_check_leaves_no_child(check: Callable[[], Check]) -> None:
    before = children()
    found = check()
    assert children() == before
    assert found.name
    assert found.detail
    assert found.remedy or found.ok
    assert "\n" not in found.detail + found.remedy


def test_examine_has_one_line_per_check() -> None:
    names = [check.name for check in doctor.examine()]
    assert len(names) == len(doctor.CHECKS) + 1 == len(set(names))


@pytest.mark.parametrize(
    ("system", "machine"), [("Linux", "aarch64"), ("Darwin", "x86_64"), ("Linux", "i686")]
)
def test_other_platforms_end_the_examination(
    system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probes are x86-64 machine code: there they are not even tried."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    (only,) = doctor.examine()
    assert (only.ok, only.needed, only.detail) == (False, True, f"{system} {machine}")


@pytest.mark.parametrize(
    ("release", "ok"),
    [
        ("4.17.0", True),
        ("4.16.99-generic", False),
        ("6.1.0-9-amd64", True),
        ("10.0", True),
        ("3.99", False),
        ("later", False),
    ],
)
def test_kernel_version(release: str, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    assert doctor.kernel_check()[1:3] == (ok, release)


def proc(directory: Path, **files: str) -> Path:
    """A /proc with these files; __ in a name stands for a slash."""
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


@pytest.mark.parametrize(
    ("text", "ok"), [("65536\n", True), ("0\n", True), ("65537", False), ("", False), ("x", False)]
)
def test_mmap_min_addr(text: str, ok: bool, tmp_path: Path) -> None:
    found = doctor.mmap_min_addr_check(proc(tmp_path, sys__vm__mmap_min_addr=text))
    assert found.ok is ok
    assert not found.needed


def test_missing_files_of_proc_are_said(tmp_path: Path) -> None:
    assert doctor.mmap_min_addr_check(tmp_path).detail == "cannot be read"
    assert doctor.procmap_query_check(tmp_path).detail == "No such file or directory"
    assert doctor.limits_check(tmp_path).detail == (
        "NoNewPrivs ?, Seccomp ?, CapEff ?, ptrace_scope -"
    )


@pytest.mark.parametrize(("seccomp", "ok"), [("0", True), ("2", False)])
def test_limits_of_a_container_are_shown(seccomp: str, ok: bool, tmp_path: Path) -> None:
    status = f"Name:\tx\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t{seccomp}\n"
    where = proc(tmp_path, self__status=status, sys__kernel__yama__ptrace_scope="1\n")
    found = doctor.limits_check(where)
    assert found.ok is ok
    assert (
        found.detail == f"NoNewPrivs 1, Seccomp {seccomp}, CapEff 00000000a80425fb, ptrace_scope 1"
    )
    assert not found.needed


@pytest.mark.parametrize(
    ("scope", "remedy"),
    [
        ("3", "forbids all tracing"),
        ("2", "ptrace_scope=1"),
        ("1", "SYS_PTRACE"),
        ("", "SYS_PTRACE"),
    ],
)
def test_remedy_for_ptrace_follows_yama(
    scope: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise probes.Refused("PTRACE_SEIZE: Operation not permitted")

    monkeypatch.setattr(probes, "try_ptrace", refused)
    found = doctor.ptrace_check(proc(tmp_path, sys__kernel__yama__ptrace_scope=scope))
    assert (found.ok, found.needed) == (False, True)
    assert remedy in found.remedy


def test_refusals_of_any_kind_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (
        probes.Refused("int 0x80 raises SIGSEGV"),
        RunnerError("mprotect", "refused"),
        OSError(11, "Resource temporarily unavailable"),
    ):

        def refused(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(probes, "try_int80", refused)
        found = doctor.ia32_check()
        assert (found.ok, found.needed) == (False, False)
        assert found.detail in str(error)


def test_emulator_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(doctor, "import_module", missing)
    assert doctor.emulator_check()[1:3] == (False, "No module named 'unicorn'")


def test_disassembler_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    disassembler.load.cache_clear()
    monkeypatch.setattr(disassembler, "find_spec", lambda name: None)
    found = doctor.emulator_check()
    disassembler.load.cache_clear()
    assert (found.ok, found.needed) == (False, True)
    assert found.detail.startswith("capstone: not installed")


def test_memfd_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> int:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refused)
    assert doctor.memfd_check()[1:3] == (False, "Operation not permitted")


def test_gcc_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = doctor.gcc_check()
    assert (found.ok, found.needed) == (False, False)


def test_probes_work_here() -> None:
    """The machines of this project's tests run programs."""
    probes.try_ptrace()
    probes.try_seccomp_trace()
    probes.try_int80()


def test_int80_that_the_kernel_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without IA32 emulation the instruction is #GP, as HLT is."""
    monkeypatch.setattr(probes, "_INT80_CODE", b"\xf4\xc3")
    with pytest.raises(probes.Refused, match=r"^int 0x80 raises SIGSEGV$"):
        probes.try_int80()
    monkeypatch.setattr(probes, "_INT80_CODE", b"\x31\xc0\xc3")
    with pytest.raises(probes.Refused, match="does not reach"):
        probes.try_int80()


def test_tracer_whose_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_answer", lambda libc, pid: None)
    with pytest.raises(probes.Refused, match="answer did not arrive"):
        probes.try_seccomp_trace()


def test_child_that_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "WAIT_S", 0.05)
    monkeypatch.setattr(probes, "_INT80_CODE", b"\xeb\xfe")  # jmp to itself
    before = children()
    with pytest.raises(probes.Refused, match="no answer"):
        probes.try_int80()
    assert children() == before


def test_blocked_signals_of_the_caller_do_not_matter() -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGSEGV, signal.SIGCONT})
    try:
        probes.try_ptrace()
        probes.try_seccomp_trace()
        probes.try_int80()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_enclu_is_an_exception_whatever_the_processor() -> None:
    """The line says which; neither is a reason not to run."""
    found = doctor.enclu_check()
    assert found.ok
    sgx = probes.enclu_answer() == signal.SIGSEGV
    assert found.detail.startswith("#GP" if sgx else "#UD")


@pytest.mark.parametrize(
    ("number", "detail"),
    [(signal.SIGILL, "#UD: a processor without SGX"), (signal.SIGSEGV, "#GP: a processor with")],
)
def test_both_kinds_of_processor_can_run(
    number: int, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "enclu_answer", lambda: number)
    assert doctor.enclu_check().detail.startswith(detail)


def test_an_enclu_that_is_neither_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd() -> int:
        raise probes.Refused("ENCLU ends a child process with status 0x0")

    monkeypatch.setattr(probes, "enclu_answer", odd)
    found = doctor.enclu_check()
    assert (found.ok, found.needed) == (False, True)


def test_cpuid_faulting_is_announced_by_the_kernel() -> None:
    """Where /proc/cpuinfo has the flag the probe finds it, and nowhere else."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert doctor.cpuid_faulting_check().ok == (" cpuid_fault" in flags)


@pytest.mark.parametrize(("step", "said"), [(1, "mmap"), (2, "mremap"), (3, "mprotect")])
def test_native_engine_is_refused_where_memory_files_cannot_be_executed(
    step: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As with MemoryDenyWriteExecute: one line at the start instead of a program that dies."""
    monkeypatch.setattr(probes, "_execute_page", lambda _libc, _fd: step)
    found = doctor.native_check()
    assert (found.ok, found.needed) == (False, False)
    assert said in found.detail
    with pytest.raises(RunnerError, match=f"--engine native: memory files .* {said} "):
        native_load.announce()
    assert capsys.readouterr().err == ""
