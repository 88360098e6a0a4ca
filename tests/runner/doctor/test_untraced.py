"""What the supervisor that does not trace needs, refused piece by piece."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from softsgx.runner.doctor import doctor, needs, untraced
from softsgx.runner.host import probes, ptrace
from softsgx.runner.host.notifications import Listener, Notification
from softsgx.runner.host.probes import Child, Refused

ASKS = {step.wrong: step for step in (untraced._TRAP, untraced._GO_ON, untraced._ADD_FD)}


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_all_at_once_finds_what_the_rows_find() -> None:
    """Nothing is refused here; no child and no descriptor is left."""
    before, open_before = children(), os.listdir("/proc/self/fd")
    untraced.try_all()
    assert needs.systrap_refusal() is None
    assert (children(), os.listdir("/proc/self/fd")) == (before, open_before)
    assert doctor.supervisor_check()[:3] == ("supervisor", True, "systrap: programs are not traced")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        # 4242 -> 4243; the bit of SIGUSR1 -> that of SIGUSR2
        (("92100000", "93100000"), "what a handler of SIGSYS wrote"),
        (("00020000", "00080000"), "what a handler of SIGSYS wrote"),
        (("c3", "0f0b"), "the process that tried ended with status 0x4"),
    ],
)
def test_answer_of_a_handler_that_is_lost(
    change: tuple[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = untraced._HANDLER.hex().replace(*change)
    monkeypatch.setattr(untraced, "_HANDLER", bytes.fromhex(code))
    with pytest.raises(Refused, match=why):
        untraced._converse(untraced._TRAP)


def test_answers_of_calls_that_wait_are_looked_at() -> None:
    """A descriptor instead of the kernel's result, and the other way round."""

    def descriptor(listener: Listener, held: Notification, child: Child) -> None:
        untraced._answer_descriptor(listener, held, child)

    def go_on(listener: Listener, held: Notification, child: Child) -> None:
        listener.go_on(held)

    with pytest.raises(Refused, match="another result"):
        untraced._converse(untraced._GO_ON._replace(answer=descriptor))
    with pytest.raises(Refused, match="descriptor is not in the process"):
        untraced._converse(untraced._ADD_FD._replace(answer=go_on))
    untraced._converse(*ASKS.values())


def test_memory_of_the_caller_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptrace, "read_memory", lambda pid, address, size: None)
    with pytest.raises(Refused, match="memory of a caller cannot be read"):
        untraced.try_listener()


def test_execve_that_fails_or_is_not_seized(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there: the call returns. PTRACE_INTERRUPT then stops the thread before it
    exits, or finds it gone; both were seen."""
    before = children()
    monkeypatch.setattr(untraced, "_EXE", "/nonexistent/program")
    with pytest.raises(
        Refused, match=r"after execve a caller that was seized has status 0x(80057f|c800)"
    ):
        untraced.try_exec()
    monkeypatch.undo()

    def refused(what: int, tid: int, address: int = 0, data: int = 0) -> int:
        raise PermissionError(errno.EPERM, "PTRACE_SEIZE: Operation not permitted")

    monkeypatch.setattr(ptrace, "request", refused)
    assert needs.systrap_refusal() == "exec hand-over: PTRACE_SEIZE: Operation not permitted"
    found = doctor.supervisor_check()
    assert (found.ok, found.needed) == (False, False)
    assert found.detail.startswith("ptrace: exec hand-over: PTRACE_SEIZE")
    assert children() == before


@pytest.mark.parametrize("at", range(3))
def test_child_that_is_killed_meanwhile(at: int) -> None:
    """Its end is seen at once, not after seconds without a call."""

    def killed() -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    steps = list(ASKS.values())
    steps[at] = steps[at]._replace(ask=killed)
    with pytest.raises(Refused, match="ended with status 0x9"):
        untraced._converse(*steps)


def test_call_that_never_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits() -> bool:
        signal.pause()
        return True

    before = children()
    monkeypatch.setattr(probes, "WAIT_S", 0.05)
    with pytest.raises(Refused, match="does not arrive at its listener"):
        untraced._converse(untraced._GO_ON._replace(ask=waits))
    with pytest.raises(TimeoutError):
        untraced._converse(untraced._TRAP._replace(ask=waits))
    assert children() == before


def test_a_kernel_without_fsgsbase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one started with nofsgsbase: AT_HWCAP2 says so, and the instruction is #UD."""
    monkeypatch.setattr(probes, "_HWCAP2_FSGSBASE", 1 << 30)
    said = "FSGSBASE: FSGSBASE is not enabled: Linux 5.9 or newer, without nofsgsbase"
    assert needs.systrap_refusal() == said
    monkeypatch.undo()
    monkeypatch.setattr(probes, "_GSBASE_CODE", bytes.fromhex("31c0c3"))
    with pytest.raises(Refused, match="not what WRGSBASE wrote"):
        probes.try_fsgsbase()


def test_pidfd_that_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "WAIT_S", 0.05)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    child = Child(untraced._paused)
    try:
        with pytest.raises(Refused, match="does not tell"):
            untraced._end(child)
    finally:
        monkeypatch.undo()
        child.__exit__()


def test_a_filter_that_is_in_force_is_the_first_suspect(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    status = tmp_path / "self/status"
    status.write_text("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n")
    assert "no listener of its own" in needs._listener_remedy(tmp_path)
    status.write_text("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n")
    assert needs._listener_remedy(tmp_path).startswith("Linux 5.5")
