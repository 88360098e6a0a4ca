"""EMODPR, EMODT and ETRACK fail at the third page: what the caller gets, and that nothing leaks."""

from typing import Any

import pytest

from softsgx.linux.errno import EFAULT, ENOMEM
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_TRIM, R
from softsgx.spec.leaves import EMODPR, EMODT, ETRACK
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT
from tests.linux.building import created
from tests.linux.failing import GP, PF, failing, nth
from tests.linux.world import World, world


def answer(w: World, leaf: int) -> tuple[int, int, int]:
    """RESTRICT or, for EMODT, trim four pages: errno, result, count in pages."""
    e, length = w.enclave, 4 * PAGE_SIZE
    body: Any = e.trim(w.host, e.data[0], length)
    if leaf != EMODT:
        body = e.restrict(w.host, e.data[0], length, R)
    ret, block = w.do(body)
    return ret, block.result, block.count // PAGE_SIZE


def types(w: World) -> list[int]:
    return [w.encl.page_array[address // PAGE_SIZE].type for address in w.enclave.data]


def released(w: World) -> bool:
    assert w.do(w.host.munmap(w.enclave.base, w.enclave.size)) == 0
    assert w.do(w.host.close(w.enclave.fd)) == 0
    w.machine.settle()
    return w.kernel.nr_free == w.machine.processor.epc.pages


@pytest.mark.parametrize("leaf", [EMODPR, EMODT])
@pytest.mark.parametrize(
    ("end", "result"), [(GP, 0), (PF, 0), (int(SGX_EPC_PAGE_CONFLICT), 7), (20, 20)]
)
def test_leaf_fails(leaf: int, end: int, result: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(pages=4)
    failing(monkeypatch, leaf, {3: end})
    assert answer(w, leaf) == (-EFAULT, result, 2)
    expected = [PT_TRIM] * 2 if leaf == EMODT else [PT_REG] * 2
    assert types(w) == [*expected, PT_REG, PT_REG]
    assert released(w)


def test_etrack_fails_once_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(pages=4)
    failing(monkeypatch, ETRACK, {3: 17})
    assert answer(w, EMODPR) == (0, 0, 4)
    assert w.kernel.warnings == []
    assert w.kernel.printed["ETRACK returned"] == "sgx: ETRACK returned 17 (0x11)"


@pytest.mark.parametrize("leaf", [EMODPR, EMODT])
def test_etrack_fails_twice(leaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w = world(pages=4)
    failing(monkeypatch, ETRACK, {3: 17, 4: 17})
    # The EPCM of the third page has changed, but neither count nor the record of its type.
    assert answer(w, leaf) == (-EFAULT, 0, 2)
    assert types(w)[2:] == [PT_REG, PT_REG]
    assert w.kernel.printed["ETRACK repeat returned"] == "sgx: ETRACK repeat returned 17 (0x11)"
    assert released(w)


@pytest.mark.parametrize("site", ["sgx_encl_page_alloc", "xa_insert", "sgx_alloc_epc_page"])
def test_add_pages_out_of_memory_at_the_third_page(site: str) -> None:
    b = created()
    b.machine.kernel.inject = nth(site, 3)
    # Only what cannot be reclaimed is out of the question: an EPC page comes by another try.
    done = 4 if site == "sgx_alloc_epc_page" else 2
    assert b.add(0, 4) == (0 if done == 4 else -ENOMEM, done * PAGE_SIZE)
    assert b.encl.page_cnt == done + 1
    assert b.close() == 0
    assert b.machine.kernel.warnings == []
