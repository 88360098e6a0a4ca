"""What a command starts, found as execvp finds it, and each refusal in one line."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from softsgx.runner.errors import ProgramError
from softsgx.runner.process.exec_chain import ProgramFacts, check_program
from tests.runner.code.small_elfs import build

MAIN = "int main(void) { return 0; }"
LOADER = "/lib64/ld-linux-x86-64.so.2"


def refusal(name: str | Path, **environ: str) -> str:
    with pytest.raises(ProgramError) as refused:
        check_program(str(name), environ)
    assert "\n" not in str(refused.value)
    said = str(refused.value)
    return said.replace(str(name), "PROGRAM", 1) if name else said


def executable(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o755)
    return path


def changed(path: Path, source: Path, *changes: tuple[int, str, int]) -> Path:
    """A copy of a program with other values at some bytes."""
    data = bytearray(source.read_bytes())
    for at, layout, value in changes:
        struct.pack_into(layout, data, at, value)
    return executable(path, bytes(data))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("program"), MAIN, "-pie", "-fpie")


@pytest.mark.parametrize(
    ("options", "loader", "pie", "text"),
    [
        (("-pie", "-fpie"), LOADER, True, "dynamic PIE"),
        (("-no-pie",), LOADER, False, "dynamic non-PIE"),
        (("-static", "-no-pie"), "", False, "static non-PIE"),
        (("-static-pie", "-fpie"), "", True, "static PIE"),
    ],
)
def test_facts(options: tuple[str, ...], loader: str, pie: bool, text: str, tmp_path: Path) -> None:
    path = build(tmp_path, MAIN, *options)
    facts = check_program(str(path))
    assert facts == ProgramFacts(str(path), (), str(path), loader, pie)
    assert facts.static is not bool(loader)
    assert str(facts) == f"{path}: {text} x86-64 program"


def test_path_is_searched_in_order(program: Path, tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    (tmp_path / "first" / "app").mkdir()
    (tmp_path / "second" / "app").write_bytes(program.read_bytes())  # not executable
    executable(tmp_path / "third" / "app", program.read_bytes())
    path = ":".join(str(tmp_path / name) for name in ("none", "first", "second", "third"))
    assert check_program("app", {"PATH": path}).path == str(tmp_path / "third" / "app")


def test_empty_entry_of_path_is_the_current_directory(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "app", program.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert check_program("app", {"PATH": "/nowhere:"}).file == "app"
    assert check_program("./app", {}).file == "./app"


def test_without_path_the_usual_places_are_searched() -> None:
    assert check_program("sh", {}).path in ("/bin/sh", "/usr/bin/sh")


def test_not_found(tmp_path: Path) -> None:
    assert refusal("no-such-program") == "PROGRAM: no such program in PATH"
    assert refusal(tmp_path / "missing") == "PROGRAM: no such file or directory"
    assert refusal(tmp_path) == "PROGRAM: is a directory"
    assert refusal("/dev/null") == "PROGRAM: is not a regular file"
    assert refusal("/etc/passwd/x") == "PROGRAM: not a directory"
    assert refusal("") == "'': not the name of a program"
    assert refusal("a\0b") == "'a\\x00b': not the name of a program"


def test_file_in_path_without_the_right_says_so(tmp_path: Path) -> None:
    (tmp_path / "app").write_text(MAIN)
    said = refusal("app", PATH=f"/nowhere:{tmp_path}")
    assert said == f"{tmp_path}/PROGRAM: is not executable: chmod +x"


ONLY = "only x86-64 programs can be supervised"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ([(4, "B", 1), (18, "<H", 3)], f"32-bit program; {ONLY}"),
        ([(4, "B", 1)], f"32-bit program (x32); {ONLY}"),
        ([(18, "<H", 183)], f"program for AArch64; {ONLY}"),
        ([(5, "B", 2), (18, ">H", 22)], f"program for s390; {ONLY}"),
        ([(18, "<H", 4000)], f"program for machine 4000; {ONLY}"),
        ([(4, "B", 7)], "damaged ELF file: EI_CLASS 7"),
        ([(16, "<H", 1)], "ELF file of type 1, no program"),
        ([(16, "<H", 4)], "ELF file of type 4, no program"),
        ([(54, "<H", 32)], "damaged ELF file: no usable program headers"),
        ([(56, "<H", 0)], "damaged ELF file: no usable program headers"),
        ([(56, "<H", 65535)], "damaged ELF file: no usable program headers"),
        ([(32, "<Q", 1 << 63)], "damaged ELF file: program headers past its end"),
        ([(32, "<Q", 1 << 20)], "damaged ELF file: program headers past its end"),
    ],
    ids=str,
)
def test_other_elf_files(
    changes: list[tuple[int, str, int]], why: str, program: Path, tmp_path: Path
) -> None:
    assert refusal(changed(tmp_path / "other", program, *changes)) == f"PROGRAM: {why}"


def test_header_that_is_cut_short(program: Path, tmp_path: Path) -> None:
    path = executable(tmp_path / "short", program.read_bytes()[:60])
    assert refusal(path) == "PROGRAM: damaged ELF file: shorter than its header"


def test_missing_loader_is_named(program: Path, tmp_path: Path) -> None:
    data = program.read_bytes().replace(LOADER.encode(), b"/lib64/no-linux-x86-64.so.2")
    path = executable(tmp_path / "musl", data)
    assert refusal(path) == "PROGRAM: its loader /lib64/no-linux-x86-64.so.2 does not exist here"
    assert subprocess.run(["sh", "-c", str(path)], stderr=-3, check=False).returncode == 127


@pytest.mark.parametrize(("mode", "kind"), [(0o4755, "setuid"), (0o2755, "setgid")])
def test_privileged_programs(mode: int, kind: str, program: Path, tmp_path: Path) -> None:
    path = executable(tmp_path / "app", program.read_bytes())
    path.chmod(mode)
    assert refusal(path).startswith(f"PROGRAM: {kind} program: supervised programs cannot gain")
    path.chmod(0o2745)  # setgid without x for the group means something else
    assert check_program(str(path)).path == str(path)


def test_file_capabilities(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = executable(tmp_path / "app", program.read_bytes())
    monkeypatch.setattr(os, "listxattr", lambda path: ["security.capability"])
    assert refusal(path).startswith("PROGRAM: has file capabilities")


def test_file_system_without_attributes_is_no_refusal(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> list[str]:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "listxattr", refused)
    assert check_program(str(program)).path == str(program)
