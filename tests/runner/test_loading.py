"""What `softsgx.runner.loading` reads of a process that has just begun."""

import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest

from softsgx.runner import loading
from softsgx.runner import ptrace as p
from softsgx.runner.cpuid import CpuidPolicy, part_for
from softsgx.runner.loading import Loader

VDSO = 0x7FFE_0000_1000
STACK_END = 0x7FFD_0000_3000


@pytest.mark.parametrize("below", range(8, 4096 + 64, 8))
def test_the_vdso_is_found_wherever_the_stack_begins(
    monkeypatch: pytest.MonkeyPatch, below: int
) -> None:
    """Once in a few hundred starts one entry of the auxiliary vector spanned two pages."""
    words = [2, 11, 12, 0, *range(21, 30), 0, 3, 64, 4, 56, loading.AT_SYSINFO_EHDR, VDSO, 0, 0]
    stack = struct.pack(f"<{len(words)}Q", *words)
    rsp = STACK_END - 4096 - below
    memory = stack.ljust(STACK_END - rsp, b"\0")

    def read(_tid: int, address: int, size: int) -> bytes | None:
        at = address - rsp
        return memory[at : at + size] if 0 <= at <= len(memory) - size else None

    monkeypatch.setattr(p, "read_memory", read)
    loader = Loader(CpuidPolicy(part_for("unicorn"), (), "unicorn"))
    found, place = loader._find_vdso(cast(Any, SimpleNamespace(tid=1)), rsp)
    assert found == VDSO
    assert place == rsp + 8 * words.index(loading.AT_SYSINFO_EHDR)
