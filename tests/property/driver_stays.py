"""Moves of enclave threads: enter, do a few random operations, leave; resume after exceptions.

What a stay does is a list of (operation, number, value). An exception that the kernel does not
repair suspends the program; a later move continues after the faulting instruction, as if a handler
had moved RIP, or executes that instruction again, or enters a handler first.
"""

from __future__ import annotations

from typing import Any

from softsgx.linux.uapi import (
    SgxEnclaveModifyTypes,
    SgxEnclaveRemovePages,
    SgxEnclaveRestrictPermissions,
    SgxEnclaveRun,
)
from softsgx.sim import Steps
from softsgx.spec import faults, leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    PT_TCS,
    PT_TRIM,
    REG,
    RWX,
    TCS,
    TRIM,
    R,
    W,
    X,
)
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system import EnclaveThread, HostThread
from softsgx.system.host import EnclaveEntry
from tests.property.driver_ioctls import IoctlMoves
from tests.property.driver_world import PRIVATE_PAGES, Enclave, Slot, Suspended
from tests.property.world import pick

Operation = tuple[int, int, int]
OPERATIONS = (
    *("store", "store", "store", "load", "load", "fetch", "accept", "accept", "accept", "emodpe"),
    *("accept_new", "accept_new", "copy", "report", "pause", "pause", "raise_", "ocall", "tcs"),
    *("claim", "claim"),
)
ACCEPTED = (
    *(REG | PENDING | R | W, REG | PR | R, REG | PR | R | W, TRIM | MODIFIED, TCS | MODIFIED),
    *(REG | PR, REG | PR | R | X, REG | R | W, REG | PR | RWX),
)


_STATE = PENDING | MODIFIED
# Operation -> a mask of the EPCM word and the wanted values; whether an unrecorded page will do.
WANTED = {
    "store": (_STATE | W, (W,), False),
    "load": (_STATE | R, (R,), False),
    "fetch": (_STATE | X, (X,), False),
    "emodpe": (_STATE | PT_MASK, (REG,), False),
    "accept_new": (PENDING, (PENDING,), True),
    "copy": (PENDING, (PENDING,), True),
    "claim": (_STATE | PR, (PENDING, MODIFIED, PR), False),
    "tcs": (_STATE | W, (W, MODIFIED), False),
}


class Stays(IoctlMoves):
    """Moves that run enclave code.

    One host thread at a time uses a TCS: a Python program belongs to the thread that runs it, so it
    could not follow its context if another thread resumed it between an AEX and the ERESUME.
    """

    def __init__(self) -> None:
        super().__init__()
        self.busy_tcs: set[int] = set()

    def enter(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """EENTER on some TCS; or resume a thread that was stopped."""
        host = self.host(slot)
        enclave = self.enterable(host, number)
        if enclave is None or not enclave.tcs:
            return
        stopped = [tcs for tcs in enclave.tcs if self.suspended.get(tcs)]
        tcs = pick(stopped if stopped and value & 8 else enclave.tcs, value)
        if spoil == 1:
            tcs = enclave.data
        if tcs in self.busy_tcs:
            return
        self.busy_tcs.add(tcs)
        try:
            yield from self.stay(host, enclave, tcs, number, value)
        finally:
            self.busy_tcs.discard(tcs)

    def stay(
        self, host: HostThread, enclave: Enclave, tcs: int, number: int, value: int
    ) -> Steps[None]:
        stopped = self.suspended.get(tcs, [])
        length = 1 + number % 8
        todo = [
            (value * 7 + k * k * 5 + number, number * 3 + k * 11, value + k) for k in range(length)
        ]
        run = SgxEnclaveRun(tcs=tcs)
        entry = self.entry(enclave, tcs)
        if stopped and value % 4:
            yield from self.resume(host, entry, stopped, value, todo)
        else:
            yield from host.enter(entry, run, args=(enclave, todo))
            yield from self.served(host, entry, run)
            self.left(enclave, run)

    def cycle(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """The whole change of a page by a runtime: the ioctl, EACCEPT, and what comes after.

        Trim and remove; a new thread, entered once; restrict and extend again.
        """
        host = self.host(slot)
        enclave = self.enterable(host, number)
        if enclave is None or not enclave.tcs or not self.fds(host, enclave.file):
            return
        tcs, kind = pick(enclave.tcs, value), number % 4
        address = self.place(enclave, "store", number | 1)
        if tcs in self.busy_tcs or self.suspended.get(tcs):
            return
        self.busy_tcs.add(tcs)
        try:
            if kind == 0:
                yield from self.stay_for(host, enclave, tcs, [("store_tcs", address)])
                yield from self.one_page(
                    host, enclave, address, SgxEnclaveModifyTypes(page_type=PT_TCS)
                )
            elif kind == 1:
                rights = SgxEnclaveRestrictPermissions(permissions=R | value & X)
                yield from self.one_page(host, enclave, address, rights)
            else:
                yield from self.one_page(
                    host, enclave, address, SgxEnclaveModifyTypes(page_type=PT_TRIM)
                )
            yield from self.stay_for(host, enclave, tcs, [("claim", address)])
            if kind > 1:
                yield from self.one_page(host, enclave, address, SgxEnclaveRemovePages())
            elif kind == 1:
                yield from self.stay_for(host, enclave, tcs, [("emodpe", address)])
        finally:
            self.busy_tcs.discard(tcs)

    def stay_for(
        self, host: HostThread, enclave: Enclave, tcs: int, todo: list[tuple[str, int]]
    ) -> Steps[None]:
        """A stay with exactly these operations."""
        run = SgxEnclaveRun(tcs=tcs)
        yield from host.enter(self.entry(enclave, tcs), run, args=(enclave, todo))
        self.left(enclave, run)

    def enterable(self, host: HostThread, number: int) -> Enclave | None:
        """An enclave whose every area is registered for this address space."""
        mm = host.thread.mm
        mapped = [
            x
            for x in self.enclaves
            if any(vma.encl is x.encl for vma in mm.vmas) and mm not in self.orphans
        ]
        return pick(mapped, number) if mapped else None

    def entry(self, enclave: Enclave, tcs: int) -> EnclaveEntry:
        return enclave.entries.setdefault(tcs, EnclaveEntry(self.program, enclave.secinfo_slot))

    def served(self, host: HostThread, entry: EnclaveEntry, run: SgxEnclaveRun) -> Steps[None]:
        """Serve the enclave's calls to the host until the stay ends."""
        while run.function == leaves.EEXIT and (yield from entry.serve(host, run.tcs)):
            yield from host.enter(entry, run, args=None)

    def resume(
        self,
        host: HostThread,
        entry: EnclaveEntry,
        stopped: list[Suspended],
        value: int,
        todo: list[Operation],
    ) -> Steps[None]:
        """ERESUME: either continue after the exception with `todo`, or repeat the instruction."""
        last = stopped.pop()
        stack = entry.stacks.get(last.run.tcs, [])
        if value % 4 > 1 and stack:
            thread, body = stack.pop()
            body.close()
            thread.args = (last.enclave, todo)
            stack.append((thread, thread.run(self.program)))
        run = last.run
        try:
            yield from host.enter(entry, run, leaves.ERESUME, args=(last.enclave, todo))
        finally:
            if run.function == leaves.ERESUME:
                stopped.append(last)
        self.count("ERESUME by the host")
        yield from self.served(host, entry, run)
        if run.function == leaves.EENTER:
            self.left(last.enclave, run)

    def left(self, enclave: Enclave, run: SgxEnclaveRun) -> None:
        """Note how the stay ended."""
        if run.function == leaves.EEXIT:
            self.count("a stay ended")
        elif run.function == leaves.ERESUME:
            self.suspended.setdefault(run.tcs, []).append(Suspended(enclave, run))
            self.count(f"exception {run.exception_vector} code {run.exception_error_code:#x}")

    # Inside

    def program(self, t: EnclaveThread) -> Steps[Any]:
        """What the enclave does in one stay."""
        if t.args is None:
            return
        enclave, todo = t.args
        for operation, number, *rest in todo:
            name, address, value = operation, number, number
            if rest:
                name, value = pick(OPERATIONS, operation), rest[0]
                address = self.place(enclave, name, number)
            result = yield from getattr(self, f"do_{name}")(t, enclave, address, value)
            self.count(f"inside: {name}" + (f" {result}" if result is not None else ""))

    def place(self, enclave: Enclave, name: str, number: int) -> int:
        """Mostly the address of a page on which the operation can succeed; any may occur."""
        wanted = WANTED.get(name)
        if wanted is None or number % 8 == 0:
            return self.address(enclave, number, 0)
        mask, value, new = wanted
        words, found = self.processor.epcm.state, []
        for address in range(enclave.data, enclave.end, PAGE_SIZE):
            entry = enclave.encl.page(address)
            held = None if entry is None else entry.epc_page
            if entry is None:
                found += [address] * new
            elif held is None or words[held.number] & mask in value:
                found.append(address)
        return pick(found, number >> 3) if found else self.address(enclave, number, 0)

    def do_store(self, t: EnclaveThread, x: Enclave, address: int, value: int) -> Steps[None]:
        at = address + 8 * (value % 500) + value % 9
        data = bytes(((value + k) * 37 + 1) % 256 for k in range(1 + value % 20))
        yield from t.store(at, data)
        self.page_written(x, at, data)

    def do_load(self, t: EnclaveThread, x: Enclave, address: int, value: int) -> Steps[None]:
        offset = value % (PAGE_SIZE - 16)
        data = yield from t.load(address + offset, 16)
        entry = x.encl.page(address)
        assert entry is not None, f"a load at {address:#x}, where the kernel has no page"
        if address - x.base not in PRIVATE_PAGES:
            expected = self.expected(x, entry)[offset : offset + 16]
            assert data == expected, f"{address:#x}: a byte was lost"

    def do_fetch(self, t: EnclaveThread, _x: Enclave, address: int, _value: int) -> Steps[None]:
        yield from t.fetch(address)

    def do_accept(self, t: EnclaveThread, _x: Enclave, address: int, value: int) -> Steps[Any]:
        return (yield from t.eaccept(address, pick(ACCEPTED, value)))

    def do_claim(self, t: EnclaveThread, x: Enclave, address: int, _v: int) -> Steps[Any]:
        """EACCEPT with the right SECINFO, taken from the EPCM."""
        entry = x.encl.page(address)
        if entry is None or entry.epc_page is None:
            return None
        word = self.processor.epcm.state[entry.epc_page.number]
        status = yield from t.eaccept(address, word & (RWX | PENDING | MODIFIED | PR | PT_MASK))
        if not status and word & PT_MASK == TCS and address not in x.tcs:
            x.tcs.append(address)
        return status

    def do_accept_new(self, t: EnclaveThread, _x: Enclave, address: int, _v: int) -> Steps[Any]:
        return (yield from t.accept_new(address))

    def do_emodpe(self, t: EnclaveThread, _x: Enclave, address: int, value: int) -> Steps[None]:
        yield from t.emodpe(address, R | value % 8)

    def do_copy(self, t: EnclaveThread, x: Enclave, address: int, value: int) -> Steps[Any]:
        """EACCEPTCOPY, from the first data page."""
        source = x.data
        status = yield from t.eacceptcopy(address, source, R | value % 8)
        if not status:
            entry, origin = x.encl.page(address), x.encl.page(source)
            assert entry is not None
            assert origin is not None
            self.expected(x, entry)[:] = self.expected(x, origin)
        return status

    def do_report(self, t: EnclaveThread, x: Enclave, _address: int, _v: int) -> Steps[Any]:
        """EREPORT with operands in the scratch page."""
        at = x.scratch + 2048
        return (yield from t.enclu(leaves.EREPORT, at, at + 512, at + 1024))

    def do_pause(self, _t: EnclaveThread, _x: Enclave, _address: int, value: int) -> Steps[None]:
        for _ in range(1 + value % 3):
            yield ("pause", "enclave", False)

    def do_raise_(self, t: EnclaveThread, _x: Enclave, _address: int, value: int) -> Steps[None]:
        if value % 3 == 0:
            yield from t.exception(pick((faults.UD, faults.DE), value))

    def do_ocall(self, t: EnclaveThread, _x: Enclave, _address: int, value: int) -> Steps[None]:
        def nothing(_host: HostThread) -> Steps[None]:
            for _ in range(value % 3):
                yield ("pause", "host", False)

        yield from t.ocall(nothing)

    def do_tcs(self, t: EnclaveThread, x: Enclave, address: int, value: int) -> Steps[Any]:
        """Fill a page so that it can become a TCS; or accept one and use it."""
        if address < x.data + 2 * PAGE_SIZE:
            return None
        if value % 2:
            yield from self.do_store_tcs(t, x, address, value)
            return None
        status = yield from t.accept_tcs(address)
        if not status and address not in x.tcs:
            x.tcs.append(address)
        return status

    def do_store_tcs(self, t: EnclaveThread, x: Enclave, address: int, _v: int) -> Steps[None]:
        """A TCS that shares the SSA frames of the first thread."""
        tcs = TCS_PAGE(OSSA=PAGE_SIZE, NSSA=2, OENTRY=0).pack()
        yield from t.store(address, tcs)
        self.page_written(x, address, tcs)
