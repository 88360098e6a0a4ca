"""What doctor tries and reads, on this machine and on worse ones."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from softsgx.runner.code import disassembler
from softsgx.runner.cpuid import faulting
from softsgx.runner.cpuid.faulting import CpuidTraps
from softsgx.runner.doctor import attempts, doctor, needs
from softsgx.runner.doctor.doctor import Check
from softsgx.runner.errors import RunnerError
from softsgx.runner.host import probes
from softsgx.runner.native import load as native_load


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
    assert (
        len(names)
        == len(doctor.CHECKS) + len(needs.NEEDS) + len(needs.UNTRACED) + 2
        == len(set(names))
    )


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
def test_remedy_for_ptrace_follows_yama(scope: str, remedy: str, tmp_path: Path) -> None:
    found = needs._ptrace_remedy(proc(tmp_path, sys__kernel__yama__ptrace_scope=scope))
    assert remedy in found


def test_remedy_for_ptrace_names_other_causes(tmp_path: Path) -> None:
    """A tracer that is there already, and a security module that may refuse."""
    where = proc(tmp_path, self__status="Name:\tx\nTracerPid:\t0\nUid:\t0\n")
    assert "traces this one" not in needs._ptrace_remedy(where)
    proc(tmp_path, self__attr__current="unconfined\n")
    assert "security module" not in needs._ptrace_remedy(where)
    proc(tmp_path, self__attr__current="docker-default (enforce)\n")
    assert "runs this process as docker-default (enforce)" in needs._ptrace_remedy(where)
    assert needs._ptrace_remedy(where).endswith(": --security-opt apparmor=unconfined")
    proc(tmp_path, self__attr__current="system_u:system_r:container_t:s0:c1,c2\0")
    assert needs._ptrace_remedy(where).endswith(": --security-opt label=disable")
    proc(tmp_path, self__status="Name:\tx\nTracerPid:\t42\nUid:\t0\n")
    assert needs._ptrace_remedy(where).startswith("process 42 traces this one already")


@pytest.mark.parametrize(
    "error",
    [
        probes.Refused("int 0x80 raises SIGSEGV"),
        RunnerError("mprotect", "refused"),
        OSError(11, "Resource temporarily unavailable"),
    ],
)
def test_refusals_of_any_kind_are_findings(error: Exception) -> None:
    def refused() -> None:
        raise error

    def worked() -> None:
        pass

    (first, second, third) = probes.guarded([worked, refused, worked])
    assert (first, third) == ("", "")
    assert second in str(error)
    need = needs.Need("name", "users", refused, "worked", "remedy")
    assert doctor.need_check(need, second) == Check("name", False, second, "remedy", True)
    assert doctor.need_check(need, "")[1:3] == (True, "worked")
    around = replace(need, fallback="another way")
    found = doctor.need_check(around, second)
    assert (found.ok, found.needed, found.remedy) == (False, False, "another way; remedy")


def test_attempts_go_on_after_one_that_ends_the_process() -> None:
    """A filter may answer a call by SIGSYS, and what the attempt has started must be gone."""

    def killed() -> None:
        if not os.fork():
            signal.pause()
        os.kill(os.getpid(), signal.SIGSYS)

    def crashes() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    before = children()
    found = probes.guarded([killed, crashes, lambda: None])
    assert found[0] == "a seccomp filter ends the process that tries (SIGSYS)"
    assert found[1].startswith("the process that tried ended with status")
    assert found[2] == ""
    assert children() == before


def test_an_attempt_that_hangs_is_made_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story: beside busy loops an event of a child was lost once, and the run ended as by a bug
    in softsgx."""
    monkeypatch.setattr(probes, "WAIT_S", 0.2)
    hung = tmp_path / "hung"

    def hangs_once() -> None:
        if not hung.exists():
            hung.touch()
            hangs()

    def hangs() -> None:
        while True:
            signal.pause()

    before = children()
    assert probes.guarded([lambda: None, hangs_once, lambda: None]) == ["", "", ""]
    assert hung.exists()
    (first, second, third) = probes.guarded([lambda: None, hangs, lambda: None])
    assert (first, third) == ("", "")
    assert second.startswith("no answer from a child process in ")
    assert children() == before


def test_every_row_says_who_uses_it_and_what_to_do() -> None:
    for need in (*needs.NEEDS, *needs.UNTRACED):
        assert need.users
        assert need.worked
        assert need.advice
        assert "\n" not in need.advice
    for need in needs.NEEDS:
        assert need.fallback == "" or need.use_fallback is not needs.Need.use_fallback
    assert all(need.fallback for need in needs.UNTRACED)


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


def test_gcc_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = doctor.gcc_check()
    assert (found.ok, found.needed) == (False, False)


@pytest.mark.parametrize("need", [*needs.NEEDS, *needs.UNTRACED], ids=lambda need: need.name)
def test_what_is_needed_is_here(need: needs.Need) -> None:
    """The machines of this project's tests run programs; with signals of the caller blocked."""
    before, open_before = children(), os.listdir("/proc/self/fd")
    blocked = {signal.SIGCHLD, signal.SIGSEGV, signal.SIGCONT}
    old = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        need.attempt()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    assert children() == before
    assert os.listdir("/proc/self/fd") == open_before


def test_int80_that_the_kernel_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without IA32 emulation the instruction is #GP, as HLT is."""
    monkeypatch.setattr(attempts, "_INT80_CODE", b"\xf4\xc3")
    with pytest.raises(probes.Refused, match=r"^int 0x80 raises SIGSEGV$"):
        attempts.try_int80_enclu()
    monkeypatch.setattr(attempts, "_INT80_CODE", b"\x31\xc0\xc3")
    with pytest.raises(probes.Refused, match="EAX = 0x0 is answered by another filter"):
        attempts.try_int80_cpuid()


def test_tracer_whose_answer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_answer", lambda pid: None)
    with pytest.raises(probes.Refused, match="answer did not arrive"):
        attempts.try_filter()


def test_child_that_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "WAIT_S", 0.05)
    monkeypatch.setattr(attempts, "_INT80_CODE", b"\xeb\xfe")  # jmp to itself
    before = children()
    with pytest.raises(probes.Refused, match="no answer"):
        attempts.try_int80_enclu()
    assert children() == before


def test_enclu_is_an_exception_whatever_the_processor() -> None:
    """The line says which one; neither prevents a run."""
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
    found = doctor.cpuid_faulting_check().detail
    assert found.startswith("every CPUID is served") == (" cpuid_fault" in flags)


@pytest.mark.parametrize(("us", "ok"), [(0.2, True), (1.9, True), (9.5, False)])
def test_doctor_says_what_cpuid_faulting_costs(
    us: float, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switching between threads with and without it took 9.5 us under one hypervisor, and an empty
    native call 60 percent more processor time."""
    monkeypatch.setattr(probes, "guarded", lambda attempts: [""] * len(attempts))
    monkeypatch.setattr(faulting, "switch_us", lambda: us)
    found = doctor.cpuid_faulting_check()
    assert (found.ok, found.needed) == (ok, False)
    assert found.detail == f"every CPUID is served; a switch costs {us} us"


def test_cpuid_faulting_is_used_unless_an_option_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faulting, "try_cpuid_faulting", lambda: None)
    assert faulting.choose("trap") is CpuidTraps.ALWAYS
    assert faulting.choose("patch") is CpuidTraps.NEVER
    assert faulting.choose("auto") is CpuidTraps.ALWAYS
    assert faulting.choose("until-entry") is CpuidTraps.UNTIL_ENTRY

    def absent() -> None:
        raise probes.Refused("No such device")

    monkeypatch.setattr(faulting, "try_cpuid_faulting", absent)
    assert faulting.choose("auto") is CpuidTraps.NEVER
    with pytest.raises(RunnerError, match=r"^--cpuid trap: CPUID faulting: No such device$"):
        faulting.choose("trap")
    with pytest.raises(RunnerError, match="--cpuid: 'x': known are auto, trap, until-entry, patch"):
        faulting.choose("x")


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
        native_load.announce(cpuid_faults=True)
    assert capsys.readouterr().err == ""


def test_proc_of_another_namespace_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are those of other processes, so every look would be at the wrong one."""
    monkeypatch.setattr(os, "getpid", lambda: 2)
    with pytest.raises(probes.Refused, match="not 2: it belongs to another pid namespace"):
        attempts.try_proc()
