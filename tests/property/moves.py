"""The moves of kernels and enclaves on the two machines of beside.py.

Every move takes the same four numbers: the logical processor, two numbers that choose operands, and
`spoil`, which is mostly 0: then the move is what a correct kernel or enclave would do.
"""

from softsgx.cpu.bare import BareEnclave
from softsgx.mem.pagetable import direct
from softsgx.spec import epcm
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.paging import SECINFO
from tests.property import reference as ref
from tests.property import reference_memory as mem
from tests.property.beside import AEP, Beside
from tests.property.world import (
    EPC_PAGES,
    LEGAL_SECINFOS,
    SECINFO_SLOTS,
    SHADOW_STACK_SECINFOS,
    pick,
    secinfo_at,
    tcs_image,
)

ALIAS = 0x5000_0000  # outside every ELRANGE
EXIT = 0x40_2000
KINDS = {
    "r": mem.R,
    "w": mem.W,
    "x": mem.X,
    "s": mem.SHADOW_LOAD,
    "S": mem.SHADOW_STORE,
}
ACCEPTED = {mem.REG: "EMODPR", mem.TCS: "TCS", mem.TRIM: "TRIM"}


class Choices(Beside):
    """How numbers choose pages and operands."""

    def is_data(self, page: mem.Page, dispensable: bool = False) -> bool:
        """False for TCS, SSA and SECINFO pages of the build, which the enclave always needs."""
        for enclave in self.enclaves:
            if page.secs == enclave.secs:
                return page.address >= (enclave.heap if dispensable else enclave.data[0])
        return False

    def cached(self) -> set[int]:
        """EPC pages in the TLB of a processor inside: changing these is what causes races."""
        tlbs = [lp.tlb.values() for lp in self.ref.lps if lp.enclave is not None]
        return {entry.target[1] for tlb in tlbs for entry in tlb if not entry.abort}

    def page_at(self, number: int, spoil: int, *, dispensable: bool = False) -> int:
        """Mostly a data page of an enclave (after the build's if dispensable); sometimes any."""
        data = [p for p in range(EPC_PAGES) if self.is_data(self.ref.epc[p], dispensable)]
        data += 2 * [p for p in data if p in self.cached()]
        return pick(data, number) if data and spoil != 1 else number % EPC_PAGES

    def rcx_of(self, page: int, spoil: int) -> int:
        """The kernel's address of an EPC page, or nearly."""
        if spoil == 2:
            return direct(self.ram << PAGE_SHIFT)
        return self.bare.address(page) + (8 if spoil == 3 else 0)

    def secinfo_of(self, flags: int, spoil: int) -> tuple[int, bytes]:
        """A SECINFO in the kernel's memory: its address and its bytes."""
        if spoil == 4:
            flags |= 1 << 16
        return self.bare.secinfo(flags) + (32 if spoil == 3 else 0), SECINFO(FLAGS=flags).pack()

    def enclave_of(self, n: int) -> BareEnclave:
        """The enclave in which logical processor n runs, or else the first."""
        return self.enclaves[1] if self.ref.lps[n].enclave == self.world.b.secs else self.world.a

    def enclave_at(self, number: int) -> BareEnclave:
        """Mostly the first enclave, so that something happens there."""
        return self.enclaves[number % 4 == 0]

    def address_in(self, enclave: BareEnclave, number: int) -> int:
        """Mostly the address of a data page; all addresses of ELRANGE occur."""
        cached = [self.ref.epc[p] for p in sorted(self.cached())]
        pages = [*self.ref.children(enclave.secs), *cached, *cached]
        places = [p.address for p in pages if self.is_data(p) and p.secs == enclave.secs]
        if number % 16 and places:
            return pick(places, number >> 4)
        return enclave.base + (number >> 4) % 16 * PAGE_SIZE

    def waiting_in(self, enclave: BareEnclave, number: int) -> mem.Page | None:
        """A page that waits to be accepted, if there is one."""
        children = self.ref.children(enclave.secs)
        waiting = [page for page in children if page.pending or page.modified or page.pr]
        return pick(waiting, number) if waiting else None

    def secinfo_in(self, enclave: BareEnclave, flags: int, value: int, spoil: int) -> int:
        """Linear address of a SECINFO of the enclave: the right one, or any, or misaligned."""
        if spoil == 2:
            return enclave.scratch + 64 * (value % SECINFO_SLOTS)
        return secinfo_at(enclave, flags) + (32 if spoil == 3 else 0)


class KernelMoves(Choices):
    """ENCLS and page tables."""

    def eaug(self, n: int, number: int, value: int, spoil: int) -> None:
        n = self.kernel_on(n, spoil)
        free = [p for p, page in enumerate(self.ref.epc) if not page.valid]
        page = pick(free, number) if free and spoil != 1 else number % EPC_PAGES
        enclave = self.enclave_at(number)
        heap = [enclave.heap + i * PAGE_SIZE for i in range(3)]
        taken = [page.address for page in self.ref.children(enclave.secs)]
        vacant = [address for address in heap if address not in taken]
        if spoil == 0 and not vacant:
            return
        linaddr = pick(vacant if spoil == 0 else heap, value)
        secs = self.bare.address(enclave.secs)
        info = {"linaddr": linaddr, "srcpge": 0, "secinfo": 0, "secs": secs}
        pt, raw = mem.REG, b""
        if self.CET and value & 2:
            pt = mem.SS_FIRST if value & 4 else mem.SS_REST
            rights = 3 if spoil != 4 or value & 32 else value % 8
            info["secinfo"], raw = self.secinfo_of(pt << epcm.PT_SHIFT | rights, 0)
        if spoil == 4:
            ways = (
                {"linaddr": enclave.base + enclave.size},
                {"linaddr": linaddr + 8},
                {"srcpge": PAGE_SIZE},
                {"linaddr": enclave.base + pick((0, enclave.size - PAGE_SIZE), value >> 3)},
                {"secs": self.bare.address(number % EPC_PAGES)},
                {"secs": direct(self.ram << PAGE_SHIFT)},
            )
            info |= pick(ways, value)
        if spoil == 2 and value & 8:
            info["secinfo"], raw = self.secinfo_of(epcm.REG | 3, 0)
        rbx = self.bare.pageinfo(**info) + (8 if spoil == 3 and value & 1 else 0)
        rcx = self.rcx_of(page, 0 if value & 1 else spoil)
        pageinfo = (info["linaddr"], info["srcpge"], info["secinfo"], info["secs"])
        if self.leaf(n, "EAUG", (rbx, rcx), lambda: self.ref.eaug(n, rbx, rcx, pageinfo, raw)):
            self.map_page(page, dirty=bool(value & 16))

    def emodpr(self, n: int, number: int, value: int, spoil: int) -> None:
        n = self.kernel_on(n, spoil)
        rcx = self.rcx_of(self.page_at(number, spoil), spoil)
        rights = value % 8 | ((value >> 4) % 4 > 0)
        rbx, raw = self.secinfo_of(rights, spoil if value & 8 else 0)
        inside = any(lp.enclave is not None for lp in self.ref.lps)
        if self.leaf(n, "EMODPR", (rbx, rcx), lambda: self.ref.emodpr(n, rbx, rcx, raw)) and inside:
            self.count("EMODPR with a processor inside")

    def emodt(self, n: int, number: int, value: int, spoil: int) -> None:
        n = self.kernel_on(n, spoil)
        rcx = self.rcx_of(self.page_at(number, spoil, dispensable=True), spoil)
        pt = pick((mem.TRIM,) * 6 + (mem.TCS, mem.REG), value >> 4)
        self.emodt_of(n, rcx, pt, spoil if value & 8 else 0)

    def emodt_of(self, n: int, rcx: int, pt: int, spoil: int = 0) -> None:
        rbx, raw = self.secinfo_of(pt << epcm.PT_SHIFT, spoil)
        self.leaf(n, "EMODT", (rbx, rcx), lambda: self.ref.emodt(n, rbx, rcx, raw))

    def eblock(self, n: int, number: int, _value: int, spoil: int) -> None:
        n = self.kernel_on(n, spoil)
        page = self.page_at(number, spoil, dispensable=True)
        if self.ref.epc[page].blocked and spoil == 0:
            return  # no move unblocks it, so too many pages would soon be blocked
        rcx = self.rcx_of(page, spoil)
        self.leaf(n, "EBLOCK", (0, rcx), lambda: self.ref.eblock(n, rcx))

    def etrack(self, n: int, number: int, _value: int, spoil: int) -> None:
        page = number % EPC_PAGES if spoil == 1 else self.enclave_at(number).secs
        self.etrack_of(self.kernel_on(n, spoil), self.rcx_of(page, spoil))

    def etrack_of(self, n: int, rcx: int) -> None:
        self.leaf(n, "ETRACK", (0, rcx), lambda: self.ref.etrack(n, rcx))

    def eremove(self, n: int, number: int, _value: int, spoil: int) -> None:
        trims = [p for p, page in enumerate(self.ref.epc) if page.pt == mem.TRIM]
        any_page = self.page_at(number, spoil, dispensable=True)
        page = pick(trims, number) if trims and spoil != 1 else any_page
        self.eremove_of(self.kernel_on(n, spoil), self.rcx_of(page, spoil))

    def eremove_of(self, n: int, rcx: int) -> None:
        self.leaf(n, "EREMOVE", (0, rcx), lambda: self.ref.eremove(n, rcx))

    def ewb(self, n: int, number: int, _value: int, spoil: int) -> None:
        blocked = [p for p, page in enumerate(self.ref.epc) if page.blocked]
        any_page = self.page_at(number, spoil, dispensable=True)
        page = pick(blocked, number) if blocked and spoil < 2 else any_page
        if page != self.world.va:
            self.evict(self.kernel_on(n, spoil), page)

    def evict(self, n: int, page: int) -> None:
        if self.ref.epc[self.world.va].pt != mem.VA:
            return
        backing = self.bare.backing()
        rbx = self.bare.pageinfo(srcpge=backing.page, secinfo=backing.pcmd)
        rcx, slot = self.bare.address(page), self.bare.address(self.world.va) + 8 * self.slots
        if self.leaf(n, "EWB", (rbx, rcx, slot), lambda: self.ewb_model(n, rcx)):
            self.slots += 1

    def ewb_model(self, n: int, rcx: int) -> ref.Status:
        """EWB of the reference, which has no versions: the VA page is copied to it."""
        status = self.ref.ewb(n, rcx)
        self.ref.epc[self.world.va].data[:] = self.contents(self.world.va)
        return status

    def map_page(self, page: int, *, dirty: bool) -> None:
        """Map an EPC page where it belongs, as a correct kernel would."""
        held = self.ref.epc[page]
        shadow = held.pt in mem.SHADOW_STACKS
        self.set_pte(held.address, ("epc", page), 1 if shadow else 7, dirty=dirty or shadow)

    def change_pte(self, _n: int, number: int, value: int, _spoil: int) -> None:
        """Map a page of the enclave where it belongs, or elsewhere; with or without INVLPG."""
        address = self.address_in(self.enclave_at(number), value)
        own = [p for p, page in enumerate(self.ref.epc) if page.valid and page.address == address]
        how, rights, dirty = (number >> 2) % 32, 1 | (number >> 7 & 3) << 1, bool(value & 32)
        if how == 0:
            self.processor.space.unmap(address)
            self.ref.pte.pop(address, None)
        elif how == 1:
            self.set_pte(address, ("ram", self.ram), rights, dirty=dirty)
        elif how == 2:
            self.set_pte(ALIAS, ("epc", number % EPC_PAGES), rights, dirty=dirty)
        elif how in (3, 4):
            mine = [p for p, page in enumerate(self.ref.epc) if self.is_data(page)]
            page = pick(mine, number >> 5) if how == 4 and mine else number % EPC_PAGES
            self.set_pte(address, ("epc", page), 7, dirty=dirty)
        elif own and how > 12:
            self.map_page(pick(own, number), dirty=dirty)
        elif own:
            self.set_pte(address, ("epc", pick(own, number)), 7 if how > 8 else rights, dirty=dirty)
        if value & 64:
            for lp, model in zip(self.processor.lps, self.ref.lps, strict=True):
                lp.tlb.invlpg(address)
                model.tlb.pop(address, None)


class EnclaveMoves(KernelMoves):
    """ENCLU and accesses; and what kernel and enclave do together."""

    def enter(self, n: int, number: int, value: int, spoil: int) -> None:
        enclave = self.enclave_at(number)
        if spoil == 0 and value % 8 and self.ref.lps[n].enclave is None:
            self.enter_anywhere(n, enclave, number >> 2)
            return
        # Any TCS, also one on which a processor runs.
        tcs = [page.address for page in self.ref.children(enclave.secs) if page.pt == mem.TCS]
        rbx = pick(tcs, number) if tcs and spoil != 1 else self.address_in(enclave, number)
        rbx = {2: rbx + 8, 3: 1 << 47}.get(spoil, rbx)
        self.enter_at(n, rbx, 1 << 63 if spoil == 4 else AEP, resume=bool(value & 1))

    def leave(self, n: int, _number: int, value: int, spoil: int) -> None:
        if value & 1 and self.ref.lps[n].enclave is not None:
            self.interrupt(n)
            return
        rbx = 1 << 50 if spoil == 4 else EXIT
        self.leaf(n, "EEXIT", (rbx,), lambda: self.ref.eexit(n, rbx))

    def eaccept(self, n: int, number: int, value: int, spoil: int) -> None:
        n = self.enclave_on(n, spoil)
        enclave = self.enclave_of(n)
        page = self.waiting_in(enclave, number)
        if page is not None and spoil == 0:
            self.eaccept_by(n, page)
            return
        flags = accepting(page) if page is not None else pick(LEGAL_SECINFOS, value)
        rbx = self.secinfo_in(enclave, flags, value, spoil)
        rcx = page.address if page and spoil > 1 else self.address_in(enclave, number)
        rcx += 64 if spoil == 4 else 0
        self.adopt_frames()
        self.leaf(n, "EACCEPT", (rbx, rcx), lambda: self.ref.eaccept(n, rbx, rcx))

    def eaccept_by(self, n: int, page: mem.Page) -> None:
        """EACCEPT of the page as it is; if it is a new TCS, enter it at once."""
        rbx, rcx = secinfo_at(self.enclave_of(n), accepting(page)), page.address
        kind = "EAUG" if page.pending else ACCEPTED[page.pt]
        self.adopt_frames()
        if self.leaf(n, "EACCEPT", (rbx, rcx), lambda: self.ref.eaccept(n, rbx, rcx)):
            self.count(f"EACCEPT {kind}")
            if page.pt in mem.SHADOW_STACKS:
                self.count(f"EACCEPT {kind} of a shadow stack")
            outside = [i for i, lp in enumerate(self.ref.lps) if lp.enclave is None]
            if kind == "TCS" and outside:
                self.enter_at(outside[0], rcx, AEP, resume=False)

    def eacceptcopy(self, n: int, number: int, value: int, spoil: int) -> None:
        n = self.enclave_on(n, spoil)
        enclave = self.enclave_of(n)
        fresh = [page for page in self.ref.children(enclave.secs) if page.pending]
        usual = pick(fresh, number).address if fresh and spoil != 1 else 0
        rcx = usual or self.address_in(enclave, number)
        rbx = self.secinfo_in(enclave, epcm.REG | value % 8 | (spoil == 0), value, spoil)
        rdx = pick([enclave.data[0], enclave.data[-1], enclave.scratch, rcx], value >> 3)
        if rdx in self.ssa:
            return  # contents of SSA frames are not modelled
        rdx = enclave.base + enclave.size if spoil == 4 else rdx
        operands = (rbx, rcx, rdx)
        self.leaf(n, "EACCEPTCOPY", operands, lambda: self.ref.eacceptcopy(n, *operands))

    def emodpe(self, n: int, number: int, value: int, spoil: int) -> None:
        n = self.enclave_on(n, spoil)
        enclave = self.enclave_of(n)
        rcx = self.address_in(enclave, number) + (64 if spoil == 4 else 0)
        rbx = self.secinfo_in(enclave, epcm.REG | value % 8, value, spoil)
        # Half of the time the TLB holds the page with its old rights; then the new ones are used.
        pages = [page for page in self.ref.children(enclave.secs) if self.is_data(page)]
        held = [p for p in pages if p.address == rcx and self.ref.usable(p, p.secs or 0, rcx, 1)]
        if held and value & 8:
            self.access_one(n, rcx, "r", b"")
        done = self.leaf(n, "EMODPE", (rbx, rcx), lambda: self.ref.emodpe(n, rbx, rcx))
        if done and held and value & 8:
            self.access_one(n, rcx, "x" if value & 4 else "w", bytes(8))

    def access(self, n: int, number: int, value: int, _spoil: int) -> None:
        """Loads, stores, fetches: in the enclave, in the other one, at an alias outside ELRANGE."""
        n = self.enclave_on(n, spoil=int(value % 8 == 0))
        enclave = self.enclaves[value % 2] if value % 8 == 1 else self.enclave_of(n)
        page = ALIAS if value % 16 == 0 else self.address_in(enclave, number)
        ordinary = ("r", "w", "x", "rw", "wr", "wx")
        shadow = ("s", "S", "rS", "Sw", "sr", "wS") if self.CET else ()
        kinds = pick(ordinary + shadow, value >> 4)
        if page in self.ssa or (page == enclave.scratch and "w" in kinds):
            return  # contents of SSA frames are not modelled; the table of SECINFOs stays
        if page == enclave.scratch and "S" in kinds:
            return
        for kind in kinds:
            self.access_one(n, page + value % 512 * 8, kind, value.to_bytes(8, "little"))

    def work(self, _n: int, number: int, value: int, _spoil: int) -> None:
        """All threads inside use a page that they may use, or one that their TLB holds already."""
        for n, lp in enumerate(self.ref.lps):
            if lp.enclave is None:
                if value & 2:
                    self.touch_from_outside(n, self.address_in(self.enclave_at(number), number))
                continue
            data = [page for page in self.ref.children(lp.enclave) if self.is_data(page)]
            held = [page for page in data if page.address in lp.tlb]
            for kind in "rwsS" if self.CET else "rw":
                need = KINDS[kind]
                mine = [p for p in data if self.ref.reachable(p, p.secs or 0, p.address, need)]
                if pages := held if value & 1 and held else mine:
                    address = pick(pages, number).address
                    self.access_one(n, address, kind, value.to_bytes(8, "little"))

    def touch_from_outside(self, n: int, address: int) -> None:
        """A load at an address of an enclave, by a processor that is not inside."""
        if address not in self.ssa:
            self.access_one(n, address, "r", b"")

    def access_one(self, n: int, address: int, kind: str, data: bytes) -> None:
        """One load ("r"), store ("w") or fetch ("x"); "s" and "S" by shadow-stack access."""
        lp, model = self.processor.lps[n], self.ref
        if self.is_stale(n, address, KINDS[kind]):
            self.count("stale wider")
        if kind == "r":
            self.both("load", lambda: lp.load(address, 8), lambda: model.load(n, address, 8))
        elif kind == "w":
            self.both(
                "store", lambda: lp.store(address, data), lambda: model.store(n, address, data)
            )
        elif kind == "x":
            self.both("fetch", lambda: lp.fetch(address) and None, lambda: model.fetch(n, address))
        elif kind == "s":
            self.both(
                "shadow load",
                lambda: lp.shadow_load(address),
                lambda: model.shadow_load(n, address),
            )
        else:
            word = int.from_bytes(data, "little")
            self.both(
                "shadow store",
                lambda: lp.shadow_store(address, word),
                lambda: model.shadow_store(n, address, word),
            )
        if self.fault is not None and self.fault.rule == "ACCESS.13":
            self.count("stale narrower")
        self.deliver(n)

    def is_stale(self, n: int, address: int, need: int) -> bool:
        """Whether only a translation that outlived its EPCM entry permits the access."""
        model = self.ref.lps[n]
        entry = model.tlb.get(mem.page_of(address))
        if model.enclave is None or entry is None or entry.abort or not entry.rights & need:
            return False
        return not self.ref.reachable(self.ref.epc[entry.target[1]], model.enclave, address, need)

    def make_tcs(self, n: int, number: int, _value: int, spoil: int) -> None:
        """A thread writes a TCS to a data page, the kernel changes its type; go_on finishes."""
        n = self.enclave_on(n, spoil)
        enclave = self.enclave_of(n)
        heap = [page for page in self.ref.children(enclave.secs) if self.is_data(page, True)]
        pages = [page for page in heap if page.pt == mem.REG and not page.pending]
        if pages:
            page = pick(pages, number)
            bad = {1: {"AEP": 1}, 2: {"STATE": 1}, 3: {"CSSA": 2}, 4: {"FLAGS": 1}}
            self.access_one(n, page.address, "w", tcs_image(enclave, **bad.get(spoil, {})))
            rcx = self.bare.address(self.ref.epc.index(page))
            self.emodt_of(self.kernel_on(n, 0), rcx, mem.TCS)

    def go_on(self, n: int, number: int, _value: int, _spoil: int) -> None:
        """What a correct kernel and a correct enclave do next with a pending page change."""
        waiting = [page for page in self.ref.epc if page.valid and self.is_waiting(page)]
        if waiting:
            page = pick(waiting, number)
            if not self.ref.tracked(page):
                self.shoot_down(n, page)
            self.finish(n, page)

    def is_waiting(self, page: mem.Page) -> bool:
        begun = page.pending or page.modified or page.pr or page.blocked or page.pt == mem.TRIM
        return begun and self.is_data(page)

    def shoot_down(self, n: int, page: mem.Page) -> None:
        """ETRACK, then interrupt the processors that tracking still waits for."""
        secs = page.secs
        assert secs is not None
        if page.waits_for is None:
            self.etrack_of(self.kernel_on(n, 0), self.bare.address(secs))
        for i, lp in enumerate(self.ref.lps):
            if lp.enclave == secs and lp.stay in self.ref.enclaves[secs].followed:
                self.interrupt(i)

    def finish(self, n: int, page: mem.Page) -> None:
        """The last step for a tracked page: EWB, EREMOVE or EACCEPT."""
        place = self.ref.epc.index(page)
        if page.blocked:
            self.evict(self.kernel_on(n, 0), place)
        elif page.pt == mem.TRIM and not page.modified:
            self.eremove_of(self.kernel_on(n, 0), self.bare.address(place))
        else:
            self.map_page(place, dirty=place % 2 == 0)
            n = self.thread_in(n, page.secs)
            if self.ref.lps[n].enclave == page.secs:
                self.eaccept_by(n, page)


def accepting(page: mem.Page) -> int:
    """FLAGS of the SECINFO with which the enclave would accept the page as it is."""
    flags = page.pt << epcm.PT_SHIFT | page.rwx | (epcm.PENDING if page.pending else 0)
    flags |= (epcm.MODIFIED if page.modified else 0) | (epcm.PR if page.pr else 0)
    assert flags in LEGAL_SECINFOS + SHADOW_STACK_SECINFOS
    return flags
