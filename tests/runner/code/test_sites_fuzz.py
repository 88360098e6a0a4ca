"""Damaged ELF files: a program can crash itself, never the supervisor that reads its file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softsgx.runner.code.elf_code import ElfCode
from softsgx.runner.code.sites import Sites, scan
from softsgx.runner.errors import RunnerError
from softsgx.runner.process.exec_chain import check_program
from tests.runner.code.small_elfs import PROBE, build

STATIC = """
    .globl _start
    .type _start, @function
_start:
    .cfi_startproc
    call next
next: cpuid
    ret
    .cfi_endproc
    .size _start, . - _start
    enclu
"""


@cache
def program(kind: str) -> bytes:
    with TemporaryDirectory() as directory:
        if kind == "dynamic":
            return build(Path(directory), PROBE).read_bytes()
        options = ["-nostdlib", "-static", "-no-pie"]
        return build(Path(directory), "#as" + STATIC, *options).read_bytes()


def places(data: bytes) -> list[int]:
    """Bytes that the search looks at: headers, and the tables of functions."""
    elf = ElfCode(data)
    found = [*range(64), *range(elf.ehdr.e_phoff, elf.ehdr.e_phoff + 56 * elf.ehdr.e_phnum)]
    found += range(elf.ehdr.e_shoff, elf.ehdr.e_shoff + 64 * elf.ehdr.e_shnum)
    for section in elf.sections():
        if section.name in (b".eh_frame", b".eh_frame_hdr", b".symtab", b".text"):
            found += range(section.offset, section.offset + min(section.size, 400))
    return found


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@settings(max_examples=400)
@given(data=st.data())
def test_damage_is_no_error(kind: str, data: st.DataObject) -> None:
    """What is still proven stays at its pattern."""
    raw = bytearray(program(kind))
    spots = st.sampled_from(places(bytes(raw)))
    values = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
    for at, value in data.draw(st.lists(st.tuples(spots, values), min_size=1, max_size=12)):
        raw[at] = value
    damaged = bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    found = scan(damaged)
    assert isinstance(found, Sites)
    assert not (found.reason and (found.patch or found.unproven))
    assert "\n" not in found.reason
    for site in found.patch:
        size = 2 if site.kind == "cpuid" else 3
        pattern = {"cpuid": b"\x0f\xa2", "enclu": b"\x0f\x01\xd7"}[site.kind]
        assert damaged[site.offset : site.offset + size] == pattern


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@settings(max_examples=200)
@given(data=st.data())
def test_damage_is_refused_in_one_line_or_runs(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = bytearray(program(kind))
    spots = st.sampled_from(places(bytes(raw))[:600])
    for at, value in data.draw(st.lists(st.tuples(spots, st.integers(0, 255)), max_size=8)):
        raw[at] = value
    path = tmp_path_factory.getbasetemp() / f"damaged-{kind}"
    damaged = raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]
    path.write_bytes(damaged)
    path.chmod(0o755)
    # What is no ELF file at all is a script of the shell, as for execvp(3).
    runs = str(path) if damaged.startswith(b"\x7fELF") else (str(path), "/bin/sh: ")
    assert outcome(path).startswith(runs)


def outcome(path: Path) -> str:
    try:
        return str(check_program(str(path)))
    except RunnerError as error:
        return str(error) if "\n" not in str(error) else "more than one line"


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_behind_a_good_header(tail: bytes) -> None:
    head = program("static")[:64]
    found = scan(head + tail)
    assert isinstance(found, Sites)
