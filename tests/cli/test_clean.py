"""`softsgx doctor --clean`: what is kept between runs can be removed."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from softsgx.cdriver import debian
from softsgx.cdriver.errors import DriverError
from softsgx.cli.main import main
from softsgx.report.cache import directory


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "softsgx"


def test_everything_that_is_kept_is_in_one_directory(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trees of kernels too, which had a rule of their own: a relative path was one of theirs."""
    monkeypatch.setattr(debian, "SOURCES", tmp_path)
    with tarfile.open(tmp_path / "linux-source-6.12.tar.xz", "w:xz") as tar:
        tar.add(__file__, "linux-source-6.12/Makefile")
    assert directory(os.environ) == cache
    assert debian.source("6.12").parent == cache / "driver"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert debian.source("6.12").parent == tmp_path / "home" / ".cache" / "softsgx" / "driver"
    monkeypatch.delenv("HOME")
    with pytest.raises(DriverError, match="no place"):
        debian.source("6.12")


def test_the_cache_is_removed_and_nothing_else(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cache.parent / "other"
    (cache / "driver").mkdir(parents=True)
    other.mkdir()
    (cache / "sites-1.json").write_bytes(bytes(1_000_000))
    (cache / "driver" / "encl.c").write_bytes(bytes(500_000))
    (cache / "link").symlink_to(other)
    (other / "kept").touch()
    assert main(["doctor", "--clean"]) == 0
    assert capsys.readouterr().out == f"{cache}: removed: 2 files, 1.5 MB\n"
    assert not cache.exists()
    assert (other / "kept").exists()
    assert main(["doctor", "--clean"]) == 0
    assert capsys.readouterr().out == f"{cache}: nothing was there\n"
    assert main(["doctor", "--clean", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"cache": str(cache), "files": 0, "bytes": 0}


def test_what_cannot_be_removed_is_one_line(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir()
    cache.symlink_to("/")
    assert main(["doctor", "--clean"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("softsgx: doctor: ")
    assert err.count("\n") == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    assert main(["doctor", "--clean"]) == 2
    assert "XDG_CACHE_HOME" in capsys.readouterr().err
