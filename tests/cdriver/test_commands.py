"""`softsgx run`, `explore` and `compare` on a driver object, and what a bad one gets."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from softsgx.cdriver import manifest
from softsgx.cli.main import main
from softsgx.system.scenarios.catalogue import KNOWN_RACES
from tests.cdriver import sources
from tests.cdriver.patches import K1_FIXED, patched_object
from tests.runner.programs import PROGRAMS, ROOT, Program, Workshop, supervised


@pytest.fixture
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sources.driver_object("6.12", tmp_path_factory))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit code, and both outputs."""
    code = main([*words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_finding_shows_lines_of_c_and_is_replayed(
    driver: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _err = said(capsys, "explore", "FirstTouch", "--driver", driver)
    assert code == 1
    assert re.search(r"EAUG of EPC page \d+ .*\n +at encl\.c:\d+ sgx_encl_eaug_page", out)
    preempted = r"-- reader \d is preempted at encl\.c:\d+ sgx_encl_eaug_page, holding mmap_lock"
    assert re.search(preempted, out)
    found = re.search(r"replay: softsgx (.*)", out)
    assert found is not None
    code, again, _err = said(capsys, *shlex.split(found[1]))
    assert code == 1
    assert again.splitlines()[-1] == out.splitlines()[-1]
    without = [word for word in shlex.split(found[1]) if word not in ("--driver", driver)]
    code, _out, err = said(capsys, *without)
    assert code == 2
    assert "give that driver object with --driver" in err


def test_the_known_races_with_their_lines(driver: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "explore", "--known-races", "--driver", driver, "--json")
    assert code == 0, err
    rows = {row["race"]: row for row in json.loads(out)}
    assert set(rows) == {"K1", "K2", "K3", "L4", "L7"}
    for race in KNOWN_RACES:
        if race.number in rows:
            row = rows[race.number]
            assert row["rule"] == race.rule
            assert any(re.fullmatch(r"\w+\.c:\d+ sgx_\w+", at) for at in row["windows"]), row
    # The document has the same table, but for lines that have moved, and times.
    text = (ROOT / "docs" / "driver.md").read_text(encoding="utf-8")
    told = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line[:3] in ("| K", "| L")
    ]
    keys = ("race", "scenario", "rule", "executions", "preemptions", "steps")
    found = [[*(str(row[key]) for key in keys), ", ".join(row["windows"])] for row in rows.values()]
    assert _without_lines(told) == _without_lines(found)


def _without_lines(rows: list[list[str]]) -> list[str]:
    return [re.sub(r"(\.c):\d+", r"\1", " | ".join(row)) for row in rows]


def test_a_fix_is_seen_by_the_known_races(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = sources.kernel_or_skip("6.12")
    fixed = str(patched_object(tree, tmp_path / "linux", K1_FIXED))
    words = ("explore", "--known-races", "--driver", fixed, "--json", "--budget", "5s")
    code, out, _err = said(capsys, *words)
    rows = {row["race"]: row["rule"] for row in json.loads(out)}
    assert code == 1
    assert rows.pop("K1") is None
    assert None not in rows.values()


def test_two_processes_find_the_same(driver: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("explore", "FirstTouch", "--driver", driver, "--json")
    alone, pair = (json.loads(said(capsys, *words, *more)[1]) for more in ((), ("--jobs", "2")))
    for found in (*alone, *pair):
        del found["seconds"]
    assert alone == pair


@pytest.mark.parametrize("scenario", ["PcmdSharing", "TwoProtects"])
def test_a_search_by_states_is_complete(
    scenario: str, driver: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The arena is a part of the state: schedules meet again, and the search ends.

    In TwoProtects a call once began in the words that another one had left in its task.
    """
    words = ("explore", scenario, "--driver", driver, "--strategy", "states", "--json")
    code, out, err = said(capsys, *words)
    assert code == 0, err
    (found,) = json.loads(out)
    assert found["complete"]
    assert found["schedules_estimated"] > 100 * found["executions"]


def test_points_at_accesses(driver: str, capsys: pytest.CaptureFixture[str]) -> None:
    """K1 with a point at each access; its replay has them, too."""
    words = ("explore", "FirstTouch", "--driver", driver, "--points", "accesses")
    code, out, _err = said(capsys, *words)
    assert code == 1
    assert re.search(r"(read|write) memory\n +at encl\.c:\d+ sgx_", out)
    found = re.search(r"replay: softsgx (.*)", out)
    assert found is not None
    assert ",points=accesses," in found[1]
    code, again, _err = said(capsys, *shlex.split(found[1]))
    assert code == 1
    assert again.splitlines()[-1] == out.splitlines()[-1]


def test_it_is_a_design_that_costs_what_ours_does(
    driver: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "compare --designs ioctl --runtimes intel-emm --workloads jit --n 2 --jobs 1 --json"
    code, out, err = said(capsys, *words.split(), "--prices", "default", "--driver", driver)
    assert code == 0, err
    rows = json.loads(out)["rows"]
    figures = {row["design"]: row["figures"]["default"] for row in rows}
    for found in figures.values():
        del found["points"]  # spinlocks have some, which cost nothing
    assert figures["ioctl"] == figures[f"driver:{driver}"]


USES = {
    "explore": ("FirstTouch",),
    "explore --shipped": (),
    "explore --known-races": (),
    "compare": (),
    "run": ("--", "/bin/true"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("bad", ["missing", "not ours", "another softsgx"])
def test_a_bad_object_is_one_line(
    use: str, bad: str, driver: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sgx.drv"
    if bad == "not ours":
        path.write_bytes(b"\x7fELF")
    elif bad == "another softsgx":
        data, digest = Path(driver).read_bytes(), manifest.headers_digest().encode()
        assert digest in data
        path.write_bytes(data.replace(digest, digest[::-1]))
    if use == "run":
        done = supervised(["/bin/true"], "--driver", str(path))
        code, err = done.returncode, done.stderr
    else:
        code = main([*use.split(), "--driver", str(path), *USES[use]])
        err = capfd.readouterr().err
    what = {
        "missing": "No such file or directory",
        "not ours": "not a driver object: make one with softsgx driver build",
        "another softsgx": "built for another softsgx: build it again: softsgx driver build",
    }[bad]
    assert err == f"softsgx: {use.split()[0]}: --driver: {path}: {what}\n"
    assert code == (125 if use == "run" else 2)


def test_what_has_no_machine_or_switches_races(
    driver: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.py"
    path.write_text("from softsgx.explore import Scenario\nclass Plain(Scenario): pass\n")
    switched = "FirstTouch,6.12,eaug_double_fault=0"
    for target, why in (
        (str(path), "Plain: has no machine: not a MachineScenario"),
        (switched, f"{switched}: the races of a driver object cannot be switched"),
        ("VaShortage", "VaShortage,6.12: the watermarks of a driver object are constants"),
    ):
        code, _out, err = said(capsys, "explore", target, "--driver", driver)
        assert (code, err) == (2, f"softsgx: explore: --driver: {why}\n")


@pytest.mark.parametrize("engine", ["unicorn", "native"])
def test_a_program_runs_on_it(engine: str, driver: str, tmp_path: Path) -> None:
    """The example; and a program whose enclaves are evicted and reloaded."""
    shop = Workshop(tmp_path)
    done = supervised(shop.example(), "--driver", driver, "--engine", engine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("edmm: 10 steps, as the manual and the kernel say\n")
    program = Program.read(PROGRAMS / "epc_evicted.c")
    options = ("--driver", driver, "--engine", engine, "--stats", *program.options)
    done = supervised(shop.command(program), *options)
    assert done.returncode == program.exit, done.stdout + done.stderr
    assert re.search(r"evicted [1-9]", done.stderr)
