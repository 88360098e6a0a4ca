"""`--stats`, `--trace`, `--explain` with real programs: what a user gets to see, and the errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from softsgx.events.cpu import TlbFlushed
from softsgx.events.kernel import ProcessEnded
from softsgx.report.explanation import Explanation
from softsgx.runner.errors import RunnerError
from softsgx.runner.session.listeners import (
    SHOWN_BY_RULE_MAX,
    SHOWN_MAX,
    SIGNALS_KEPT,
    ExplanationPrinter,
)
from softsgx.runner.session.trace_file import TraceFile
from softsgx.sim import Log, Stepped, TaskEnded
from tests.patience import LIMIT_S
from tests.report.protobuf_reader import inner, number, read, text
from tests.runner.programs import PROGRAMS, Program, Workshop, supervised


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("listening"))


def softsgx(*options: str, program: list[str]) -> subprocess.CompletedProcess[str]:
    return supervised(program, *options)


@pytest.fixture(scope="module")
def dies(workshop: Workshop) -> list[str]:
    return workshop.command(Program.read(PROGRAMS / "dies_refused.c"))


@pytest.fixture(scope="module")
def explained(dies: list[str], workshop: Workshop) -> subprocess.CompletedProcess[str]:
    """One run with all three options."""
    trace = workshop.directory / "dies.jsonl"
    return softsgx("--explain", "--stats", "--trace", str(trace), program=dies)


@pytest.fixture(scope="module")
def trace(explained: subprocess.CompletedProcess[str], workshop: Workshop) -> list[dict[str, Any]]:
    raw = (workshop.directory / "dies.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in raw.splitlines()]


# --explain


def test_the_death_of_a_program_is_explained(
    explained: subprocess.CompletedProcess[str],
) -> None:
    assert explained.returncode == 128 + signal.SIGSEGV
    wanted = (
        r"write at 0x([0-9a-f]+) refused by the EPCM \(ACCESS\.12\): #PF 0x8007, event \d+\n"
        r"  VMA   rw-  /dev/sgx_enclave, mapped by thread (\d+), event \d+\n"
        r"  PTE   rw-  present since page fault of thread \2, event \d+\n"
        r"  TLB   -    flushed by EENTER, event \d+\n"
        r"  EPCM  r--  REG since EMODPR by ioctl RESTRICT_PERMISSIONS\(offset=0x[0-9a-f]+,"
        r" length=0x1000, permissions=r--\) of thread \2, event \d+, accepted by thread \2,"
        r" event \d+\n"
        r"  rule  EPCM: R, W or X does not permit the access\n"
        r"  by    thread \2 in enclave 1 on the TCS 0x[0-9a-f]+, rip 0x[0-9a-f]+ \(base \+ 0x"
        r"[0-9a-f]+\)\n"
        r"  then  SIGSEGV SEGV_ACCERR to thread \2\n"
        r"  to write again: EMODPE\(W\) from inside the enclave; VMA and PTE already allow it\n"
        r"process \2 died of SIGSEGV: see event \d+ above\n"
    )
    assert re.search(wanted, explained.stderr), explained.stderr


def test_the_instruction_is_the_one_that_wrote(
    explained: subprocess.CompletedProcess[str], trace: list[dict[str, Any]]
) -> None:
    """RIP is from the SSA frame, and lies in the text of the enclave."""
    found = re.search(r"rip (0x[0-9a-f]+) \(base \+ (0x[0-9a-f]+)\)", explained.stderr)
    assert found is not None
    create = next(entry for entry in trace if "ssaframesize" in entry.get("fields", {}))
    base = int(create["fields"]["base"], 16)
    assert int(found[1], 16) - base == int(found[2], 16)
    assert 0 < int(found[2], 16) < int(create["fields"]["size"], 16)


def test_nothing_is_said_of_a_program_that_is_refused_nothing(workshop: Workshop) -> None:
    program = workshop.command(Program.read(PROGRAMS / "segment_bases.c"))
    done = softsgx("--explain", program=program)
    assert (done.returncode, done.stderr) == (0, "")


def explanation(rule: str = "ACCESS.12") -> Explanation:
    return Explanation(event=9, headline="no", rule=rule, rule_text="text", key=(rule,))


def test_a_refusal_is_not_said_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    voice = ExplanationPrinter()
    for _ in range(SHOWN_MAX + 3):
        voice.tell(explanation())
    voice.close()
    said = capsys.readouterr().err
    assert said.count("no, event 9") == SHOWN_MAX
    assert said.endswith("softsgx: explain: 3 more refusals, of kinds shown above\n")


def test_one_rule_does_not_fill_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """A runtime that accepts each page when it is first touched is refused at each page."""
    voice = ExplanationPrinter()
    for page in range(2 * SHOWN_BY_RULE_MAX):
        voice.tell(Explanation(page, "no", "ACCESS.10", "text", ("ACCESS.10", page)))
    assert capsys.readouterr().err.count("no, event") == SHOWN_BY_RULE_MAX
    voice.tell(explanation("ACCESS.12"))
    assert "no, event 9" in capsys.readouterr().err


def test_what_a_program_dies_of_is_said_even_if_it_was_silenced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    voice = ExplanationPrinter()
    for nth in range(SHOWN_MAX + 1):
        found = explanation()
        found.signal = 20 + nth
        voice.tell(found)
    capsys.readouterr()
    voice(ProcessEnded("11", "SIGSEGV", 20 + SHOWN_MAX))
    assert capsys.readouterr().err == "process 11 died of SIGSEGV:\nno, event 9\n  rule  text\n"


@pytest.mark.parametrize("cause", [0, 19, 21])
def test_a_signal_from_elsewhere_is_not_claimed(
    cause: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The story: the last refusal was named as the reason, even a call, or one that was handled."""
    voice = ExplanationPrinter()
    found = explanation()
    found.signal = 20
    voice.tell(found)
    voice.tell(explanation("of a call"))
    capsys.readouterr()
    voice(ProcessEnded("11", "SIGSEGV", cause))
    assert capsys.readouterr().err == ""


def test_signals_are_remembered_within_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    voice = ExplanationPrinter()
    for nth in range(1, SIGNALS_KEPT + 2):
        found = explanation()
        found.signal = nth
        voice.tell(found)
    capsys.readouterr()
    voice(ProcessEnded("11", "SIGSEGV", 1))
    assert capsys.readouterr().err == ""
    voice(ProcessEnded("11", "SIGSEGV", 2))
    assert "died of SIGSEGV" in capsys.readouterr().err


# --stats


def test_stats_are_a_table_at_the_end(explained: subprocess.CompletedProcess[str]) -> None:
    table = explained.stderr.split("softsgx: stats\n")[1]
    table = re.sub(r"\n {15}", " ", table)
    rows = {line[:15].strip(): line[15:] for line in table.splitlines()}
    assert "EMODPR 1" in rows["leaves"]
    assert "SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS 1" in rows["calls"]
    assert "SIGSEGV SEGV_ACCERR 1" in rows["page faults"]
    assert "SIGSEGV SEGV_ACCERR 1" in rows["signals"]
    served = r"patched \d+, unproven \d+(, (cpuid|enclu) trapped \d+)*"
    assert re.fullmatch(served, rows["CPUID, ENCLU"])
    assert not rows["CPUID, ENCLU"].startswith("patched 0")
    assert re.fullmatch(r"\d+\.\d{3} in all, \d+\.\d{3} of them emulating", rows["seconds"])


# --trace


def test_the_header_has_version_options_and_program(
    trace: list[dict[str, Any]], dies: list[str]
) -> None:
    header = trace[0]
    assert header["softsgx_trace"] == 1
    assert (header["linux"], header["engine"], header["epc"]) == ("6.12", "unicorn", "256M")
    assert header["program"] == dies
    assert {"version", "seed", "start_ns", "cpu_options", "sgx1"} <= set(header)


def test_the_trace_runs_from_the_first_exec_to_the_death(trace: list[dict[str, Any]]) -> None:
    events = trace[1:]
    assert events[0]["what"] == "ProcessStarted"
    assert events[0]["path"].endswith("dies_refused")
    (ended,) = [event for event in events if event["what"] == "ProcessEnded"]
    assert (ended["process"], ended["outcome"]) == (events[0]["process"], "SIGSEGV")
    # The kernel frees EPC afterwards.
    assert {event.get("leaf") for event in events if event["event"] > ended["event"]} >= {"EREMOVE"}
    stamps = [event["ns"] for event in events]
    assert stamps == sorted(stamps)
    assert stamps[0] >= trace[0]["start_ns"]


def test_the_trace_has_the_calls_of_the_program(trace: list[dict[str, Any]]) -> None:
    ended = [event for event in trace if event.get("what") == "CallEnded"]
    names = [event["name"].removeprefix("SGX_IOC_ENCLAVE_") for event in ended]
    assert names.index("CREATE") < names.index("ADD_PAGES") < names.index("INIT")
    assert "mmap" in names
    assert all(event["result"] >= 0 for event in ended)
    (restrict,) = [
        event["fields"]
        for event in trace
        if event.get("what") == "IoctlArguments" and "permissions" in event["fields"]
    ]
    assert (restrict["length"], restrict["permissions"]) == ("0x1000", 1)


def test_the_trace_has_the_fault_its_outcome_and_the_signal(trace: list[dict[str, Any]]) -> None:
    order = ["AccessFaulted", "Left", "PageFaultEnded", "SignalSent", "ProcessEnded"]
    found = [event["what"] for event in trace[1:] if event["what"] in order]
    assert found[-len(order) :] == order


def test_a_perfetto_trace_has_a_track_for_the_thread(dies: list[str], tmp_path: Path) -> None:
    path = tmp_path / "dies.pftrace"
    softsgx("--trace", str(path), program=dies)
    packets = [read(packet) for packet in read(path.read_bytes())[1] if isinstance(packet, bytes)]
    tracks = [read(inner(packet, 60)) for packet in packets if 60 in packet]
    (thread,) = [read(inner(track, 4)) for track in tracks if 4 in track]
    assert number(thread, 1) == number(thread, 2)
    slices = [read(inner(packet, 11)) for packet in packets if 11 in packet]
    names = {text(event, 23) for event in slices if 23 in event}
    assert {"SGX_IOC_ENCLAVE_INIT", "enclave 1", "EMODPR", "SIGSEGV SEGV_ACCERR"} <= names


def test_a_text_trace_begins_with_its_legend(dies: list[str], tmp_path: Path) -> None:
    path = tmp_path / "dies.txt"
    softsgx("--trace", str(path), program=dies)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# version: ")
    assert any(line.split()[3] == "signal" for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("where", ["", "missing/trace.jsonl"])
def test_an_unwritable_trace_is_bad_input_and_nothing_runs(tmp_path: Path, where: str) -> None:
    path = tmp_path / where
    done = softsgx("--trace", str(path), program=["/bin/echo", "ran"])
    assert done.returncode == 125
    assert done.stdout == ""
    why = "Is a directory" if not where else "No such file or directory"
    assert done.stderr == f"softsgx: run: --trace: {path}: {why}\n"


def test_a_full_disk_is_found_before_the_program_starts() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    log = Log()
    with pytest.raises(RunnerError, match="No space left on device"):
        TraceFile("/dev/full", {}, log)


def test_a_full_disk_in_the_middle_ends_the_trace_only(tmp_path: Path) -> None:
    log = Log()
    trace = TraceFile(str(tmp_path / "t.jsonl"), {}, log)
    os.close(trace._stream.fileno())
    for _ in range(10_000):
        trace(TlbFlushed(0, "EENTER"))
    assert "t.jsonl: Bad file descriptor" in trace.trouble
    trace.close()


def test_a_file_that_cannot_be_replaced_ends_the_trace_only(tmp_path: Path) -> None:
    """Its old content is replaced when the program runs, so it may fail then."""
    (tmp_path / "t.jsonl").write_text("old")
    trace = TraceFile(str(tmp_path / "t.jsonl"), {}, Log())
    os.close(trace._stream.fileno())
    trace.started()
    assert "t.jsonl: Bad file descriptor" in trace.trouble
    trace.close()


def test_the_steps_of_the_model_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    trace = TraceFile(str(path), {}, Log())
    trace(TaskEnded(None))  # type: ignore[arg-type]
    trace(Stepped(None, ("pte", "x", True)))  # type: ignore[arg-type]
    trace(TlbFlushed(0, "EENTER"))
    trace.close()
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_killed_supervisor_leaves_a_whole_trace(tmp_path: Path) -> None:
    """SIGTERM: the program dies with it, and what was recorded is written.

    With a child that lives on, the trace goes on as well: on a busy machine it was read too early.
    """
    path = tmp_path / "killed.jsonl"
    command = [sys.executable, "-m", "softsgx", "run", "--trace", str(path), "--"]
    command += ["/bin/sh", "-c", "echo begun; exec sleep 10000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begun\n"
        run.terminate()
        assert run.wait(LIMIT_S) == 128 + signal.SIGTERM
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert Path(lines[1]["path"]).samefile("/bin/sh")
