"""Results of the search are cached; the cache may be damaged, foreign, or not writable."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from softsgx.runner.code import site_cache
from softsgx.runner.code.site_cache import find_sites
from softsgx.runner.code.sites import Sites
from tests.runner.code.small_elfs import bare

CODE = ".globl _start\n_start: {}cpuid\nmov $60, %eax\nsyscall\n"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return bare(tmp_path, CODE.format(""))


@pytest.fixture
def entry(program: Path, environ: dict[str, str]) -> Path:
    """The file of a remembered result."""
    assert len(find_sites(str(program), environ).patch) == 1
    (found,) = Path(environ["XDG_CACHE_HOME"], "softsgx").iterdir()
    return found


def test_second_search_reads_the_result(
    program: Path, environ: dict[str, str], entry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_sites(str(program), {})
    monkeypatch.setattr(site_cache, "scan", pytest.fail)
    assert find_sites(str(program), environ) == first
    assert entry.exists()


def test_changed_program_is_searched_again(
    program: Path, environ: dict[str, str], entry: Path, tmp_path: Path
) -> None:
    (before,) = find_sites(str(program), environ).patch
    bare(tmp_path, CODE.format("nop\n"))
    (after,) = find_sites(str(program), environ).patch
    assert after.vaddr == before.vaddr + 1
    assert len(list(entry.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"key": 1}',
    ],
)
def test_damage_costs_the_search_again(
    damage: bytes, program: Path, environ: dict[str, str], entry: Path
) -> None:
    good = entry.read_bytes()
    entry.write_bytes(damage)
    assert len(find_sites(str(program), environ).patch) == 1
    assert entry.read_bytes() == good


def test_a_result_that_was_edited_is_not_believed(
    program: Path, environ: dict[str, str], entry: Path
) -> None:
    content = json.loads(entry.read_bytes())
    content["sites"]["patch"][0][0] += 1
    entry.write_text(json.dumps(content))
    assert find_sites(str(program), environ) == find_sites(str(program), {})


def test_a_site_without_its_bytes_is_not_believed(
    program: Path, environ: dict[str, str], entry: Path
) -> None:
    """The bytes were changed, and the times put back."""
    status = os.stat(program)
    content = json.loads(entry.read_bytes())
    offset = content["sites"]["patch"][0][0]
    with program.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x90\x90")
    os.utime(program, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert find_sites(str(program), environ).patch == ()


def test_unwritable_cache_is_no_error(program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for where in (str(tmp_path / "file"), "/proc/self/nowhere", "relative"):
        assert len(find_sites(str(program), {"XDG_CACHE_HOME": where}).patch) == 1
    assert not Path("relative").exists()


def test_no_temporary_file_is_left(program: Path, environ: dict[str, str], entry: Path) -> None:
    entry.unlink()
    entry.mkdir()  # the replacement fails
    (entry / "full").write_text("")
    assert len(find_sites(str(program), environ).patch) == 1
    assert list(entry.parent.iterdir()) == [entry]


def test_missing_file_is_a_reason(environ: dict[str, str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert find_sites(missing, environ) == Sites(reason="No such file or directory")
    assert find_sites("a\0b", environ).reason == "embedded null byte"
    assert find_sites(str(tmp_path), environ) == Sites(reason="Is a directory")
