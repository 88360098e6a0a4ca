"""The wheel has every file that the package reads or names."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.tidy.repository import text_files
from tests.tidy.source import ROOT, sources

DOCUMENT = re.compile(r"\bdocs/[\w-]+\.md\b")
BUILD = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
# Sources of machine code, which the package has as bytes (`make asm`).
NOT_READ = (".s", ".S", ".c", ".ld")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from the files that git has, so that no stray file gets in."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for path, _ in text_files():
        if path.startswith(("src/", "docs/")) or "/" not in path:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, tree / path)
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(out / done.stdout.splitlines()[-1])


def installed(wheel: zipfile.ZipFile) -> dict[str, str]:
    """Where each file of the wheel is found below the prefix, or below site-packages."""
    return {re.sub(r"^[^/]*\.data/data/", "", name): name for name in wheel.namelist()}


def documents_named() -> set[str]:
    """Documents that strings of the package name; comments and docstrings do not count."""
    found: set[str] = set()
    for source in sources():
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) not in docstrings:
                    found |= set(DOCUMENT.findall(node.value))
    return found


def test_documents_that_texts_name_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """A hint once named docs/readings.md, which only a clone had."""
    files = installed(wheel)
    named = documents_named()
    assert "docs/run.md" in named, "the search finds nothing"
    for name in sorted(named):
        assert f"share/doc/softsgx/{name}" in files, name


def test_links_between_documents_lead_to_documents_of_the_wheel(wheel: zipfile.ZipFile) -> None:
    files = installed(wheel)
    base = Path("share/doc/softsgx")
    for name, member in files.items():
        if name.startswith(str(base)):
            text = wheel.read(member).decode()
            for link in re.findall(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", text):
                place = (Path("/") / Path(name).parent / link).resolve().relative_to("/")
                outside = ("examples", "bench", "tests")  # of the sources only
                if place.relative_to(base).parts[0] not in outside:
                    assert str(place) in files, f"{name}: {link}"


def test_files_of_the_package_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    files = set(wheel.namelist())
    for path in sorted((ROOT / "src").rglob("*")):
        name = path.relative_to(ROOT / "src").as_posix()
        made = "__pycache__" in name or ".egg-info" in name
        if path.is_file() and not made and path.suffix not in NOT_READ:
            assert name in files


def test_every_module_of_the_wheel_can_be_imported(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    modules = [
        ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__")
        for name in wheel.namelist()
        if name.startswith("softsgx/") and name.endswith(".py")
    ]
    assert len(modules) > 300
    code = (
        f"import sys, importlib; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "import softsgx; print(softsgx.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
