"""Moves of enclaves on the machine, of kernel and enclave together, and of random software."""

from softsgx.cpu.bare import BareEnclave
from softsgx.mem.pagetable import direct
from softsgx.spec import epcm
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.keys import KEYREQUEST, SEAL_KEY
from softsgx.spec.leaves import ENCLS_LEAVES, ENCLU_LEAVES
from tests.property.machine import AEP
from tests.property.machine_kernel import ALIAS, KernelMoves
from tests.property.world import LEAVES, LEGAL_SECINFOS, SECINFO_SLOTS, pick, secinfo_at, tcs_image

ACCEPTED = {epcm.REG: "EMODPR", epcm.TCS: "TCS", epcm.TRIM: "TRIM"}
BEGUN = epcm.PENDING | epcm.MODIFIED | epcm.PR | epcm.BLOCKED
VECTORS = (0xFB, 0xFB, 14, 13, 6, 3, 1, 0, 2, 16, 19)
ON_A_PAGE = ("EMODPR", "EMODT", "EBLOCK", "EREMOVE", "EDBGRD", "ETRACKC", "EACCEPT", "EMODPE")


class EnclaveMoves(KernelMoves):
    """ENCLU, accesses, and moves of both sides."""

    # Entry and exit

    def enter(self, n: int, number: int, value: int, spoil: int) -> None:
        enclave = self.enclave_at(number)
        if spoil == 0 and value % 8 and self.lps[n].secs is None:
            self.enter_anywhere(n, enclave, number >> 2)
            return
        # Any TCS, also one on which a processor runs or that is not accepted.
        tcs = [p for p in self.pages_of(enclave) if self.word(p) & epcm.PT_MASK == epcm.TCS]
        tcs += 2 * [page for page in tcs if self.word(page) & epcm.MODIFIED]
        places = [int(self.epcm.address[page]) for page in tcs] or enclave.tcs
        address = pick(places, number >> 2) if spoil != 1 else self.address_in(enclave, number)
        rbx = {2: address + 8, 3: 1 << 47}.get(spoil, address)
        name = "ERESUME" if value & 1 else "EENTER"
        self.leaf(n, name, rbx, 1 << 63 if spoil == 4 else AEP)

    def leave(self, n: int, number: int, value: int, spoil: int) -> None:
        if value & 1:
            vector = pick(VECTORS, number)
            self.deliver(n, vector, 0x8007 if vector == 14 else 0, self.enclaves[0].data[0] + 9)
        else:
            n = self.enclave_on(n, spoil)
            self.leaf(n, "EEXIT", 1 << 50 if spoil == 4 else 0x40_2000)

    def drop_frame(self, n: int, number: int, _value: int, spoil: int) -> None:
        """EDECCSSA, from a handler that was entered on the second frame."""
        enclave = self.enclave_of(n)
        if enclave is None and spoil == 0:
            enclave = self.enclave_at(number)
            for page, cssa in self.idle_tcs(enclave):
                if cssa == 1:
                    self.map(self.epcm.address[page], page)
                    self.leaf(n, "EENTER", self.epcm.address[page], AEP)
                    break
        self.leaf(n, "EDECCSSA")

    # Leaves on pages

    def operands(self, n: int, spoil: int) -> tuple[int, BareEnclave]:
        """A processor, inside if possible, and its enclave; the first enclave if it is outside."""
        n = self.enclave_on(n, spoil)
        return n, self.enclave_of(n) or self.enclaves[0]

    def waiting_in(self, enclave: BareEnclave, bits: int) -> list[int]:
        """Pages of an enclave with some of these state bits."""
        return [page for page in self.pages_of(enclave) if self.word(page) & bits]

    def secinfo_in(self, enclave: BareEnclave, flags: int, value: int, spoil: int) -> int:
        """Linear address of a SECINFO in the enclave: the right one, or any, or misaligned."""
        if spoil == 2:
            return enclave.scratch + 64 * (value % SECINFO_SLOTS)
        return secinfo_at(enclave, flags) + (32 if spoil == 3 else 0)

    def eaccept(self, n: int, number: int, value: int, spoil: int) -> None:
        n, enclave = self.operands(n, spoil)
        waiting = self.waiting_in(enclave, epcm.PENDING | epcm.MODIFIED | epcm.PR)
        if waiting and spoil == 0:
            self.eaccept_by(n, enclave, pick(waiting, number))
            return
        rbx = self.secinfo_in(enclave, pick(LEGAL_SECINFOS, value), value, spoil)
        self.leaf(n, "EACCEPT", rbx, self.address_in(enclave, number) + (64 if spoil == 4 else 0))

    def eaccept_by(self, n: int, enclave: BareEnclave, page: int) -> None:
        """EACCEPT of a page as it is; if it is a new TCS, enter it at once."""
        word = self.word(page)
        flags = word & epcm.SAVED
        kind = "EAUG" if word & epcm.PENDING else ACCEPTED[word & epcm.PT_MASK]
        address = self.epcm.address[page]
        if self.leaf(n, "EACCEPT", secinfo_at(enclave, flags), address):
            self.count(f"EACCEPT {kind}")
            outside = [lp.id for lp in self.lps if lp.secs is None]
            if kind == "TCS" and outside and self.leaf(outside[0], "EENTER", address, AEP):
                self.count("entered a new TCS")

    def eacceptcopy(self, n: int, number: int, value: int, spoil: int) -> None:
        n, enclave = self.operands(n, spoil)
        fresh = [self.epcm.address[page] for page in self.waiting_in(enclave, epcm.PENDING)]
        rcx = pick(fresh, number) if fresh and spoil != 1 else self.address_in(enclave, number)
        flags = epcm.REG | value % 8 | (spoil == 0)
        rdx = pick([enclave.data[0], enclave.scratch, rcx], value >> 3) + (8 if spoil == 4 else 0)
        self.leaf(n, "EACCEPTCOPY", self.secinfo_in(enclave, flags, value, spoil), rcx, rdx)

    def emodpe(self, n: int, number: int, value: int, spoil: int) -> None:
        n, enclave = self.operands(n, spoil)
        rcx = self.address_in(enclave, number) + (64 if spoil == 4 else 0)
        rbx = self.secinfo_in(enclave, epcm.REG | value % 8, value, spoil)
        if self.leaf(n, "EMODPE", rbx, rcx):
            self.count("EMODPE")

    def identify(self, n: int, number: int, value: int, spoil: int) -> None:
        """EGETKEY, mostly of a seal key, then EREPORT for measurement 0, to a data page."""
        n, enclave = self.operands(n, spoil)
        data, off = enclave.data[-1], 8 if spoil == 4 else 0
        request = KEYREQUEST(KEYNAME=SEAL_KEY if value & 1 else number % 8, KEYPOLICY=1)
        if self.access(n, data, "store", request.pack() + bytes(512)) is not None:
            self.leaf(n, "EGETKEY", data, data + 1024 + off)
            self.leaf(n, "EREPORT", data + 512, enclave.scratch, data + 2048 + off)

    # Accesses

    def touch(self, n: int, number: int, value: int, _spoil: int) -> None:
        """Loads, stores, fetches: in the enclave, in another one, at an alias outside ELRANGE."""
        n = self.enclave_on(n, spoil=int(value % 8 == 0))
        enclave = self.enclave_of(n)
        if enclave is None or value % 8 == 1:
            enclave = pick(self.enclaves, number)
        page = ALIAS if value % 16 == 0 else self.address_in(enclave, number)
        for kind in pick(
            ("load", "store", "fetch", "load store", "store load"), value >> 4
        ).split():
            self.use(n, page + value % 512 * 8, kind, value)

    def work(self, _n: int, number: int, value: int, _spoil: int) -> None:
        """All threads use a page that they may use, or one that their TLB holds already."""
        for lp in self.lps:
            enclave = self.enclave_of(lp.id)
            if enclave is None:
                if value & 2:
                    self.use(lp.id, self.address_in(self.enclave_at(number), number), "load", value)
                continue
            mine = [page for page in self.pages_of(enclave) if self.is_data(page)]
            held = [page for page in mine if page in self.cached()]
            good = [page for page in mine if self.word(page) & ~(epcm.PR | epcm.X) == _USABLE]
            pages = held if value & 1 and held else good
            for kind in ("load", "store") if pages else ():
                self.use(lp.id, self.epcm.address[pick(pages, number)], kind, value)
            code = [page for page in mine if self.word(page) & (_OP | epcm.X) == _CODE]
            if code:
                self.use(lp.id, self.epcm.address[pick(code, number)], "fetch", value)

    def use(self, n: int, address: int, kind: str, value: int) -> None:
        """One access; a load of the EPC from outside must return all ones."""
        lp = self.lps[n]
        held = lp.tlb.entries.get(address >> 12, 0)
        page = self.processor.epc.index((held & ~0xFFF) >> 12)
        inside = lp.secs is not None and lp.elrange_base <= address < lp.elrange_end
        found = self.access(n, address, kind, value.to_bytes(8, "little"))
        if inside and found is not None and page >= 0:
            right = {"load": epcm.R, "store": epcm.W, "fetch": epcm.X}[kind]
            if self.word(page) & (_OP | right) != epcm.VALID | epcm.REG | right:
                self.count("use of a stale translation")
        if not inside and found is not None and kind == "load":
            physical = lp.space.lookup(address) & ((1 << 52) - PAGE_SIZE)
            cached = lp.tlb.entries[address >> 12] & ~0xFFF
            if cached == physical and self.processor.epc.index(physical >> 12) >= 0:
                assert found == b"\xff" * 8, "the EPC is readable from outside"

    def make_tcs(self, n: int, number: int, value: int, spoil: int) -> None:
        """A thread writes a TCS to a data page, the kernel changes its type; go_on finishes."""
        n, enclave = self.operands(n, spoil)
        heap = [page for page in self.pages_of(enclave) if self.is_data(page, dispensable=True)]
        pages = [page for page in heap if self.word(page) & ~(epcm.PR | epcm.X) == _USABLE]
        if pages:
            page = pick(pages, number)
            bad = {1: {"AEP": 1}, 2: {"STATE": 1}, 3: {"CSSA": 2}, 4: {"FLAGS": 1}}
            image = tcs_image(enclave, **bad.get(spoil, {}))
            self.access(n, self.epcm.address[page], "store", image)
            n = self.kernel_on(n)
            self.emodt_of(n, self.bare.address(page), epcm.TCS)
            if value & 1:
                self.leaf(n, "EENTER", self.epcm.address[page], AEP)  # too early

    # Both sides

    def go_on(self, n: int, number: int, _value: int, _spoil: int) -> None:
        """What a correct kernel and a correct enclave do next with a pending page change."""
        waiting = [
            page
            for page in range(self.epcm.pages)
            if self.is_data(page)
            and (self.word(page) & BEGUN or self.word(page) & epcm.PT_MASK == epcm.TRIM)
        ]
        if not waiting:
            return
        page = pick(waiting, number)
        word, enclave = self.word(page), self.owner(page)
        assert enclave is not None
        if not self.is_tracked(page):
            self.shoot_down(n, enclave)
        if word & epcm.BLOCKED:
            self.evict(self.kernel_on(n), page)
        elif word & (epcm.PT_MASK | epcm.MODIFIED) == epcm.TRIM:
            self.leaf(self.kernel_on(n), "EREMOVE", 0, self.bare.address(page))
        else:
            self.map(self.epcm.address[page], page)
            n = self.enclave_on(n, 0, enclave)
            if self.enclave_of(n) is enclave:
                self.eaccept_by(n, enclave, page)

    def hurry(self, n: int, number: int, value: int, _spoil: int) -> None:
        """A kernel that omits the IPIs, or ETRACK as well, for a page that is in use."""
        used = [page for page in self.cached() if self.is_data(page, dispensable=value % 4 > 0)]
        if not used:
            return
        page = pick(used, number)
        enclave, rcx, n = self.owner(page), self.bare.address(page), self.kernel_on(n)
        assert enclave is not None
        if value & 16:
            self.leaf(n, "EBLOCK", 0, rcx)
        elif value & 32:
            self.emodt_of(n, rcx, epcm.TRIM)
        else:
            self.leaf(n, "EMODPR", self.bare.secinfo(epcm.R), rcx)
        if value & 64:
            self.leaf(n, "ETRACK", 0, self.bare.address(enclave.secs))
        if value & 16:
            self.evict(n, page)
        elif self.word(page) & epcm.SAVED in LEGAL_SECINFOS:
            self.map(self.epcm.address[page], page)
            n = self.enclave_on(n, 0, enclave)
            if self.enclave_of(n) is enclave and self.word(page) & BEGUN:
                self.eaccept_by(n, enclave, page)

    def shoot_down(self, n: int, enclave: BareEnclave) -> None:
        """ETRACK, then interrupt the processors that entered before."""
        self.leaf(self.kernel_on(n), "ETRACK", 0, self.bare.address(enclave.secs))
        for lp in self.lps:
            if lp.secs_page == enclave.secs and lp.epoch < self.processor.secs[enclave.secs].EPOCH:
                self.deliver(lp.id, 0xFB)

    def overlap(self, n: int, number: int, value: int, _spoil: int) -> None:
        """Two leaves on one page at once: one is held open while the other runs."""
        page = self.page_at(number, 0)
        enclave = self.owner(page)
        if enclave is None:
            return
        names = [pick(ON_A_PAGE, value), pick(ON_A_PAGE, value >> 4)]
        users = [self.kernel_on(n)]
        users.append((users[0] + 1) % len(self.lps))
        plans = [
            (lp, name, *self.plan(enclave, page, name))
            for lp, name in zip(users, names, strict=True)
        ]
        first, second = plans
        steps = self.begin(*first)
        if steps is not None:
            if not self.leaf(*second):
                self.count("refused beside another leaf")
            self.finish(first[0], first[1], first[3], steps)

    def plan(self, enclave: BareEnclave, page: int, name: str) -> tuple[int, int]:
        """RBX and RCX of a leaf on a page."""
        if name in ("EACCEPT", "EMODPE"):
            flags = self.word(page) & epcm.SAVED if name == "EACCEPT" else epcm.REG | epcm.R
            flags = flags if flags in LEGAL_SECINFOS else epcm.REG | epcm.PR
            return secinfo_at(enclave, flags), self.epcm.address[page]
        rbx = self.bare.secinfo(epcm.TRIM if name == "EMODT" else epcm.R)
        return rbx, self.bare.address(page)

    def wild(self, n: int, number: int, value: int, spoil: int) -> None:
        """Any leaf with arbitrary operands."""
        names = sorted({name for name, _ in (*ENCLS_LEAVES.values(), *ENCLU_LEAVES.values())})
        places = [
            *(0, 1, 8, 32, 64, 4096, 1 << 47, (1 << 47) - 4096, 1 << 63, (1 << 64) - 4096),
            *((1 << 64) - 64, (1 << 64) - 1, direct(self.world.ram), direct(self.world.ram) + 64),
            *(direct(0), direct((1 << 46) - 4096), self.bare.secinfo(epcm.REG | epcm.R), ALIAS),
            *(self.bare.address(page) for page in (0, 1, number % self.epcm.pages)),
            *(e.base + i * PAGE_SIZE for e in self.enclaves for i in (0, 1, 7, 15, 16)),
            *(e.scratch + 64 * (value % SECINFO_SLOTS) for e in self.enclaves),
        ]
        name = pick(names, number + spoil)
        if name in LEAVES and name not in _TOO_WILD:
            rbx, rcx, rdx = pick(places, value), pick(places, value >> 4), pick(places, number >> 3)
            self.leaf(n, name, rbx, rcx, rdx)


_OP = epcm.VALID | epcm.BLOCKED | epcm.PENDING | epcm.MODIFIED | epcm.PT_MASK
_CODE = epcm.VALID | epcm.REG | epcm.X
_USABLE = epcm.VALID | epcm.REG | epcm.R | epcm.W
# Leaves that may succeed by chance, and the records of the software would then be wrong.
_TOO_WILD = ("EADD", "EAUG", "EWB", "ELDU", "ELDB", "ELDUC", "ELDBC", "ECREATE", "EREMOVE")
