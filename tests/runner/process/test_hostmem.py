"""Facts about the memory of a process: areas without rights are areas, pages are there or not."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from softsgx.mem.pagetable import PTE_A, PTE_D, PTE_NX, PTE_P, PTE_U, PTE_W
from softsgx.runner.process.hostmem import HostMemory
from softsgx.spec.bits import PAGE_SIZE

NONE, READ, RW, RX = 0, 1, 3, 5
USED = PTE_P | PTE_U | PTE_A | PTE_D
LIBC = ctypes.CDLL(None, use_errno=True)

Area = Callable[..., int]


@pytest.fixture(params=["PROCMAP_QUERY", "maps"])
def host(request: pytest.FixtureRequest) -> Iterator[HostMemory]:
    """This process; both ways to ask for an area."""
    memory = HostMemory(os.getpid(), lambda _address: False)
    memory._query_works = request.param == "PROCMAP_QUERY"
    yield memory
    memory.close()


@pytest.fixture
def area() -> Iterator[Area]:
    """A page of anonymous memory with these rights; `touched`: it was written once."""
    kept = []

    def make(prot: int, *, touched: bool = True) -> int:
        memory = mmap.mmap(-1, PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        kept.append(memory)
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        del view
        if touched:
            memory[0] = 1
        protect(address, prot)
        return address

    def protect(address: int, prot: int) -> None:
        assert LIBC.mprotect(ctypes.c_void_p(address), PAGE_SIZE, prot) == 0

    yield make
    for memory in kept:
        memory.close()


@pytest.mark.parametrize("rights", [NONE, READ, RW, RX])
def test_an_area_without_rights_is_an_area(host: HostMemory, area: Area, rights: int) -> None:
    """PROT_NONE was taken for unmapped: SEGV_MAPERR instead of SEGV_ACCERR."""
    address = area(rights)
    assert host.rights(address + 0xFFF) == rights
    assert host.area(address) == rights


def test_a_file_of_a_file_system_mounted_noexec_is_known(
    host: HostMemory, area: Area, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its name has blanks, and was removed. Other memory has no such file."""
    asked = []

    def statvfs(path: str) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_flag=os.ST_NOEXEC)

    monkeypatch.setattr("os.statvfs", statvfs)
    path = tmp_path / "an image"
    path.write_bytes(bytes(PAGE_SIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as memory:
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        assert host.noexec(address + 0xFFF)
        path.unlink()
        assert host.noexec(address)
        del view
    assert asked == [str(path), f"{path} (deleted)"]
    assert not host.noexec(area(RW))
    assert not host.noexec(0)


def test_no_area(host: HostMemory) -> None:
    assert host.rights(0) is None
    assert host.area(0) == 0
    assert host.page_table_entry(0) == 0


@pytest.mark.parametrize(
    ("rights", "touched", "entry"),
    [
        (RW, True, USED | PTE_W | PTE_NX),
        (RW, False, USED | PTE_W | PTE_NX),
        (READ, True, USED | PTE_NX),
        (RX, True, USED),
        (READ, False, 0),
        (NONE, True, 0),
    ],
    ids=["rw", "rw, never touched", "r", "rx", "r, never touched", "none"],
)
def test_entries_of_ordinary_memory(
    host: HostMemory, area: Area, rights: int, touched: bool, entry: int
) -> None:
    assert host.page_table_entry(area(rights, touched=touched) + 0xFFF) == entry


@pytest.mark.parametrize("address", [-PAGE_SIZE, 1 << 47, 0xFFFF_8880_0000_0000])
def test_no_entries_but_of_user_memory(host: HostMemory, address: int) -> None:
    assert host.page_table_entry(address) == 0


def test_memory_of_an_enclave_is_not_ordinary(area: Area) -> None:
    memory = HostMemory(os.getpid(), lambda _address: True)
    assert memory.page_table_entry(area(RW)) == 0
    memory.close()
