"""Print the requirements of pyproject.toml, one a line: build backend, softsgx, extras.

Without those of `site`, which has a lock of its own: with --site, these alone. With --run, what
softsgx itself needs to run. With --lowest, the lowest versions of what users install: the
dependencies and their extras.
"""

import sys
import tomllib
from itertools import chain
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def pins(pyproject: str) -> list[str]:
    """All direct requirements of the text of a pyproject.toml, in its order."""
    config = tomllib.loads(pyproject)
    project = config["project"]
    extras = project.get("optional-dependencies", {})
    wanted = [extra for name, extra in extras.items() if name != "site"]
    return list(chain(config["build-system"]["requires"], project["dependencies"], *wanted))


def site(pyproject: str) -> list[str]:
    """The requirements of the extra `site`."""
    return list(tomllib.loads(pyproject)["project"]["optional-dependencies"]["site"])


def run(pyproject: str) -> list[str]:
    """The dependencies alone."""
    return list(tomllib.loads(pyproject)["project"]["dependencies"])


def lowest(pyproject: str) -> list[str]:
    """The lowest version of each dependency, and of each extra but dev, as exact pins."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {})
    users = [extra for name, extra in extras.items() if name not in ("dev", "site")]
    wanted = [project["dependencies"], *users]
    return [pin.partition(",")[0].replace(">=", "==") for pin in chain(*wanted)]


if __name__ == "__main__":
    what = {"--lowest": lowest, "--run": run, "--site": site}.get("".join(sys.argv[1:]), pins)
    print("\n".join(what(PYPROJECT.read_text(encoding="utf-8"))))
