"""The processor and the naive reference model side by side: do one thing to both, compare.

Compared after every step: fault vector, address and code (where the manual gives one), status and
flag, what loads return, every EPCM field, the contents of all pages except SSA frames and SECS,
which processor is in which enclave, and whether each page is tracked.
"""

from collections.abc import Callable

from hypothesis.stateful import RuleBasedStateMachine

from softsgx.cpu import Fault, Status
from softsgx.cpu.bare import BareEnclave
from softsgx.cpu.tracking import tracked
from softsgx.mem.pagetable import PTE_D, PTE_NX, PTE_P, PTE_U, PTE_W
from softsgx.spec import epcm
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.cet import SH_STK_EN
from softsgx.spec.msr import RFLAGS_CF, RFLAGS_STATUS, RFLAGS_ZF
from softsgx.spec.registers import RFLAGS
from tests.property import reference as ref
from tests.property import reference_memory as mem
from tests.property.world import EPC_PAGES, LEAVES, LPS, pick, world

Outcome = tuple[object, ...]

AEP = 0x40_1000
FLAG_NAMES = {0: "", RFLAGS_ZF: "zf", RFLAGS_CF: "cf"}

# How often each thing succeeded, over all examples.
SUCCEEDED: dict[str, int] = {}


class Beside(RuleBasedStateMachine):
    """Both machines, in the same state; the rules are in test_reference.py."""

    CET = False

    def __init__(self) -> None:
        super().__init__()
        self.world = world(self.CET)
        self.world.reset()
        self.bare, self.processor = self.world.bare, self.world.processor
        self.enclaves = (self.world.a, self.world.b)
        self.ref = ref.Reference(EPC_PAGES, LPS, cet=self.CET)
        if self.CET:
            for lp in self.processor.lps:
                lp.u_cet = SH_STK_EN  # the hosts use shadow stacks, too
        self.ram = self.processor.memory.alloc()
        self.ssa: set[int] = set()
        self.slots = 0
        self.fault: Fault | None = None
        for enclave in self.enclaves:
            self.adopt(enclave)
        self.adopt_page(self.world.va, mem.VA, 0, None, 0)
        self.ref.ram[self.ram] = bytearray(PAGE_SIZE)
        for page in range(EPC_PAGES):
            self.ref.kernel[self.bare.address(page)] = page
        self.compare()

    # The initial state of both

    def adopt(self, enclave: BareEnclave) -> None:
        self.ref.enclaves[enclave.secs] = mem.Enclave(enclave.base, enclave.size)
        self.adopt_page(enclave.secs, mem.SECS, 0, None, 0)
        for tcs in enclave.tcs:
            self.ssa |= {tcs + PAGE_SIZE, tcs + 2 * PAGE_SIZE}
            if self.CET:
                self.ssa.add(tcs + 3 * PAGE_SIZE)  # the CET state save area
        for address, page in enclave.pages.items():
            pt, rwx = self.bare.word(page) >> epcm.PT_SHIFT, self.bare.word(page) & epcm.RWX
            self.adopt_page(page, pt, rwx, enclave.secs, address)
            shadow = pt in mem.SHADOW_STACKS
            self.ref.pte[address] = mem.Pte(("epc", page), 1 if shadow else 7, shadow)

    def adopt_page(self, page: int, pt: int, rwx: int, secs: int | None, address: int) -> None:
        data = bytearray(self.contents(page))
        self.ref.epc[page] = mem.Page(True, pt, rwx, secs, address, data=data)

    def adopt_frames(self) -> None:
        """Copy SSA frames that become a TCS: only as a TCS are their contents modelled."""
        for number, page in enumerate(self.ref.epc):
            if page.valid and page.address in self.ssa and page.pt == mem.TCS and page.modified:
                page.data[:] = self.contents(number)

    # One action on both

    def both(self, name: str, real: Callable[[], object], model: Callable[[], object]) -> bool:
        """Run both, compare their outcomes and their states; return whether it succeeded."""
        got, expected = self.real_outcome(real), model_outcome(model)
        if expected[0] == "fault" and expected[-1] is None:
            got = (*got[:-1], None)
        assert got == expected, f"{name}: the processor {got}, the reference {expected}"
        self.compare()
        succeeded = got[0] == "done" or got[:2] == ("status", 0)
        if succeeded:
            self.count(name)
        return succeeded

    def count(self, what: str) -> None:
        SUCCEEDED[what] = SUCCEEDED.get(what, 0) + 1

    def leaf(
        self, n: int, name: str, operands: tuple[int, ...], model: Callable[[], object]
    ) -> bool:
        """Execute a leaf on logical processor n, and deliver its fault if inside an enclave."""
        lp = self.processor.lps[n]
        instruction, number = LEAVES[name]
        run = lp.enclu if instruction == "enclu" else lp.encls
        lp.regs[RFLAGS] |= RFLAGS_STATUS
        done = self.both(name, lambda: run(number, *operands), model)
        self.deliver(n)
        return done

    def deliver(self, n: int) -> None:
        """A fault inside ends in an AEX."""
        if self.fault is not None and self.ref.lps[n].enclave is not None:
            fault, lp = self.fault, self.processor.lps[n]
            self.both("AEX", lambda: lp.deliver_fault(fault) and None, lambda: self.ref.aex(n))

    def real_outcome(self, real: Callable[[], object]) -> Outcome:
        self.fault = None
        try:
            result = real()
        except Fault as fault:
            self.fault = fault
            page_fault = fault.vector == mem.PF
            return ("fault", fault.vector, fault.address if page_fault else None, fault.code)
        if isinstance(result, Status):
            return ("status", int(result), FLAG_NAMES[result.flags])
        return ("done", result)

    def contents(self, page: int) -> bytes:
        return self.processor.memory.read_page(self.processor.epc.pfn(page))

    def compare(self) -> None:
        """Compare every page and every logical processor."""
        for number, page in enumerate(self.ref.epc):
            assert self.real_entry(number) == model_entry(page), f"EPC page {number}"
            if page.valid and page.address not in self.ssa and page.pt != mem.SECS:
                assert self.contents(number) == page.data, f"contents of EPC page {number}"
            if page.valid and page.pt in mem.CHILDREN:
                real = tracked(self.processor, self.processor.parent(number), number)
                assert real == self.ref.tracked(page), f"tracking of EPC page {number}"
        for lp, model in zip(self.processor.lps, self.ref.lps, strict=True):
            inside = model.enclave is not None
            assert (lp.secs_page, lp.tcs_page) == (
                (model.enclave, model.tcs) if inside else (-1, -1)
            )

    def real_entry(self, page: int) -> Outcome:
        columns, word = self.processor.epcm, self.bare.word(page)
        if not word & epcm.VALID:
            return (False,)
        child = epcm.child_type(word)
        return (
            *(True, word >> epcm.PT_SHIFT, word & epcm.RWX, bool(word & epcm.BLOCKED)),
            *(bool(word & epcm.PENDING), bool(word & epcm.MODIFIED), bool(word & epcm.PR)),
            *((columns.secs[page], columns.address[page]) if child else (None, 0)),
        )

    def set_pte(self, address: int, target: mem.Target, rights: int, *, dirty: bool) -> None:
        pfn = self.processor.epc.pfn(target[1]) if target[0] == "epc" else target[1]
        pte = pfn << PAGE_SHIFT | PTE_P | PTE_U | (PTE_W if rights & 2 else 0)
        pte |= (0 if rights & 4 else PTE_NX) | (PTE_D if dirty else 0)
        self.processor.space.set(address, pte)
        self.ref.pte[address] = mem.Pte(target, rights, dirty)

    # Where the logical processors are

    def kernel_on(self, n: int, spoil: int) -> int:
        """A logical processor outside; mostly n, which is interrupted if it is inside."""
        outside = [i for i, lp in enumerate(self.ref.lps) if lp.enclave is None]
        if spoil == 1 or n in outside:
            return n
        if not outside:
            self.interrupt(n)
            return n
        return pick(outside, n)

    def enclave_on(self, n: int, spoil: int) -> int:
        """A logical processor that is inside; n enters if no processor is."""
        inside = [i for i, lp in enumerate(self.ref.lps) if lp.enclave is not None]
        if spoil == 1 or n in inside:
            return n
        if inside:
            return pick(inside, n)
        self.enter_anywhere(n, self.world.a)
        return n

    def thread_in(self, n: int, secs: int | None) -> int:
        """A logical processor inside this enclave; if there is none, one enters if it can."""
        inside = [i for i, lp in enumerate(self.ref.lps) if lp.enclave == secs]
        if inside:
            return pick(inside, n)
        n = self.kernel_on(n, 0)
        self.enter_anywhere(n, next(e for e in self.enclaves if e.secs == secs))
        return n

    def interrupt(self, n: int) -> None:
        lp = self.processor.lps[n]
        self.both("AEX", lambda: lp.interrupt() and None, lambda: self.ref.aex(n))

    def enter_anywhere(self, n: int, enclave: BareEnclave, number: int = 0) -> None:
        """Resume an interrupted thread, or begin a new one."""
        tcs = [page for page in self.ref.children(enclave.secs) if page.pt == mem.TCS]
        idle = [page for page in tcs if not page.get(0) and not page.modified and not page.blocked]
        # A TCS that was made at run time is rare, so it goes first.
        idle += 2 * [page for page in idle if page.address not in enclave.tcs]
        if idle:
            page = pick(idle, number)
            self.enter_at(n, page.address, AEP, resume=page.get(24, 4) > 0)

    def enter_at(self, n: int, rbx: int, rcx: int, *, resume: bool) -> None:
        name = "ERESUME" if resume else "EENTER"
        built = [*self.world.a.tcs, *self.world.b.tcs]
        if self.leaf(n, name, (rbx, rcx), lambda: self.ref.enter(n, rbx, rcx, resume)):
            if name == "EENTER" and rbx not in built:
                self.count("EENTER on a new TCS")


def model_outcome(model: Callable[[], object]) -> Outcome:
    """What the reference does, in the form of `Beside.real_outcome`."""
    try:
        result = model()
    except mem.Refused as refused:
        code = refused.code if refused.vector == mem.PF else 0
        return ("fault", refused.vector, refused.address, code)
    if isinstance(result, ref.Status):
        return ("status", result.rax, result.flag)
    return ("done", result)


def model_entry(page: mem.Page) -> Outcome:
    """The EPCM entry of a reference page, in the form of `Beside.real_entry`."""
    if not page.valid:
        return (False,)
    state = (page.blocked, page.pending, page.modified, page.pr)
    return (True, page.pt, page.rwx, *state, page.secs, page.address)
