"""examples/explored/attacks.py: each mistake is found, and nothing once it is repaired."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from softsgx.cli.main import main
from softsgx.cli.scenarios import in_file
from softsgx.explore import Plan, explore
from softsgx.runner.explored.elf_scenario import ElfScenario
from tests.runner.explored.built import EXAMPLE, FLAGS, build
from tests.runner.gcc import needs_gcc
from tests.runner.programs import ROOT

TEXT = (ROOT / "docs" / "explore.md").read_text(encoding="utf-8")
ATTACKS = ("UseAfterFree", "AsyncShock", "TornUpdate", "CheckThenUse", "EntryInterrupted")

pytestmark = needs_gcc


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make explored` makes."""
    found = tmp_path_factory.mktemp("attacks")
    shutil.copy(EXAMPLE / "attacks.py", found)
    build(EXAMPLE / "attacks.c", found / "attacks")
    build(EXAMPLE / "attacks.c", found / "attacks-repaired", "-DREPAIRED")
    return found


def scenario(directory: Path, name: str) -> ElfScenario:
    (found,) = [s for s in in_file(directory / "attacks.py") if type(s).__name__ == name]
    assert isinstance(found, ElfScenario)
    return found


def test_a_use_after_free_between_two_stores_to_one_page(directory: Path) -> None:
    """The search called itself complete, without a point between the two stores."""
    file = directory / "attacks.py"
    kind = type(scenario(directory, "UseAfterFree"))
    assert explore(kind(points="misses"), Plan(preemptions=1)).failure is None
    assert kind(points="misses").granularity.kinds == "TLB misses and ENCLU"
    text = file.read_text().replace("rsi=RELEASE)", "rsi=RELEASE_PAUSE)")
    (directory / "pause.py").write_text(text.replace("HANDLE, _ =", "HANDLE, RELEASE_PAUSE ="))
    (paused,) = [s for s in in_file(directory / "pause.py") if s.name.startswith("UseAfterFree,")]
    assert isinstance(paused, ElfScenario)
    with_pause = type(paused)(points="misses")
    assert explore(with_pause, Plan(preemptions=1)).failure is not None


def test_the_commands_of_the_text(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make explored` is what the fixture does; its rule has the same flags."""
    block = next(b for b in TEXT.split("```") if b.startswith("sh\nmake explored\n"))
    make, *commands = block.split("\n")[1:-1]
    assert make == "make explored"
    dry = ["make", "--dry-run", "--always-make", "explored"]
    told = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(flag in told for flag in FLAGS)
    assert "-DREPAIRED" in told
    assert len(commands) == 2
    for command in commands:
        _softsgx, *argv = shlex.split(command.replace("build/explored", str(directory)))
        assert main(argv) == 1
        text = capsys.readouterr().out
        for name in ATTACKS:
            assert f"  in {name},6.12, attacks.py" in text
            (line,) = [line for line in text.splitlines() if line.startswith(f"{name}Repaired")]
            assert "Repaired,6.12: nothing found" in line
            # Accesses to different granules commute: otherwise 100 executions are far too few.
            assert (
                "exhaustive" not in argv
                or name == "AsyncShock"
                or "; one schedule of each" in line.replace("complete: ", "")
            )
        replays = [line.split("softsgx ")[1] for line in text.splitlines() if "replay:" in line]
        assert len(replays) == len(ATTACKS)
    for replay in replays:
        assert main(shlex.split(replay)) == 1
        assert capsys.readouterr().out.startswith("VIOLATION ")


def test_many_processes_find_the_same(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each process finds out by itself which memory is shared; the schedules must not differ."""
    text = (directory / "attacks.py").read_text()
    kept = (
        text.split("class AsyncShock(")[0]
        + 'class Repaired(UseAfterFree):\n    elf = "attacks-repaired"\n'
    )
    (directory / "two.py").write_text(kept)
    told = []
    for jobs in ([], ["--jobs", "1"]):
        assert main(["explore", str(directory / "two.py"), "--preemptions", "1", *jobs]) == 1
        text = capsys.readouterr().out
        told.append([line for line in text.splitlines() if "replay:" in line or "nothing" in line])
    assert [_untimed(line) for line in told[0]] == [_untimed(line) for line in told[1]]


def _untimed(line: str) -> str:
    return re.sub(r"\d+\.\d s", "", line)


def test_the_table_of_the_text_has_the_scenarios() -> None:
    for name in ATTACKS:
        assert f"| `{name}` |" in TEXT
