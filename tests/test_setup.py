"""What `make demo` installs: what softsgx needs to run, or nothing if there is an environment."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools import pins

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("Makefile", "pyproject.toml", "requirements", "tools", "examples/edmm")
DEVELOPER = ("mypy", "distributed", "matplotlib", "pytest")


def would_do(place: Path, *arguments: str) -> str:
    """What make would do in a checkout with nothing made."""
    for name in NEEDED:
        source = ROOT / name
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place / name)
        else:
            shutil.copyfile(source, place / name)
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout


def test_the_demo_has_an_environment_of_its_own(tmp_path: Path) -> None:
    """It took 438 MB in silence: mypy, Dask and matplotlib among them."""
    said = would_do(tmp_path, "demo")
    assert re.search(r"install .*tools/pins.py --run", said.replace("\\\n", ""))
    assert "-r requirements/dev.txt" not in said
    assert "softsgx: demo: an environment" in said
    assert "build/demo/environment/bin/python -m softsgx run" in said


def test_the_demo_takes_the_environment_that_is_there(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    stamp = tmp_path / ".venv" / ".stamp"
    stamp.touch()
    said = would_do(tmp_path, "demo", "--old-file=.venv/.stamp")
    assert "pip" not in said
    assert ".venv/bin/python -m softsgx run" in said


def test_the_image_takes_its_own(tmp_path: Path) -> None:
    """The step of the Dockerfile, whose environment has no stamp."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (step,) = re.findall(r"^RUN make (.*?) &&", dockerfile, re.MULTILINE)
    said = would_do(tmp_path, *step.split())
    assert "pip" not in said
    assert "/opt/softsgx/bin/python -m softsgx sign" in said


def test_what_runs_is_in_the_lock() -> None:
    """And so is all that it needs in its turn."""
    locked = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    locked = locked.lower().replace("_", "-")
    wanted = [_name(line) for line in pins.run((ROOT / "pyproject.toml").read_text("utf-8"))]
    assert wanted == ["cryptography", "unicorn", "capstone"]
    for name in wanted:
        needs = [Requirement(need) for need in requires(name) or ()]
        here = [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
        for package in (name, *map(_name, here)):
            assert f"\n{package}==" in locked, package


@pytest.mark.parametrize("package", DEVELOPER)
def test_what_developers_need_does_not_run(package: str) -> None:
    assert package not in " ".join(pins.run((ROOT / "pyproject.toml").read_text("utf-8")))


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")
