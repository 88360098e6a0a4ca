"""The faces of the packages: what can be imported from them is what they show.

`dir(softsgx)` had no `Machine`, since that is imported when it is first asked for: a REPL did not
complete it, and help() did not mention it.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "softsgx"
LAZY = sorted(
    ".".join(("softsgx", *path.parent.relative_to(ROOT).parts))
    for path in ROOT.rglob("__init__.py")
    if "\ndef __getattr__(" in path.read_text(encoding="utf-8")
)


def test_the_package_is_among_those_that_import_later() -> None:
    assert {"softsgx", "softsgx.cpu", "softsgx.system"} <= set(LAZY)


@pytest.mark.parametrize("name", LAZY)
def test_dir_shows_the_public_names_before_anything_is_imported(name: str) -> None:
    """In a process of its own: here other tests have imported everything."""
    script = f"import {name} as face; print(*dir(face))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    face = import_module(name)
    assert done.stdout.split() == sorted(face.__all__)
    for public in face.__all__:
        assert getattr(face, public) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    for name in LAZY:
        with pytest.raises(AttributeError, match=r"has no attribute 'nothing'"):
            import_module(name).nothing  # noqa: B018
