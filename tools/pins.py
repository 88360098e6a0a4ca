"""Print the requirements of pyproject.toml, one a line: build backend, softsgx, extras."""

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


if __name__ == "__main__":
    print("\n".join(pins(PYPROJECT.read_text(encoding="utf-8"))))
