"""What can be seen of two machines, and whether it is the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from softsgx.cdriver.driver import CDriver
from tests.differential.deliberate import FRAMES, TEXTS

if TYPE_CHECKING:
    from tests.differential.stage import Stage

Pair = tuple[str, Any, Any]


def quick(a: Stage, b: Stage) -> Iterator[Pair]:
    """What is compared after every operation: name, value of one, value of the other."""
    yield "leaves", a.leaves.seen, b.leaves.seen
    yield "interrupts", a.interrupts, b.interrupts
    yield "EPCM", a.processor.epcm.digest_bytes(), b.processor.epcm.digest_bytes()
    yield "tasks", _tasks(a), _tasks(b)
    yield "areas", _areas(a), _areas(b)
    yield "page tables", _ptes(a), _ptes(b)
    yield "processors", _lps(a), _lps(b)
    yield (
        "free pages",
        a.kernel.driver.free_pages(a.kernel)[1],
        b.kernel.driver.free_pages(b.kernel)[1],
    )
    yield "enclaves", enclaves(a), enclaves(b)
    yield "descriptors", _files(a), _files(b)
    yield "backing pages", backing(a), backing(b)
    yield "kernel log", sorted(a.kernel.printed.values()), sorted(b.kernel.printed.values())
    yield "warnings", TEXTS.even(a.kernel.warnings), TEXTS.even(b.kernel.warnings)


def slow(a: Stage, b: Stage) -> Iterator[Pair]:
    """What is compared now and then: the driver's record of every page, contents of EPC."""
    yield "pages", pages(a), pages(b)
    yield "contents of EPC", _contents(a), _contents(b)


def _tasks(stage: Stage) -> list[Any]:
    return [None if slot.task is None else slot.task.point[0] for slot in stage.slots]


def _areas(stage: Stage) -> list[Any]:
    return [
        [
            (v.start, v.end, v.flags, v.may, v.advised, v.offset, getattr(v.encl, "number", None))
            for v in mm.vmas
        ]
        for mm in stage.mms
    ]


def _ptes(stage: Stage) -> list[Any]:
    epc = stage.processor.epc
    frames = range(epc.pfn(0), epc.pfn(0) + epc.pages)
    return [
        {page: FRAMES.even(pte, frames) for page, pte in mm.space.ptes.items()} for mm in stage.mms
    ]


def _lps(stage: Stage) -> list[Any]:
    return [
        (lp.secs_page, lp.tcs_page, lp.epoch, lp.entry, list(lp.tlb.entries))
        for lp in stage.processor.lps
    ]


def _files(stage: Stage) -> list[Any]:
    return [[(fd, file.count) for fd, file in host.process.files.items()] for host in stage.hosts()]


def enclaves(stage: Stage) -> list[Any]:
    """The driver's record of each enclave that has not been destroyed."""
    found = []
    driver = stage.kernel.driver
    for file in stage.files:
        encl: Any = file.encl
        if not file.count:
            continue
        if isinstance(driver, CDriver):
            base, size, flags, count, children, attributes, mask, version, refs, secs, there = (
                driver.view("k_view_encl", 11, encl.address)
            )
        else:
            base, size, flags, count = encl.base, encl.size, encl.flags, encl.page_cnt
            children, attributes, mask = encl.secs_child_cnt, encl.attributes, encl.attributes_mask
            version, refs, there = encl.mm_list_version, encl.refcount, len(encl.page_array)
            secs = encl.secs.epc_page.pfn if encl.secs.epc_page is not None else 0
        found.append(
            (base, size, flags, count, children, attributes, mask, version, refs, secs, there)
        )
    return found


def pages(stage: Stage) -> list[Any]:
    """The driver's record of each page, and the VA pages."""
    found: list[Any] = []
    for file in stage.files:
        encl: Any = file.encl
        if not file.count:
            continue
        found.append([va.epc_page.number for va in encl.va_pages])
        found.append(
            [
                (
                    index,
                    page.address,
                    page.vm_max_prot_bits,
                    page.type,
                    None if page.epc_page is None else (page.epc_page.number, page.epc_page.flags),
                    page.being_reclaimed,
                )
                for index, page in sorted(encl.page_array.items())
            ]
        )
    return found


def backing(stage: Stage) -> int:
    """How many pages the files behind the enclaves have."""
    driver = stage.kernel.driver
    if isinstance(driver, CDriver):
        return sum(map(len, driver.shmem.values()))
    found: list[Any] = [file.encl for file in stage.files]
    return sum(len(encl.backing.contents) + len(encl.backing.pcmds) for encl in found)


def _contents(stage: Stage) -> list[bytes]:
    memory, epc = stage.processor.memory, stage.processor.epc
    return [
        bytes(memory.read_page(epc.pfn(n)))
        for n, word in enumerate(stage.processor.epcm.state)
        if word
    ]
