"""One processor under random software: every instruction runs between two copies of the state.

After each of them all invariants of invariants.py and transitions.py are checked. A fault inside an
enclave is delivered, as hardware would; no other exception of Python may leave the processor.
"""

from dataclasses import dataclass, replace

from hypothesis.stateful import RuleBasedStateMachine

from softsgx.cpu import Fault, LogicalProcessor, Status
from softsgx.cpu.bare import Backing, BareEnclave
from softsgx.sim import Steps
from softsgx.spec.epcm import PT_MASK, TCS, VA, VALID, child_type
from softsgx.spec.msr import RFLAGS_STATUS
from softsgx.spec.paging import VA_SLOTS
from softsgx.spec.registers import RAX, RBX, RCX, RDX, RFLAGS
from softsgx.spec.status import SGX_VA_SLOT_OCCUPIED
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.property import invariants, transitions
from tests.property.steps import Step, capture
from tests.property.transitions import Evicted
from tests.property.world import LEAVES, pick, world

AEP = 0x40_1000

# Successes per leaf and access, and of the situations named in test_machine_states.py.
COUNTS: dict[str, int] = {}


@dataclass
class Record:
    """An evicted page: what it was, its owner (EID; 0 for SECS and VA), and where it is."""

    was: Evicted
    eid: int
    version: bytes
    backing: Backing
    secs_of: BareEnclave | None = None


class Machine(RuleBasedStateMachine):
    """The processor, and what its software knows."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world()
        self.world.reset()
        self.bare, self.processor = self.world.bare, self.world.processor
        self.epcm, self.lps = self.processor.epcm, self.processor.lps
        self.enclaves = [own_copy(self.world.a), own_copy(self.world.b)]
        self.evicted: list[Record] = []
        # (EID, address) that software has used for two pages at once.
        self.doubled: set[tuple[int, int]] = set()
        self.seen: dict[str, int] = {}
        self.verify(None)

    # Instructions

    def leaf(self, n: int, name: str, rbx: int = 0, rcx: int = 0, rdx: int = 0) -> bool:
        """Execute a leaf in one go; return whether it succeeded."""
        lp = self.load_operands(n, name, rbx, rcx, rdx)
        instruction, number = LEAVES[name]
        run = lp.enclu if instruction == "enclu" else lp.encls
        before = capture(self.processor)
        status: Status | None = None
        fault = None
        try:
            status = run(number, rbx, rcx, rdx)
        except Fault as raised:
            fault = raised
        return self.ended(
            Step(name, n, rcx, fault is not None, before, capture(self.processor)), status, fault
        )

    def begin(self, n: int, name: str, rbx: int, rcx: int) -> Steps[Status | None] | None:
        """Execute a leaf until it holds its locks; None if it faults before that."""
        lp = self.load_operands(n, name, rbx, rcx, 0)
        instruction, number = LEAVES[name]
        steps = (lp.enclu_steps if instruction == "enclu" else lp.encls_steps)(number, rbx, rcx)
        before = capture(self.processor)
        try:
            next(steps)
        except Fault as fault:
            self.ended(Step(name, n, rcx, True, before, capture(self.processor)), None, fault)
            return None
        return steps

    def finish(self, n: int, name: str, rcx: int, steps: Steps[Status | None]) -> bool:
        """The rest of a leaf that `begin` left in flight."""
        before = capture(self.processor)
        status: Status | None = None
        fault = None
        try:
            next(steps)
            raise AssertionError(f"{name} yielded twice")
        except StopIteration as stop:
            status = stop.value
        except Fault as raised:
            fault = raised
        assert not self.processor.claims, "a leaf ended and still holds a lock"
        return self.ended(
            Step(name, n, rcx, fault is not None, before, capture(self.processor)), status, fault
        )

    def load_operands(self, n: int, name: str, *operands: int) -> LogicalProcessor:
        """Load the registers as the program would, before the state is copied."""
        lp = self.lps[n]
        lp.regs[RFLAGS] |= RFLAGS_STATUS
        lp.regs[RAX] = LEAVES[name][1]
        lp.regs[RBX], lp.regs[RCX], lp.regs[RDX] = operands
        return lp

    def ended(self, step: Step, status: Status | None, fault: Fault | None) -> bool:
        """Check the step; deliver its fault; count it."""
        self.verify(step)
        if fault is not None:
            self.deliver(step.lp, fault.vector, fault.code, fault.address)
            return False
        succeeded = status is None or int(status) in (0, SGX_VA_SLOT_OCCUPIED)
        if succeeded:
            self.count(step.name)
        return succeeded

    def deliver(self, n: int, vector: int, code: int = 0, address: int = 0) -> None:
        """An exception or interrupt: an AEX if inside."""
        lp = self.lps[n]
        inside = lp.secs is not None
        before = capture(self.processor)
        lp.deliver(vector, code, address)
        if inside:
            self.verify(Step("AEX", n, 0, False, before, capture(self.processor)))
            self.count("AEX")

    def access(self, n: int, address: int, kind: str, data: bytes = b"") -> bytes | None:
        """A load of 8 bytes, a store of `data`, or a fetch; None if it faults."""
        lp = self.lps[n]
        before = capture(self.processor)
        fault, found = None, b""
        try:
            if kind == "load":
                found = lp.load(address, 8)
            elif kind == "store":
                lp.store(address, data)
            else:
                found = lp.fetch(address)
        except Fault as raised:
            fault = raised
        self.verify(Step(kind, n, address, fault is not None, before, capture(self.processor)))
        if fault is not None:
            self.deliver(n, fault.vector, fault.code, fault.address)
            return None
        self.count(kind)
        return found

    def verify(self, step: Step | None) -> None:
        """All invariants, now and across the step."""
        found = [
            f"{name}: {finding}"
            for name, check in invariants.CHECKS.items()
            for finding in (
                invariants.accepted_pages_are_unique(self.processor, self.doubled)
                if name == "I8"
                else check(self.processor)
            )
        ]
        if step is not None:
            across = transitions.CHECKS.items()
            found += [f"{name}: {text}" for name, check in across for text in check(step)]
        assert not found, f"after {step.name if step else 'reset'}: " + "; ".join(found)

    def count(self, what: str) -> None:
        COUNTS[what] = COUNTS.get(what, 0) + 1
        self.seen[what] = self.seen.get(what, 0) + 1

    # What the software knows

    def word(self, page: int) -> int:
        return int(self.epcm.state[page])

    def free(self) -> list[int]:
        """EPC pages that are not VALID."""
        return [page for page in range(self.epcm.pages) if not self.word(page) & VALID]

    def pages_of(self, enclave: BareEnclave) -> list[int]:
        """EPC pages of an enclave, without its SECS."""
        words = enumerate(self.epcm.state)
        return [
            page
            for page, word in words
            if word & VALID and child_type(word) and self.epcm.secs[page] == enclave.secs
        ]

    def alive(self) -> list[BareEnclave]:
        """Enclaves whose SECS is in the EPC."""
        return [enclave for enclave in self.enclaves if enclave.secs in self.processor.secs]

    def ready(self) -> list[BareEnclave]:
        """Enclaves that are initialised."""
        return [e for e in self.alive() if self.processor.secs[e.secs].initialised]

    def owner(self, page: int) -> BareEnclave | None:
        """The enclave of a child page."""
        owners = [e for e in self.alive() if page in self.pages_of(e)]
        return owners[0] if owners else None

    def is_data(self, page: int, *, dispensable: bool = False) -> bool:
        """A page without which the enclave still runs: not TCS, SSA or SECINFOs of the build."""
        enclave = self.owner(page)
        if enclave is None:
            return False
        first: int = enclave.heap if dispensable else enclave.data[0]
        return bool(self.epcm.address[page] >= first)

    def va_pages(self) -> list[int]:
        return [
            page
            for page in range(self.epcm.pages)
            if self.word(page) & (VALID | PT_MASK) == VALID | VA
        ]

    def slots(self, va: int) -> list[bytes]:
        """The 512 versions of a VA page."""
        raw = invariants.contents(self.processor, va)
        return [raw[8 * slot : 8 * slot + 8] for slot in range(VA_SLOTS)]

    def map(self, address: int, page: int) -> None:
        """Map an EPC page with all rights."""
        self.processor.space.map(address, self.processor.epc.pfn(page), write=True, execute=True)

    def note_double(self, enclave: BareEnclave, address: int) -> None:
        """Before EADD, EAUG: remember that the address is used already, in the EPC or evicted."""
        eid = self.processor.secs[enclave.secs].EID
        there = [page for page in self.pages_of(enclave) if self.epcm.address[page] == address]
        if there or any((r.eid, r.was.address) == (eid, address) for r in self.evicted):
            self.doubled.add((eid, address))

    # Where the logical processors are

    def kernel_on(self, n: int, spoil: int = 0) -> int:
        """A logical processor outside; mostly n, which is interrupted if it is inside."""
        outside = [lp.id for lp in self.lps if lp.secs is None]
        if spoil == 1 or n in outside:
            return n
        if not outside:
            self.deliver(n, 0xFB)
            return n
        return pick(outside, n)

    def enclave_on(self, n: int, spoil: int = 0, enclave: BareEnclave | None = None) -> int:
        """A logical processor inside (this enclave, or any); one enters if it can."""
        inside = [
            lp.id
            for lp in self.lps
            if lp.secs is not None and enclave in (None, self.enclave_of(lp.id))
        ]
        if spoil == 1 or n in inside:
            return n
        if inside:
            return pick(inside, n)
        if enclave is None and self.ready():
            enclave = pick(self.ready(), n)
        n = self.kernel_on(n)
        if enclave is not None:
            self.enter_anywhere(n, enclave, n)
        return n

    def enclave_of(self, n: int) -> BareEnclave | None:
        """The enclave in which a logical processor is."""
        page = self.lps[n].secs_page
        return next((e for e in self.enclaves if e.secs == page and page >= 0), None)

    def idle_tcs(self, enclave: BareEnclave) -> list[tuple[int, int]]:
        """(EPC page, CSSA) of the TCSs that can be entered or resumed."""
        pages = [p for p in self.pages_of(enclave) if self.word(p) == VALID | TCS]
        blocks = {
            page: TCS_PAGE.unpack(invariants.contents(self.processor, page)) for page in pages
        }
        return [(page, tcs.CSSA) for page, tcs in blocks.items() if not tcs.STATE]

    def enter_anywhere(self, n: int, enclave: BareEnclave, number: int) -> None:
        """Resume an interrupted thread, or begin a new one, preferably on a new TCS."""
        idle = self.idle_tcs(enclave)
        idle += [tcs for tcs in idle if self.epcm.address[tcs[0]] not in enclave.tcs] * 2
        if idle:
            page, cssa = pick(idle, number)
            address = self.epcm.address[page]
            self.map(address, page)
            handler = cssa == 1 and number & 8
            done = self.leaf(n, "ERESUME" if cssa and not handler else "EENTER", address, AEP)
            if done and address not in enclave.tcs:
                self.count("entered a new TCS")


def own_copy(enclave: BareEnclave) -> BareEnclave:
    """A copy of the description of an enclave, which one example may change."""
    return replace(enclave, tcs=[*enclave.tcs], data=[*enclave.data], pages={**enclave.pages})
