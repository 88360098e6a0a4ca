"""The processor: leaves, accesses, building an enclave, snapshots, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from bench.measure import Figure, per_call
from softsgx.cpu import Bare, Processor
from softsgx.cpu.bare import ENCLAVE_BASE
from softsgx.mem.pagetable import direct
from softsgx.mem.tlb import READ, WRITE
from softsgx.spec import leaves
from softsgx.spec.attributes import ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import PR, REG, RWX, VALID, R, W, X
from softsgx.spec.faults import PF, PFEC_U
from softsgx.spec.paging import PAGEINFO, SECINFO
from softsgx.spec.secs import SECS

MIB = 1 << 20


def figures() -> list[Figure]:
    """All figures of this module."""
    return [
        per_call(
            "fresh machine, 16 EPC pages, 2 processors",
            lambda: Processor(16),
            number=2000,
            target=20,
        ),
        *_leaves(),
        *_accesses(),
        _build(),
        *_snapshots(),
        _large(),
    ]


def _leaves() -> list[Figure]:
    bare = Bare(32)
    enclave = bare.enclave()
    address = enclave.data[0]
    page = enclave.pages[address]
    epcm = bare.processor.epcm
    lp, kernel = bare.processor.lps
    enclave.enter()
    info = enclave.secinfo(REG | PR | R | W)
    full = enclave.scratch + 64
    lp.store(full, SECINFO(FLAGS=REG | RWX).pack())
    rbx, rcx, secs = bare.secinfo(R | W), bare.address(page), bare.address(enclave.secs)
    accepted = VALID | REG | R | W

    def emodpr() -> None:
        kernel.encls(leaves.EMODPR, rbx, rcx)

    def etrack() -> None:
        kernel.encls(leaves.ETRACK, 0, secs)

    def eaccept() -> None:
        # PR set and no stamp: the page is tracked, EACCEPT succeeds each time.
        epcm.state[page] = accepted | PR
        lp.enclu(leaves.EACCEPT, info, address)

    def emodpe() -> None:
        lp.enclu(leaves.EMODPE, full, address)

    lp.interrupt()
    enclave_out = [
        per_call("EMODPR", emodpr, number=20000, target=4),
        per_call("ETRACK", etrack, number=20000, target=4),
    ]
    enclave.resume()
    epcm.stamp[page] = 0
    inside = [
        per_call("EACCEPT", eaccept, number=20000, target=4),
        per_call("EMODPE", emodpe, number=20000, target=4),
    ]
    lp.interrupt()

    def round_trip() -> None:
        enclave.enter()
        enclave.exit()

    def aex_and_back() -> None:
        lp.deliver(PF, PFEC_U, address)
        lp.enclu(leaves.ERESUME, enclave.tcs[0], 0x1000)

    enclave.resume()
    aex = per_call("AEX + ERESUME", aex_and_back, number=5000)
    lp.interrupt()
    enclave2 = bare.enclave(base=ENCLAVE_BASE + (1 << 30), size=1 << 16)

    def entry() -> None:
        lp.enclu(leaves.EENTER, enclave2.tcs[0], 0x1000)
        lp.enclu(leaves.EEXIT, 0x2000)

    return [*enclave_out, *inside, per_call("EENTER + EEXIT", entry, number=5000), aex]


def _accesses() -> list[Figure]:
    bare = Bare(32)
    enclave = bare.enclave()
    lp = bare.lp
    enclave.enter()
    address = enclave.data[0]
    lp.store(address, b"x")
    entries = lp.tlb.entries
    number = address >> PAGE_SHIFT

    def fill() -> None:
        entries.pop(number, None)
        lp.translate(address, READ)

    return [
        per_call("TLB hit", lambda: lp.translate(address, WRITE), number=100000, target=0.5),
        per_call("TLB fill", fill, number=50000, target=3),
        per_call("load of 8 bytes, TLB hit", lambda: lp.load(address, 8), number=50000),
    ]


def build(size: int = 64 * MIB) -> None:
    """ECREATE, EADD and EEXTEND of every page, EINIT: what a loader makes the kernel do."""
    pages = size // PAGE_SIZE
    bare = Bare(pages + 16)
    processor = bare.processor
    fields = {"SIZE_": 2 * size, "BASEADDR": 2 * size, "SSAFRAMESIZE": 1, "XFRM": 3}
    secs = bare.ecreate(SECS(ATTRIBUTES=ATTR_MODE64BIT, **fields))
    secs_address = bare.address(secs)
    encls, eadd, eextend = bare.lp.encls, leaves.EADD, leaves.EEXTEND
    memory = processor.memory
    info = memory.alloc() << PAGE_SHIFT
    source = memory.alloc() << PAGE_SHIFT
    memory.write(info + 64, SECINFO(FLAGS=REG | RWX).pack())
    memory.write(source, bytes(range(256)) * 16)
    pack = PAGEINFO.S.pack
    first = direct(processor.epc.physical(0))
    for page in range(1, pages + 1):
        linaddr = 2 * size + (page - 1) * PAGE_SIZE
        memory.write(info, pack(linaddr, direct(source), direct(info + 64), secs_address))
        rcx = first + page * PAGE_SIZE
        encls(eadd, direct(info), rcx)
        for chunk in range(rcx, rcx + PAGE_SIZE, 256):
            encls(eextend, secs_address, chunk)
    status = bare.einit(secs, bare.sigstruct(secs))
    assert status == 0


def _build() -> Figure:
    what = "build and measure 64 MiB (16,384 EADD, 262,144 EEXTEND)"
    return per_call(what, build, number=1, rounds=3, unit="s", target=2)


def _snapshots() -> list[Figure]:
    bare = Bare(16)
    enclave = bare.enclave(pages=4)
    processor = bare.processor
    lp = bare.lp
    enclave.enter()
    lp.store(enclave.data[0], b"x")
    image = processor.snapshot()
    rbx, rcx = bare.secinfo(R | X), bare.address(enclave.pages[enclave.data[1]])

    def cycle() -> None:
        processor.snapshot()
        processor.restore(image)

    def hash_after_leaf() -> int:
        processor.lps[1].encls(leaves.EMODPR, rbx, rcx)
        return processor.fingerprint()

    leaf = per_call("", lambda: processor.lps[1].encls(leaves.EMODPR, rbx, rcx), number=5000)
    both = per_call("", hash_after_leaf, number=5000)
    alone = "the leaf's own time taken off"
    hashing = Figure(
        "hash of the state after a leaf, 16 pages",
        both.median - leaf.median,
        both.best - leaf.best,
        "us",
        5,
        alone,
    )
    return [
        per_call("snapshot and restore, 16 pages, built enclave", cycle, number=5000, target=15),
        per_call("restore alone", lambda: processor.restore(image), number=5000),
        hashing,
        per_call("hash of an unchanged state", processor.fingerprint, number=5000, target=5),
    ]


_LARGE = """
import resource, time
from softsgx.cpu import Processor
def rss():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
before = rss()
start = time.perf_counter()
machine = Processor(1 << 27)
print(time.perf_counter() - start, rss() - before)
"""


def _large() -> Figure:
    runs = []
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", _LARGE], capture_output=True, text=True, check=True
        ).stdout.split()
        runs.append((float(out[0]), int(out[1])))
    seconds = sorted(s for s, _ in runs)
    grown = max(b for _, b in runs) / MIB
    remark = f"{grown:.2g} MiB resident (target 64); 20 bytes of EPCM a page (target 32)"
    return Figure("machine with 512 GiB of EPC", seconds[1], seconds[0], "s", 1, remark)


def main(show: Callable[[str], None]) -> None:
    """Print the section."""
    from bench.measure import loop_cost, table

    show(table("Processor", [loop_cost(), *figures()]))
