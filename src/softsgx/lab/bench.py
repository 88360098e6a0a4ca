"""The bench: a machine with one design, one runtime and one workload, measured.

The result is a function of the combination and its seed. If a combination cannot work, the result
is the reason that its run met, not an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, cast

from softsgx.lab.designs import design_named
from softsgx.lab.enclaves import with_hole
from softsgx.lab.measured import (
    CannotWork,
    MeasuredHost,
    MeasuredThread,
    Seat,
    resume_at_once,
    run_timed,
)
from softsgx.lab.measurement import COUNTED, QUANTILES, Measurement, quantile
from softsgx.lab.prices import Profile
from softsgx.lab.runtimes import LabUntrusted, abort_text, order
from softsgx.linux.version import NO_RACES
from softsgx.sim import Rng, Steps, Unmodelled, VirtualTime
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, rwx_text
from softsgx.spec.faults import PFEC_I, PFEC_SGX, PFEC_W
from softsgx.system.enclave import EnclaveAbort
from softsgx.system.host import SignalRaised
from softsgx.system.loaded_enclave import EnclaveFault
from softsgx.system.loader import load
from softsgx.system.machine import Machine
from softsgx.system.runtimes import ORDERS, TrustedManager

if TYPE_CHECKING:
    from softsgx.cpu import Status
    from softsgx.linux.sgx.encl import SgxEncl

# Fresh pages for all innocents together.
ARENA_PAGES: Final = 640
# Above the reclaimer's high watermark, with room for VA pages and the SECS.
_EPC_SLACK: Final = 192
# Design and runtime of the run without changes, with which the others are compared.
NO_CHANGE: Final = "-"


class Program(Protocol):
    """The program to be measured: a workload (`lab.workloads.base`).

    pages  number of pages whose rights it changes
    """

    name: ClassVar[str]
    pages: int

    def changers(self, n: int) -> int:
        """How many of n threads change permissions; these are the first ones."""

    def changer(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """The program of each of these threads."""

    def innocent(self, t: MeasuredThread, bench: Bench, rng: Rng) -> Steps[None]:
        """The program of each of the other threads, until `bench.done`."""


class Combination(NamedTuple):
    """What is measured. `design` and `runtime` are NO_CHANGE for the run without changes."""

    design: str
    runtime: str
    workload: str
    n: int


class Bench:
    """The machine, the enclave with its memory manager, and a Seat for each thread."""

    def __init__(
        self, combination: Combination, workload: Program, profile: Profile, seed: int
    ) -> None:
        self.combination = combination
        self.workload = workload
        self.profile = profile
        self.seed = seed
        self.done = False
        self.reason = ""
        n = combination.n
        base = combination.runtime == NO_CHANGE
        self.design = design_named("ioctl" if base else combination.design)
        self.arena_pages = -(-ARENA_PAGES // n)
        hole = workload.pages + n * self.arena_pages
        self.image = with_hole(n, hole)
        pages = 2 * n + hole + (n >> 6) + _EPC_SLACK
        self.machine = Machine(
            cpus=n,
            epc=pages * PAGE_SIZE,
            linux=self.design.linux,
            races=NO_RACES if self.design.driver is None else None,
            seed=seed,
            driver=self.design.driver,
        )
        self.kernel = self.machine.kernel
        self.kernel.design = self.design
        self.time = VirtualTime(profile.prices(self.machine.processor))
        self._setup(base)

    def _setup(self, base: bool) -> None:
        """Load the enclave and commit the managed pages; this is not measured."""
        machine, n = self.machine, self.combination.n
        process = machine.process("server")
        hosts = [MeasuredHost(self.kernel, process, f"thread {cpu}", cpu) for cpu in range(n)]
        self.enclave = machine.run(load(hosts[0], self.image))
        self.enclave.thread_type = MeasuredThread
        self.seats = [Seat(cpu, hosts[cpu], self.enclave.tcs[cpu]) for cpu in range(n)]
        self.encl = cast("SgxEncl", process.files[self.enclave.fd].encl)  # of either driver
        self.mm = process.mm
        self.untrusted = LabUntrusted(self.enclave, self.design)
        runtime = "intel-emm" if base else self.combination.runtime
        how = ORDERS[runtime] if base else order(runtime, self.design)
        self.manager = TrustedManager(self.untrusted, how)
        heap, length = self.enclave.heap, self.workload.pages * PAGE_SIZE
        arena, per_thread = heap + length, self.arena_pages
        self.arenas = [
            [arena + (cpu * per_thread + page) * PAGE_SIZE for page in range(per_thread)]
            for cpu in range(n)
        ]
        self.manager.reserve(heap, length)
        machine.run(self._prepare(hosts, base))
        self.vmas_before = len(self.mm.vmas)

    def _prepare(self, hosts: list[MeasuredHost], base: bool) -> Steps[None]:
        for host in hosts:
            yield from host.prepare()
        enclave, pages = self.enclave, self.workload.pages
        everything = (pages + len(self.arenas) * self.arena_pages) * PAGE_SIZE
        cap = self.machine.kernel.version.eaug_cap
        if cap != RWX:
            # In an area with a right beyond the cap no page that EAUG adds could be mapped.
            yield from hosts[0].mprotect(enclave.heap, everything, cap)
        elif not base:
            yield from hosts[0].mprotect(enclave.heap, pages * PAGE_SIZE, R | W)

        def commit(t: Any) -> Steps[None]:
            yield from self.manager.commit(t, enclave.heap, pages * PAGE_SIZE)
            if base:
                for page in range(pages):
                    yield from t.emodpe(self.address(page), RWX)

        yield from enclave.call(hosts[0], commit, args=self.seats[0])

    # What workloads use

    def address(self, page: int) -> int:
        """The linear address of a managed page."""
        return self.enclave.heap + page * PAGE_SIZE

    def rights(self, page: int) -> int:
        """The rights of a managed page in the runtime's books."""
        return self.manager.pages[self.address(page)][1]

    def change(self, t: MeasuredThread, first: int, count: int, rights: int) -> Steps[None]:
        """Have the runtime change the rights of managed pages, timed; NO_CHANGE does nothing."""
        if self.combination.runtime == NO_CHANGE:
            return
        seat = t.seat
        seat.changing = True
        start = seat.now()
        yield from self.manager.protect(t, self.address(first), count * PAGE_SIZE, rights)
        seat.changes.append(seat.now() - start)
        seat.pages_changed += count
        seat.changing = False
        for page in range(first, first + count):
            self._verify(page, rights)

    def _verify(self, page: int, rights: int) -> None:
        """CannotWork unless the page has these rights, in the runtime's books and the EPCM."""
        held = self.rights(page)
        if held != rights:
            who = self.combination.runtime
            raise CannotWork(f"{who}, asked for {rwx_text(rights)}, keeps {rwx_text(held)}")
        entry = self.encl.page(self.address(page))
        assert entry is not None
        assert entry.epc_page is not None
        word = self.machine.processor.epcm.state[entry.epc_page.number]
        if word & RWX != rights:
            raise CannotWork(f"asked for {rwx_text(rights)}, the EPCM has {rwx_text(word)}")

    def check_accepted(self, page: int, status: Status | None) -> None:
        """CannotWork unless EACCEPT of a fresh page succeeded."""
        if status is None or status != 0:
            raise CannotWork(f"EACCEPT of the new page {page:#x}: {status!r}")

    # The run

    def run(self) -> Measurement:
        """Run the program in virtual time; the figures, or the reason why it cannot work."""
        by_cpu = {seat.number: seat for seat in self.seats}
        self.kernel.take_interrupt = resume_at_once(self.time, by_cpu)
        rng = Rng(self.seed).stream(self.workload.name)
        changers = self.workload.changers(len(self.seats))
        self._changing = changers
        # Innocents first: at a tie the lower index runs, so a released mutex goes to a thread that
        # spins for it (the kernel's optimistic spinning), not back to its last owner.
        bodies = []
        for seat in reversed(self.seats):
            seat.time = self.time
            own = rng.stream(str(seat.number))
            bodies.append((self._thread(seat, own, seat.number < changers), seat.number))
        run_timed(self.machine, self.time, bodies)
        return self._measurement()

    def _measurement(self) -> Measurement:
        """The figures of the run."""
        changers = self.workload.changers(len(self.seats))
        innocents = self.seats[changers:]
        changes = [cycles for seat in self.seats for cycles in seat.changes]
        # A fault lasts until the thread runs again, including ERESUME, a step with a fixed price.
        back = self.profile.cycles["ERESUME"]
        faults = sorted(cycles + back for seat in innocents for cycles in seat.faults)
        counts = dict(self.time.counts)
        # Every AEX was followed by an ERESUME.
        counts["AEX"] = counts.get("ERESUME", 0)
        return Measurement(
            *self.combination,
            profile=self.profile.name,
            seed=self.seed,
            reason=self.reason,
            changes=len(changes),
            pages=sum(seat.pages_changed for seat in self.seats),
            caller=sum(changes) / len(changes) if changes else 0.0,
            others_window=sum(seat.ended - seat.started for seat in innocents),
            others_useful=sum(seat.useful for seat in innocents),
            faults=len(faults),
            latency=tuple(quantile(faults, q) for q in QUANTILES) if faults else (),
            vmas=len(self.mm.vmas) - self.vmas_before,
            elapsed=self.time.elapsed,
            points=sum(self.time.counts.values()),
            counts={kind: counts[kind] for kind in COUNTED if counts.get(kind)},
        )

    def _thread(self, seat: Seat, rng: Rng, changes: bool) -> Steps[None]:
        program = self.workload.changer if changes else self.workload.innocent

        def inside(t: Any) -> Steps[None]:
            seat.started = seat.now()
            yield from program(t, self, rng)
            seat.ended = seat.now()

        try:
            yield from self.enclave.call(seat.host, inside, thread=seat.number, args=seat)
        except EnclaveAbort as abort:
            self._give_up(abort_text(abort, self.untrusted))
        except EnclaveFault as fault:
            self._give_up(self._fault_text(seat, fault))
        except SignalRaised as raised:
            self._give_up(f"signal {raised.signal.number} in the host")
        except CannotWork as cannot:
            self._give_up(str(cannot))
        except Unmodelled as unmodelled:
            self._give_up(f"not modelled: {unmodelled}")
        if changes:
            self._changing -= 1
            self.done = self.done or not self._changing

    def _give_up(self, reason: str) -> None:
        self.reason = self.reason or re.sub("at (0x[0-9a-f]+)", self._place, reason)
        self.done = True

    def _place(self, found: re.Match[str]) -> str:
        """The number of a managed page in place of its address."""
        page = (int(found[1], 16) - self.enclave.heap) // PAGE_SIZE
        return f"of page {page}" if 0 <= page < self.workload.pages else found[0]

    def _fault_text(self, seat: Seat, fault: EnclaveFault) -> str:
        run = fault.run
        code, address = run.exception_error_code, run.exception_addr
        who = "the EPCM" if code & PFEC_SGX else "the kernel"
        access = "a fetch" if code & PFEC_I else "a store" if code & PFEC_W else "a load"
        doing = leaves.ENCLU_LEAVES[seat.leaf][0] if seat.leaf else access
        area = self.mm.vma_lookup(address)
        rights = rwx_text(area.flags & RWX) if area is not None else "none"
        mapped = "" if code & PFEC_SGX else f", the VMA is {rights}"
        text = f"{doing} at {address:#x} refused by {who}{mapped}, #PF {code:#x}"
        return "; ".join([*self.untrusted.errors[-1:], text])


def measure(
    combination: Combination, workload: Program, profile: Profile, seed: int
) -> Measurement:
    """Build and run one combination."""
    return Bench(combination, workload, profile, seed).run()


def without_changes(combination: Combination) -> Combination:
    """The run with which a combination is compared."""
    return combination._replace(design=NO_CHANGE, runtime=NO_CHANGE)
