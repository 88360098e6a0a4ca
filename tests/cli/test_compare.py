"""`softsgx compare`: tables, JSON, report, bad input, an interrupt, and its own checks."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from softsgx.cli.compare import costs
from softsgx.cli.errors import EXIT_INTERRUPTED
from softsgx.cli.main import main
from softsgx.lab.compare import Cell, Comparison, Plan, run_cell
from softsgx.lab.designs import DESIGNS
from softsgx.lab.measurement import Measurement
from softsgx.lab.prices import PROFILES
from softsgx.lab.runtimes import RUNTIMES
from softsgx.lab.workloads import WORKLOADS
from softsgx.spec.epcm import R
from tests.cli import snapshots
from tests.lab.test_recorded import restrict, trace

SMALL = [
    "--workloads",
    "relro,stacks",
    "--n",
    "2",
    "--designs",
    "ioctl,ioctl-batched,mprotect-read",
]
SMALL += ["--runtimes", "gramine", "--jobs", "1"]


def out(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    assert main(["compare", *args]) == code
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["compare", *args]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err


def test_the_table_of_a_seed_is_always_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    snapshots.check("compare.txt", out(capsys, *SMALL))


def test_the_profile_is_named_with_every_result(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, *SMALL, "--prices", "high,low")
    assert "prices: high (corners: high, low)" in text
    assert "stacks, 2 processors, prices high" in text
    told = "The mark is what holds at all 2 corners (high, low): HOLDS: in all"
    assert told in text.replace("\n", " ")


def test_failures_are_marks_unless_the_evidence_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = out(capsys, *SMALL)
    assert re.search(r"^two-processes +ok +UL +ok$|^two-processes +ok +ok +UL$", text, re.M)
    assert "schedule 1:" not in text
    assert "EMODPR  ETRACK" in text, "there is room for every column"
    text = out(capsys, *SMALL, "--failures")
    assert "schedule 1:egik" in text
    assert "U   an access" not in text


def test_more_processes_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    one = out(capsys, *SMALL, "--json")
    assert out(capsys, *SMALL[:-1], "2", "--json") == one


def test_json_has_rows_conclusions_and_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(out(capsys, *SMALL, "--json"))
    assert data["runs"] == {"finished": 24, "wanted": 24}
    rows = {r["design"]: r for r in data["rows"] if r["workload"] == "stacks"}
    assert set(rows["ioctl"]["figures"]) == {"default", "low", "high"}
    assert "EACCEPT of page 0 refused by the kernel" in rows["mprotect-read"]["cannot"]
    assert rows["ioctl"]["figures"]["low"]["call"] < rows["ioctl"]["figures"]["high"]["call"]
    assert {c["better"] for c in data["conclusions"]} <= set(DESIGNS)
    assert len(data["outcomes"]) == 3 * len(data["failures"])
    assert all(outcome["schedule"].startswith("1:") for outcome in data["outcomes"])


def test_report_and_plots_are_the_same_bytes_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = []
    for name in ("one", "two"):
        where = tmp_path / name
        out(capsys, *SMALL, "--html", str(tmp_path / f"{name}.html"), "--plots", str(where))
        files = {path.name: path.read_bytes() for path in sorted(where.iterdir())}
        made.append((files, (tmp_path / f"{name}.html").read_bytes()))
    assert made[0] == made[1]
    files, html = made[0]
    assert sorted(files) == sorted(
        f"{what}-{name}.{kind}"
        for what in ("faults", "lost")
        for name in ("relro", "stacks")
        for kind in ("png", "svg")
    )
    assert files["lost-stacks.png"].startswith(b"\x89PNG")
    text = html.decode()
    assert not re.search(r'(src|href)="(?!data:)', text), "the report needs nothing else"
    assert "--failure mprotect-read/pending --schedule 1:" in text
    assert "What cannot work" in text


def test_the_command_in_the_report_makes_it_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A price file was named by its stem, which is no profile; names may need quotes."""
    monkeypatch.chdir(tmp_path)
    odd = Path("my prices", "don't & do.json")
    odd.parent.mkdir()
    odd.write_text(json.dumps(dict(PROFILES["low"].cycles)))
    arguments = ["--workloads", "stacks", "--n", "2", "--designs", "ioctl,ioctl-batched"]
    arguments += ["--runtimes", "gramine", "--jobs", "1", "--prices", f"high,{odd}"]
    out(capsys, *arguments, "--html", "one.html")
    report = Path("one.html").read_text()
    found = re.search(r"Made by: <code>softsgx compare (.*)</code>", report)
    assert found is not None
    again = shlex.split(unescape(found[1]))
    assert again[-2:] == ["--html", "FILE"]
    out(capsys, *again[:-1], "two.html")
    assert Path("two.html").read_text() == report


@pytest.mark.parametrize(
    ("report", "found"),
    [("here/lost-stacks.svg", "lost-stacks.svg"), ("here/x/../faults-stacks.png", "faults-s")],
)
def test_names_that_collide_are_refused_before_the_work(
    report: str,
    found: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were refused after it, hours later; two workloads with one name were one plot."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "measure_all", lambda cells, jobs: pytest.fail("it worked"))
    Path("here", "x").mkdir(parents=True)
    error = refused(capsys, "--workloads", "stacks", "--plots", "here", "--html", report)
    assert found in error
    assert "would be written over" in error
    for name in ("a/b", "a-b"):
        Path(name).parent.mkdir(exist_ok=True)
        os.rename(trace(tmp_path, restrict(1, 1, R)), name)
    both = "recorded:a/b,recorded:a-b"
    error = refused(capsys, "--workloads", both, "--plots", "here")
    assert error == "softsgx: compare: here/lost-recorded-a-b.svg: would be written over: " + (
        "choose another name\n"
    )
    Path("here", "lost-stacks.png").mkdir()
    error = refused(capsys, "--workloads", "stacks", "--plots", "here")
    assert "here/lost-stacks.png: Is a directory" in error


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--designs", "magic"], f"'magic': unknown design; known are {', '.join(DESIGNS)}"),
        (["--runtimes", "x"], f"'x': unknown runtime; known are {', '.join(RUNTIMES)}"),
        (["--workloads", "x"], f"known are {', '.join(WORKLOADS)}, recorded:FILE"),
        (["--workloads", "recorded:none"], "none: No such file or directory"),
        (["--n", "0"], "'0': not a number from 1 to 256"),
        (["--n", "1,257"], "'257': not a number from 1 to 256"),
        (["--prices", "cheap"], "cheap: no profile; known are default, low, high"),
        (["--prices", "low,low"], "low: two profiles called low"),
        (["--jobs", "0"], "'0': not a number"),
        (["--failure", "ioctl/none"], "'ioctl/none': not DESIGN/FAILURE; designs: ioctl,"),
        (["--failure", "ioctl/pending", "--schedule", "2:a"], "--schedule: schedule '2:a'"),
        (["--failure", "ioctl/in-use", "--schedule", "1:z9"], "--schedule: choice 0"),
    ],
)
def test_bad_input_is_one_line(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, *args)
    assert error.count("\n") == 1
    assert error.startswith("softsgx: compare: ")
    assert message in error


def test_a_profile_without_an_entry_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    cycles = dict(PROFILES["low"].cycles)
    del cycles["ETRACK"]
    path.write_text(json.dumps(cycles))
    assert f"{path}: ETRACK: missing" in refused(capsys, "--prices", str(path))


def test_without_matplotlib_the_remedy_comes_before_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "in the checkout: pip install '.[plots]'" in refused(capsys, "--html", "r.html")


def test_an_interrupt_keeps_what_was_finished(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(cells: list[Cell], jobs: int) -> Iterator[Measurement]:
        for number, cell in enumerate(cells):
            if number == 15:
                raise KeyboardInterrupt
            yield run_cell(cell)

    monkeypatch.setattr(costs, "_results", interrupted)
    assert main(["compare", *SMALL]) == EXIT_INTERRUPTED
    captured = capsys.readouterr()
    assert "interrupted: 15 of 24 runs" in captured.err
    assert re.search(r"gramine +mprotect-read", captured.out)
    assert not re.search(r"gramine +ioctl-batched", captured.out)


def test_one_failure_is_told_event_by_event(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "--failure", "fault-always/reclaimed", code=1)
    assert "UNDESERVED FAULT; LOST in silence" in text
    assert "cpu 1  EMODPR page 2 -> SGX_SUCCESS" in text
    assert re.search(r"EBLOCK -> SGX_SUCCESS  x \d+\n", text)
    # A headline that nothing follows is not shown.
    assert "afterwards:" not in out(capsys, "--failure", "ioctl/pending")
    text = out(capsys, "--failure", "mprotect-read/pending", code=1)
    assert "EMODPR page 2 -> SGX_PAGE_NOT_MODIFIABLE\ncpu 0  caller: mprotect: -EIO" in text
    assert "afterwards:" in text


def test_a_conclusion_holds_only_if_it_holds_with_every_profile() -> None:
    low, high = PROFILES["low"], PROFILES["high"]
    plan = Plan(("ioctl", "ioctl-batched"), ("gramine",), ("cow",), (4,), (low, high), 1)
    measured = [run_cell(cell) for cell in plan.cells()]
    better = Comparison(plan, measured).conclusions()[0]
    assert (better.better, better.worse, better.holds) == ("ioctl-batched", "ioctl", True)
    # The same, except for one profile in which the batched ioctl takes for ever.
    worse = [
        m if (m.design, m.profile) != ("ioctl-batched", "high") else _slower(m) for m in measured
    ]
    assert not Comparison(plan, worse).conclusions()[0].holds


def _slower(m: Measurement) -> Measurement:
    from dataclasses import replace

    return replace(m, caller=1e9)
