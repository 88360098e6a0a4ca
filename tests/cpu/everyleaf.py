"""A machine in which every leaf succeeds, and can be put in flight on any page.

Tests of what all leaves have in common go through all of them: `attempt` gives the operands with
which a leaf goes through, `claimed` the EPC pages of those operands, `holding` puts a leaf in
flight on a page of one's choice. `reset` restores the machine, which costs microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

from softsgx.cpu import Bare, Processor, Status
from softsgx.cpu.bare import AEP, ENCLAVE_BASE, EXIT
from softsgx.mem.pagetable import direct
from softsgx.sim import Steps
from softsgx.sim import run as run_task
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT, MISC_EXINFO, XFRM_LEGACY
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.concurrency import (
    CONCURRENCY,
    CURRENT_TCS,
    OWNER,
    PAGEINFO_SECS,
    PARENT,
    RBX,
    RCX,
    RDX,
)
from softsgx.spec.epcm import PENDING, PT_VA, REG, TRIM, R, W
from softsgx.spec.epcm import SECS as SECS_TYPE
from softsgx.spec.keys import KEYREQUEST, SEAL_KEY
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES
from softsgx.spec.msr import IA32_SGXLEPUBKEYHASH
from softsgx.spec.secs import SECS
from tests.cpu.table import Attempt

ALIAS: Final = 0x5000_0000_0000  # every EPC page has a mapping there, by its number
ENCLS: Final = {name: number for number, (name, _) in ENCLS_LEAVES.items() if name in CONCURRENCY}
ENCLU: Final = {name: number for number, (name, _) in ENCLU_LEAVES.items() if name in CONCURRENCY}
OUTSIDE: Final = ("EENTER", "ERESUME")  # ENCLU leaves that are executed outside
# Leaves that write neither RAX nor RFLAGS, and those whose effect on them is the change of mode.
SILENT: Final = ("ECREATE", "EADD", "EEXTEND", "EPA", "EAUG", "EREPORT", "EMODPE", "EDECCSSA")
MODE_CHANGES: Final = ("EENTER", "ERESUME", "EEXIT")


class Operands(NamedTuple):
    """RBX, RCX, RDX, and the EPC page of each operand that the leaf claims."""

    rbx: int
    rcx: int
    rdx: int
    claimed: dict[str, int]

    def also(self, operand: str, page: int) -> Operands:
        """With one more claim."""
        return self._replace(claimed={**self.claimed, operand: page})


class EveryLeaf:
    """Four processors: 0 and 1 execute what is tested, 2 and 3 hold; 1 and 3 are inside.

    `enclave` is initialised: `data[0]` is an ordinary page, `data[1]` blocked and tracked,
    `data[2]` evicted to `backing` with slot 0 of `va`, `data[3]` holds a KEYREQUEST, the first two
    pages of its heap are PENDING. `building` is not initialised. `free` is a free EPC page.
    """

    def __init__(self) -> None:
        self.processor = Processor(64, lps=4)
        self.bare = bare = Bare(processor=self.processor)
        self.enclave = bare.enclave(pages=8, threads=4, nssa=3)
        self.building = bare.enclave(pages=2, init=False, base=ENCLAVE_BASE + (1 << 20))
        self.plain, self.blocked, evicted, self.keys = (self._page(i) for i in range(4))
        self.pending, self.copied = self.enclave.heap, self.enclave.heap + PAGE_SIZE
        for address in (self.pending, self.copied):
            self.enclave.eaug(address)
        self.va, self.backing = bare.epa(), bare.backing()
        for page in (self.blocked, evicted):
            assert bare.eblock(page) == 0
        assert bare.etrack(self.enclave.secs) == 0
        assert bare.ewb(evicted, self.va, 0, self.backing) == 0
        self.signature, self.token = (direct(self._ram()) for _ in range(2))
        self._sign()
        self._enter()
        self.free = evicted
        for page in range(self.processor.epc.pages):
            self.processor.space.map(self.alias(page), self.processor.epc.pfn(page))
        self._image = self.processor.snapshot()

    def _page(self, index: int) -> int:
        return self.enclave.pages[self.enclave.data[index]]

    def _ram(self) -> int:
        return self.processor.memory.alloc(1) << PAGE_SHIFT

    def _sign(self) -> None:
        sig = self.bare.sigstruct(self.building.secs)
        self.processor.memory.write(self.signature - direct(0), sig.pack())
        signer = sha256(sig.MODULUS).digest()
        for number, msr in enumerate(IA32_SGXLEPUBKEYHASH):
            word = int.from_bytes(signer[8 * number : 8 * number + 8], "little")
            self.bare.lp.wrmsr(msr, word)

    def _enter(self) -> None:
        """Thread 0 runs on processor 1 after an AEX, thread 1 on 3; thread 3 was interrupted."""
        kernel, inside, _, other = self.processor.lps
        self.enclave.enter(kernel, 3)
        kernel.interrupt()
        self.enclave.enter(inside)
        request = KEYREQUEST(KEYNAME=SEAL_KEY).pack()
        inside.store(self.enclave.data[3], request)
        inside.interrupt()
        self.enclave.enter(inside)
        self.enclave.enter(other, 1)

    def reset(self) -> None:
        """Go back to the beginning. No leaf may be in flight."""
        assert not self.processor.claims, "a leaf is in flight: close its body first"
        self.processor.restore(self._image)

    def alias(self, page: int) -> int:
        """A user address of an EPC page."""
        return ALIAS + (page << PAGE_SHIFT)

    # Leaves that succeed

    def attempt(self, leaf: str) -> Attempt:
        """The leaf with operands with which it succeeds."""
        given = OPERANDS[leaf](self)
        if leaf in ENCLS:
            kernel = self.processor.lps[0]
            return Attempt(kernel, "encls", ENCLS[leaf], given.rbx, given.rcx, given.rdx)
        lp = self.processor.lps[0 if leaf in OUTSIDE else 1]
        return Attempt(lp, "enclu", ENCLU[leaf], given.rbx, given.rcx, given.rdx)

    def claimed(self, leaf: str) -> dict[str, int]:
        """The EPC page of each operand that the leaf claims in `attempt`."""
        return OPERANDS[leaf](self).claimed

    def kernel(self, page: int, rbx: int = 0, rdx: int = 0) -> Operands:
        """RBX, RDX, and an EPC page in RCX that is claimed."""
        return Operands(rbx, self.bare.address(page), rdx, {RCX: page})

    def pageinfo(self, page: int, secs: int, linaddr: int, **fields: int) -> Operands:
        """A PAGEINFO with a SECS, and an EPC page in RCX."""
        info = self.bare.pageinfo(linaddr=linaddr, secs=self.bare.address(secs), **fields)
        return self.kernel(page, info).also(PAGEINFO_SECS, secs)

    def ecreate(self) -> Operands:
        """A second enclave."""
        secs = SECS(
            SIZE_=1 << 20,
            BASEADDR=ENCLAVE_BASE,
            SSAFRAMESIZE=1,
            MISCSELECT=MISC_EXINFO,
            ATTRIBUTES=ATTR_MODE64BIT | ATTR_DEBUG,
            XFRM=XFRM_LEGACY,
        )
        source, info = self.bare.source(secs.pack()), self.bare.secinfo(SECS_TYPE)
        return self.kernel(self.free, self.bare.pageinfo(srcpge=source, secinfo=info))

    def eadd(self) -> Operands:
        """A page more for the enclave that is being built."""
        source, info = self.bare.source(b""), self.bare.secinfo(REG | R | W)
        secs, linaddr = self.building.secs, self.building.heap
        return self.pageinfo(self.free, secs, linaddr, srcpge=source, secinfo=info)

    def eextend(self) -> Operands:
        """A chunk of a page of the enclave that is being built."""
        page, secs = self.building.pages[self.building.data[0]], self.building.secs
        return self.kernel(page, self.bare.address(secs)).also(RBX, secs)

    def einit(self) -> Operands:
        """End of building."""
        return self.kernel(self.building.secs, self.signature, self.token)

    def eld(self) -> Operands:
        """What was evicted comes back."""
        kept, secs = self.backing, self.enclave.secs
        given = self.pageinfo(self.free, secs, kept.linaddr, srcpge=kept.page, secinfo=kept.pcmd)
        return given._replace(rdx=self.bare.address(self.va)).also(RDX, self.va)

    def ewb(self) -> Operands:
        """Eviction to slot 1."""
        info = self.bare.pageinfo(srcpge=self.backing.page, secinfo=self.backing.pcmd)
        slot = self.bare.address(self.va) + 8
        return self.kernel(self.blocked, info, slot).also(RDX, self.va)

    def on_plain(self, rbx: int = 0) -> Operands:
        """The ordinary page."""
        return self.kernel(self.plain, rbx)

    def own(self, flags: int, address: int, rdx: int = 0) -> Operands:
        """From inside: a SECINFO, and a page of the enclave in RCX that is claimed."""
        info = self.enclave.secinfo(flags, self.processor.lps[1])
        return Operands(info, address, rdx, {RCX: self.enclave.pages[address]})

    def ereport(self) -> Operands:
        """A report for the enclave that the zeros in a page describe."""
        target, data, out = self.enclave.data[5:8]
        return Operands(target, data, out, {})

    def entry(self, thread: int) -> Operands:
        """A TCS and an AEP."""
        tcs = self.enclave.tcs[thread]
        return Operands(tcs, AEP, 0, {RBX: self.enclave.pages[tcs]})

    # Leaves in flight

    def holding(self, leaf: str, operand: str, page: int) -> tuple[Steps[Status | None], Operands]:
        """`leaf` with `page` as `operand` and nothing mapped at the others; what it claims.

        Only its claims count: most of these would not succeed.
        """
        inside = leaf in ENCLU and leaf not in OUTSIDE
        lp = self.processor.lps[3 if inside else 2]
        given = self._only(operand, page, user=leaf in ENCLU)
        if operand == CURRENT_TCS:
            lp.tcs_page = page  # as if it had entered there
        run, number = (lp.encls_steps, ENCLS) if leaf in ENCLS else (lp.enclu_steps, ENCLU)
        return run(number[leaf], given.rbx, given.rcx, given.rdx), given

    def _only(self, operand: str, page: int, *, user: bool) -> Operands:
        address = self.alias(page) if user else self.bare.address(page)
        claimed = {operand: page}
        if operand == PAGEINFO_SECS:
            return Operands(self.bare.pageinfo(secs=address), 0, 0, claimed)
        if operand == OWNER:
            child = (self.enclave if page == self.enclave.secs else self.building).pages.values()
            return self.kernel(next(iter(child))).also(OWNER, page)
        if operand == RCX and (owner := self.processor.secs_of(page)) is not None:
            claimed[OWNER] = owner.page
        at = {operand: address}
        return Operands(at.get(RBX, 0), at.get(RCX, 0), at.get(RDX, 0), claimed)


def steps_of(attempt: Attempt) -> Steps[Status | None]:
    """An attempt as the body of a task."""
    lp = attempt.lp
    run = lp.encls_steps if attempt.instruction == "encls" else lp.enclu_steps
    return run(attempt.leaf, attempt.rbx, attempt.rcx, attempt.rdx)


def in_task(attempt: Attempt) -> Status | None:
    """Execute an attempt as a task that runs alone."""
    return run_task(steps_of(attempt))


OPERANDS: Final[dict[str, Callable[[EveryLeaf], Operands]]] = {
    "ECREATE": EveryLeaf.ecreate,
    "EADD": EveryLeaf.eadd,
    "EINIT": EveryLeaf.einit,
    "EREMOVE": lambda m: m.kernel(m.building.pages[m.building.data[0]]),
    "EDBGRD": EveryLeaf.on_plain,
    "EDBGWR": EveryLeaf.on_plain,
    "EEXTEND": EveryLeaf.eextend,
    "ELDB": EveryLeaf.eld,
    "ELDU": EveryLeaf.eld,
    "EBLOCK": lambda m: m.on_plain().also(PARENT, m.enclave.secs),
    "EPA": lambda m: m.kernel(m.free, PT_VA),
    "EWB": EveryLeaf.ewb,
    "ETRACK": lambda m: m.kernel(m.enclave.secs),
    "EAUG": lambda m: m.pageinfo(m.free, m.enclave.secs, m.copied + PAGE_SIZE),
    "EMODPR": lambda m: m.on_plain(m.bare.secinfo(R)),
    "EMODT": lambda m: m.on_plain(m.bare.secinfo(TRIM)),
    "ERDINFO": lambda m: m.on_plain(m.bare.rdinfo),
    "ETRACKC": lambda m: m.on_plain().also(OWNER, m.enclave.secs),
    "ELDBC": EveryLeaf.eld,
    "ELDUC": EveryLeaf.eld,
    "EREPORT": EveryLeaf.ereport,
    "EGETKEY": lambda m: Operands(m.enclave.data[3], m.enclave.data[4], 0, {}),
    "EENTER": lambda m: m.entry(2),
    "ERESUME": lambda m: m.entry(3),
    "EEXIT": lambda m: Operands(EXIT, 0, 0, {}),
    "EACCEPT": lambda m: m.own(REG | PENDING | R | W, m.pending),
    "EMODPE": lambda m: m.own(REG | R | W, m.enclave.data[0]),
    "EACCEPTCOPY": lambda m: m.own(REG | R | W, m.copied, m.enclave.data[4]),
    "EDECCSSA": lambda m: Operands(0, 0, 0, {CURRENT_TCS: m.enclave.pages[m.enclave.tcs[0]]}),
}


_built: list[EveryLeaf] = []


def every_leaf() -> EveryLeaf:
    """The machine at its beginning. Built once: nothing else of it is kept from test to test."""
    if not _built:
        _built.append(EveryLeaf())
    _built[0].reset()
    return _built[0]
