"""At exit `--stats` and `--explain` report what real programs left undone, and nothing else."""

from __future__ import annotations

import os
import re

import pytest

from tests.runner.programs import ENGINES, PROGRAMS, Program, Workshop, supervised

TRUE = os.path.realpath("/bin/true")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    workshop = Workshop(tmp_path_factory.mktemp("unfinished"))
    return workshop.command(Program.read(PROGRAMS / "unfinished.c"))


def remarks(command: list[str], *words: str, engine: str, option: str = "--stats") -> list[str]:
    """What is said to be unfinished; addresses, threads and event numbers are left out."""
    done = supervised([*command, *words], "--engine", engine, option)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^softsgx: unfinished: (.*)$", done.stderr, re.MULTILINE)
    return [
        re.sub(r"0x[0-9a-f]{6,}|(?<=thread )\d+|(?<=process )\d+|event \d+", "*", line)
        for line in said
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_said_where_nothing_was_forgotten(engine: str, command: list[str]) -> None:
    assert remarks(command, engine=engine) == []


def pages(end: int) -> list[str]:
    page = "enclave 1: page * (base + {:#x}) {} since {} by {}, *: {} still due"
    restrict = (
        "ioctl RESTRICT_PERMISSIONS(offset={:#x}, length=0x1000, permissions=r--) of thread *"
    )
    modify = "ioctl MODIFY_TYPES(offset={:#x}, length=0x1000, page_type=TRIM) of thread *"
    third = end + 0x2000
    return [
        page.format(end, "r-- REG PR", "EMODPR", restrict.format(end), "EACCEPT"),
        page.format(end + 0x1000, "r-- REG PR", "EMODPR", restrict.format(end + 0x1000), "EACCEPT"),
        page.format(
            third, "--- TRIM MODIFIED", "EMODT", modify.format(third), "EACCEPT, then REMOVE_PAGES,"
        ),
        page.format(
            end + 0x4000,
            "rw- REG PENDING",
            "EAUG",
            "page fault of thread *",
            "EACCEPT or EACCEPTCOPY",
        ),
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["pages", "closed"])
def test_pages_that_nobody_accepted(what: str, engine: str, command: list[str]) -> None:
    """Also of an enclave that was closed long before the program ended. The thread that read the
    new page got a #PF, and did not go on."""
    found = remarks(command, what, engine=engine, option="--explain")
    end = int(re.search(r"base \+ (0x\w+)", found[0])[1], 16)  # type: ignore[index]
    assert found[:4] == pages(end)
    (inside,) = found[4:]
    assert inside == (
        "enclave 1: thread * is still inside on the TCS * since *: AEX by #PF, *, and no ERESUME; "
        "process * ended, exit 0, *"
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("what", "end"),
    [("exit", "ended, exit 0"), ("exec", f"executed {TRUE}"), ("killed", "ended, SIGKILL")],
)
def test_threads_that_were_inside(what: str, end: str, engine: str, command: list[str]) -> None:
    (found,) = remarks(command, what, engine=engine)
    start = "enclave 1: thread * is still inside on the TCS * since *"
    assert found.startswith(start)
    assert found.endswith(f"; process * {end}, *")
