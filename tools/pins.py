"""Print the requirements of pyproject.toml, one a line: build backend, softsgx, extras.

With --lowest, the lowest versions of what users install: the dependencies and their extras.
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
    extras = project.get("optional-dependencies", {}).values()
    return list(chain(config["build-system"]["requires"], project["dependencies"], *extras))


def lowest(pyproject: str) -> list[str]:
    """The lowest version of each dependency, and of each extra but dev, as exact pins."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {})
    wanted = [project["dependencies"], *(extra for name, extra in extras.items() if name != "dev")]
    return [pin.partition(",")[0].replace(">=", "==") for pin in chain(*wanted)]


if __name__ == "__main__":
    what = lowest if sys.argv[1:] == ["--lowest"] else pins
    print("\n".join(what(PYPROJECT.read_text(encoding="utf-8"))))
