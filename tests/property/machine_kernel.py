"""Moves of a kernel on the machine: ENCLS, page tables, building, evicting, tearing down.

Every move takes four numbers: logical processor, two that choose operands, and `spoil`, mostly 0.
"""

from hashlib import sha256

from softsgx.cpu import measurement
from softsgx.cpu.bare import BareEnclave
from softsgx.cpu.secs import Secs
from softsgx.cpu.tracking import tracked
from softsgx.mem.pagetable import PTE_D, PTE_NX, PTE_P, PTE_U, PTE_W, direct
from softsgx.mem.tlb import ABORT
from softsgx.spec import epcm
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT, XFRM_LEGACY
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.msr import IA32_SGXLEPUBKEYHASH
from softsgx.spec.secs import SECS as SECS_PAGE
from softsgx.spec.sigstruct import EINITTOKEN, SIGSTRUCT
from tests.property.machine import Machine, Record
from tests.property.steps import capture
from tests.property.transitions import comes_back_the_same, evicted
from tests.property.world import BASE_C, SIZE, pick, secinfo_page, tcs_image


class KernelMoves(Machine):
    """ENCLS and page tables."""

    # Choosing

    def page_at(self, number: int, spoil: int, *, dispensable: bool = False) -> int:
        """Mostly a data page of an enclave, preferably one that a processor inside uses."""
        data = [p for p in range(self.epcm.pages) if self.is_data(p, dispensable=dispensable)]
        data += 2 * [page for page in data if page in self.cached()]
        return pick(data, number) if data and spoil != 1 else number % self.epcm.pages

    def cached(self) -> list[int]:
        """EPC pages to which some processor inside holds a translation."""
        return [
            self.processor.epc.index((entry & ~PAGE_MASK) >> PAGE_SHIFT)
            for lp in self.lps
            if lp.secs is not None
            for entry in lp.tlb.entries.values()
            if not entry & ABORT
        ]

    def rcx_of(self, page: int, spoil: int = 0) -> int:
        """The kernel's address of an EPC page, or nearly."""
        if spoil == 2:
            return direct(self.world.ram)
        return self.bare.address(page) + (8 if spoil == 3 else 0)

    def enclave_at(self, number: int) -> BareEnclave:
        """Mostly the first live enclave."""
        alive = self.alive() or self.enclaves
        return pick(alive[:1] * 3 + alive, number)

    # Leaves that take a page

    def emodpr(self, n: int, number: int, value: int, spoil: int) -> None:
        rights = value % 8 | ((value >> 4) % 4 > 0) | (spoil == 4) << 16
        rbx, rcx = self.bare.secinfo(rights), self.rcx_of(self.page_at(number, spoil), spoil)
        n = self.kernel_on(n, spoil)
        inside = any(lp.secs is not None for lp in self.lps)
        if self.leaf(n, "EMODPR", rbx, rcx) and inside:
            self.count("EMODPR with a processor inside")

    def emodt(self, n: int, number: int, value: int, spoil: int) -> None:
        pt = pick((epcm.TRIM,) * 6 + (epcm.TCS, epcm.REG), value >> 4) | (spoil == 4) << 16
        page = self.page_at(number, spoil, dispensable=True)
        self.emodt_of(self.kernel_on(n, spoil), self.rcx_of(page, spoil), pt)

    def emodt_of(self, n: int, rcx: int, pt: int) -> None:
        self.leaf(n, "EMODT", self.bare.secinfo(pt), rcx)

    def eblock(self, n: int, number: int, _value: int, spoil: int) -> None:
        page = self.page_at(number, spoil, dispensable=True)
        if spoil or not self.word(page) & epcm.BLOCKED:
            self.leaf(self.kernel_on(n, spoil), "EBLOCK", 0, self.rcx_of(page, spoil))

    def etrack(self, n: int, number: int, value: int, spoil: int) -> None:
        n = self.kernel_on(n, spoil)
        if value & 1:
            page = self.page_at(number, spoil)
            self.leaf(n, "ETRACKC", 0, self.rcx_of(page, spoil))
        else:
            page = number % self.epcm.pages if spoil == 1 else max(self.enclave_at(number).secs, 0)
            self.leaf(n, "ETRACK", 0, self.rcx_of(page, spoil))

    def eremove(self, n: int, number: int, _value: int, spoil: int) -> None:
        words = enumerate(self.epcm.state)
        trims = [page for page, word in words if word & (epcm.VALID | epcm.PT_MASK) == _TRIM]
        page = pick(trims, number) if trims else self.page_at(number, spoil, dispensable=True)
        self.leaf(self.kernel_on(n, spoil), "EREMOVE", 0, self.rcx_of(page, spoil))

    def inspect(self, n: int, number: int, value: int, spoil: int) -> None:
        """ERDINFO, EDBGWR, EDBGRD."""
        n, debug = self.kernel_on(n, spoil), self.pages_of(self.enclaves[1])
        page = pick(debug, number) if debug and value & 1 else self.page_at(number, value >> 1 & 1)
        rcx = self.rcx_of(page, spoil)
        self.leaf(n, "ERDINFO", direct(self.world.ram), rcx)
        # In a TCS, only FLAGS may be written.
        tcs = self.word(page) & epcm.PT_MASK == epcm.TCS
        offset, flags = (8, value >> 6 & 3) if tcs else (8 * (value >> 2) % PAGE_SIZE, value)
        self.leaf(n, "EDBGWR", flags, rcx + offset)
        self.leaf(n, "EDBGRD", 0, rcx + offset)

    def epa(self, n: int, number: int, value: int, spoil: int) -> None:
        """EPA; or EWB of a VA page, once there are two."""
        vas, free = self.va_pages(), self.free()
        n = self.kernel_on(n, spoil)
        if len(vas) > 1 and spoil == 0:
            self.evict(n, pick(vas, number), value)
        elif free:
            page = number % self.epcm.pages if spoil == 1 else pick(free, number)
            self.leaf(n, "EPA", 3 + (spoil == 4), self.rcx_of(page, spoil))

    def eaug(self, n: int, number: int, value: int, spoil: int) -> None:
        enclave, free = self.enclave_at(number), self.free()
        heap = [enclave.heap + i * PAGE_SIZE for i in range(3)]
        taken = [self.epcm.address[page] for page in self.pages_of(enclave)]
        vacant = [address for address in heap if address not in taken]
        if not free or enclave.secs < 0 or not (vacant or spoil):
            return
        linaddr = pick(heap if spoil else vacant, value)
        if spoil == 4:
            linaddr = pick((enclave.base + enclave.size, linaddr + 8), value)
        page = number % self.epcm.pages if spoil == 1 else pick(free, number)
        rbx = self.bare.pageinfo(linaddr=linaddr, secs=self.bare.address(enclave.secs))
        n = self.kernel_on(n, spoil)
        doubled = set(self.doubled)
        if enclave.secs in self.processor.secs:
            self.note_double(enclave, linaddr)
        if self.leaf(n, "EAUG", rbx, self.rcx_of(page, spoil)):
            self.map(linaddr, page)
        else:
            self.doubled = doubled

    # Eviction

    def ewb(self, n: int, number: int, value: int, spoil: int) -> None:
        words = enumerate(self.epcm.state)
        blocked = [page for page, word in words if word & epcm.BLOCKED]
        # A page still in use must not be evicted; so such pages are tried most.
        blocked += 3 * [page for page in blocked if page in self.cached()]
        page = pick(blocked, number) if blocked else self.page_at(number, spoil, dispensable=True)
        if spoil == 2:
            page = pick(self.va_pages() or [page], number)
        self.evict(self.kernel_on(n, spoil), page, value, spoil)

    def evict(self, n: int, page: int, value: int = 0, spoil: int = 0) -> bool:
        """EWB to an empty slot of some VA page; to an occupied one if spoilt."""
        vas = [va for va in self.va_pages() if va != page]
        if not vas:
            return False
        va = pick(vas, value)
        slots = self.slots(va)
        slot = value % 512 if spoil == 4 else slots.index(bytes(8))
        lost = slots[slot]
        image, owner = capture(self.processor), self.processor.secs_of(page)
        child = owner is not None and owner.page != page
        backing = self.bare.backing()
        rbx = self.bare.pageinfo(srcpge=backing.page, secinfo=backing.pcmd)
        eid = owner.EID if owner is not None and child else 0
        if not self.leaf(n, "EWB", rbx, self.bare.address(page), self.bare.address(va) + 8 * slot):
            return False
        backing.linaddr = int.from_bytes(self.lps[n].system_read(rbx, 8), "little")
        record = Record(evicted(image, page), eid, self.slots(va)[slot], backing)
        # The version that an occupied slot held is lost.
        self.evicted = [r for r in self.evicted if r.version != lost]
        self.evicted.append(record)
        for enclave in self.enclaves:
            if enclave.secs == page:
                record.secs_of, enclave.secs = enclave, -1
        return True

    def reload(self, n: int, number: int, value: int, spoil: int) -> None:
        """ELDB, ELDU, ELDBC or ELDUC of an evicted page: it must come back unchanged, only once."""
        eids = {secs.EID: page for page, secs in self.processor.secs.items()}
        homed = [record for record in self.evicted if not record.eid or record.eid in eids]
        homed += 2 * [record for record in homed if not record.eid]
        free = self.free()
        if not homed or not free:
            return
        record, page = pick(homed, number), pick(free, value)
        place = self.slot_of(record.version)
        if not place:
            return  # its VA page is not in the EPC
        parent = self.bare.address(eids[record.eid]) if record.eid else 0
        if spoil == 4:
            parent = self.bare.address(pick(list(eids.values()), value))
        name = pick(("ELDU", "ELDU", "ELDUC", "ELDB", "ELDBC"), value >> 4)
        linaddr = record.backing.linaddr + (PAGE_SIZE if spoil == 3 else 0)
        rbx = self.bare.pageinfo(
            linaddr=linaddr, srcpge=record.backing.page, secinfo=record.backing.pcmd, secs=parent
        )
        n = self.kernel_on(n, spoil)
        if not self.leaf(n, name, rbx, self.bare.address(page), place):
            assert spoil, f"{name} refused what EWB took"
            return
        blocked, image = name in ("ELDB", "ELDBC"), capture(self.processor)
        found = [*comes_back_the_same(record.was, blocked, page, image)]
        assert not found, "I40: " + "; ".join(found)
        self.count("EWB and ELD round trip")
        self.evicted.remove(record)
        self.welcome(record, page)
        again = [free_page for free_page in free if free_page != page]
        if again:
            assert not self.leaf(n, name, rbx, self.bare.address(again[0]), place), "loaded twice"

    def slot_of(self, version: bytes) -> int:
        """The kernel's address of the slot with this version; 0 if no slot in the EPC holds it."""
        for va in self.va_pages():
            slots = self.slots(va)
            if version in slots:
                return self.bare.address(va) + 8 * slots.index(version)
        return 0

    def welcome(self, record: Record, page: int) -> None:
        """Update the software's records for a page that was loaded back."""
        if record.secs_of is not None:
            record.secs_of.secs = page
            self.count("SECS round trip")
        elif record.eid:
            self.map(record.was.address, page)
        else:
            self.count("VA round trip")

    def swap_out(self, n: int, number: int, _value: int, _spoil: int) -> None:
        """Evict a whole enclave, its SECS last."""
        enclave = pick(self.alive()[1:] or self.enclaves, number)
        if enclave.secs < 0:
            return
        for page in self.pages_of(enclave):
            if not self.word(page) & epcm.BLOCKED:
                self.leaf(self.kernel_on(n), "EBLOCK", 0, self.bare.address(page))
        for lp in self.lps:
            if lp.secs_page == enclave.secs:
                self.deliver(lp.id, 0xFB)
        secs = self.bare.address(enclave.secs)
        self.leaf(self.kernel_on(n), "ETRACK", 0, secs)
        self.leaf(self.kernel_on(n), "ETRACK", 0, secs)
        for page in [*self.pages_of(enclave), enclave.secs]:
            self.evict(self.kernel_on(n), page)

    # The life of a third enclave

    def build(self, n: int, number: int, value: int, spoil: int) -> None:
        """The next steps of ECREATE, EADD.., EINIT; an enclave like the second one."""
        for i in range(3):
            self.build_on(n, number + i, value >> i, spoil)

    def build_on(self, n: int, number: int, value: int, spoil: int) -> None:
        enclave, n = self.enclaves[2] if len(self.enclaves) > 2 else None, self.kernel_on(n, spoil)
        if enclave is None:
            self.ecreate(n, number, spoil)
        elif enclave.secs >= 0 and not self.processor.secs[enclave.secs].initialised:
            rest = [a for a in [*enclave.tcs, *enclave.data] if a not in enclave.pages]
            if rest or spoil == 4:
                self.eadd(n, enclave, rest[0] if rest else enclave.heap, number, spoil)
            elif value % 2:
                pages = self.pages_of(enclave)
                rcx = self.rcx_of(pick(pages or [0], number), spoil) + 256 * (value % 16)
                self.leaf(n, "EEXTEND", self.bare.address(enclave.secs), rcx)
            else:
                self.einit(n, enclave, spoil)

    def ecreate(self, n: int, number: int, spoil: int) -> None:
        if not self.free():
            return
        page = number % self.epcm.pages if spoil == 1 else pick(self.free(), number)
        flags = ATTR_MODE64BIT | (ATTR_DEBUG if number & 1 else 0)
        base = BASE_C + (PAGE_SIZE if spoil == 4 else 0)
        secs = SECS_PAGE(
            SIZE_=SIZE, BASEADDR=base, SSAFRAMESIZE=1, ATTRIBUTES=flags, XFRM=XFRM_LEGACY
        )
        source, info = self.bare.source(secs.pack()), self.bare.secinfo(epcm.SECS)
        rbx = self.bare.pageinfo(srcpge=source, secinfo=info)
        if self.leaf(n, "ECREATE", rbx, self.rcx_of(page, spoil)):
            at = [BASE_C + i * PAGE_SIZE for i in range(6)]
            # TCS, two SSA pages, the table of SECINFOs, one data page; then the heap.
            enclave = BareEnclave(self.bare, page, BASE_C, SIZE, at[:1], at[1:5], at[3], at[5])
            self.enclaves.append(enclave)

    def eadd(self, n: int, enclave: BareEnclave, address: int, number: int, spoil: int) -> None:
        if not self.free():
            return
        page = pick(self.free(), number)
        content, flags = b"", epcm.REG | epcm.R | epcm.W
        if address in enclave.tcs:
            content, flags = tcs_image(enclave), epcm.TCS
        elif address == enclave.scratch:
            content = secinfo_page()
        rbx = self.bare.pageinfo(
            linaddr=address,
            srcpge=self.bare.source(content),
            secinfo=self.bare.secinfo(flags | (epcm.W if spoil == 3 else 0)),
            secs=self.bare.address(enclave.secs),
        )
        doubled = set(self.doubled)
        self.note_double(enclave, address)
        if self.leaf(n, "EADD", rbx, self.rcx_of(page, spoil)):
            enclave.pages[address] = page
            self.map(address, page)
        else:
            self.doubled = doubled

    def einit(self, n: int, enclave: BareEnclave, spoil: int) -> None:
        secs = self.processor.secs[enclave.secs]
        sig = self.signed(secs)
        memory = self.processor.memory
        memory.write(self.world.ram + PAGE_SIZE, sig.pack() if spoil != 4 else bytes(sig.SIZE))
        memory.write(self.world.ram + 2 * PAGE_SIZE, EINITTOKEN().pack())
        signer = sha256(sig.MODULUS).digest()
        for i, msr in enumerate(IA32_SGXLEPUBKEYHASH):
            self.lps[n].wrmsr(msr, int.from_bytes(signer[8 * i : 8 * i + 8], "little"))
        rbx, rdx = direct(self.world.ram + PAGE_SIZE), direct(self.world.ram + 2 * PAGE_SIZE)
        self.leaf(n, "EINIT", rbx, self.rcx_of(enclave.secs, spoil), rdx)

    def signed(self, secs: Secs) -> SIGSTRUCT:
        """A SIGSTRUCT for the enclave as measured so far; signing is slow, so they are kept."""
        key = (measurement.running(secs).digest(), secs.ATTRIBUTES)
        if key not in _SIGNED:
            _SIGNED[key] = self.bare.sigstruct(secs.page)
        return _SIGNED[key]

    def tear_down(self, n: int, _number: int, _value: int, spoil: int) -> None:
        """EREMOVE of the third enclave: children, then the SECS; another may follow."""
        if len(self.enclaves) < 3 or self.enclaves[2].secs < 0:
            return
        enclave = self.enclaves[2]
        if spoil == 0 and enclave not in self.ready():
            return
        pages = self.pages_of(enclave)
        for page in [*pages[: 4 if spoil == 0 else 0], enclave.secs]:
            self.leaf(self.kernel_on(n), "EREMOVE", 0, self.bare.address(page))
        if not self.word(enclave.secs) & epcm.VALID:
            self.enclaves.pop()

    # Page tables

    def change_pte(self, _n: int, number: int, value: int, _spoil: int) -> None:
        """Map a page where it belongs, or elsewhere; with or without a flush."""
        enclave, space = self.enclave_at(number), self.processor.space
        address = self.address_in(enclave, value)
        own = [p for p in self.pages_of(enclave) if self.epcm.address[p] == address]
        how = (number >> 2) % 32
        rights = PTE_P | PTE_U | (PTE_W if number & 128 else 0) | (0 if number & 256 else PTE_NX)
        rights |= PTE_D if value & 32 else 0
        if how == 0:
            space.unmap(address)
        elif how == 1:
            space.set(address, self.world.ram | rights)
        elif how == 4:
            mine = self.pages_of(enclave) or [0]
            space.set(address, self.processor.epc.physical(pick(mine, number >> 5)) | rights)
        elif how < 4:
            place = ALIAS if how == 2 else address
            space.set(place, self.processor.epc.physical(number % self.epcm.pages) | rights)
        elif own:
            full = PTE_P | PTE_U | PTE_W | (PTE_D if value & 32 else 0)
            wanted = full if how > 8 else rights
            space.set(address, self.processor.epc.physical(pick(own, number)) | wanted)
        for lp in self.lps:
            if value & 64:
                lp.tlb.invlpg(address)
            if value & 128 and lp.secs is None:
                lp.load_cr3(space)

    def address_in(self, enclave: BareEnclave, number: int) -> int:
        """Mostly the address of a data page; all addresses of ELRANGE occur."""
        cached = [page for page in self.cached() if page >= 0]
        data = [p for p in [*self.pages_of(enclave), *cached, *cached] if self.is_data(p)]
        mine = [p for p in data if self.epcm.secs[p] == enclave.secs]
        if number % 16 and mine:
            return int(self.epcm.address[pick(mine, number >> 4)])
        return enclave.base + (number >> 4) % 16 * PAGE_SIZE

    def is_tracked(self, page: int) -> bool:
        return tracked(self.processor, self.processor.parent(page), page)


_SIGNED: dict[tuple[bytes, int], SIGSTRUCT] = {}
_TRIM = epcm.VALID | epcm.TRIM
ALIAS = 0x5000_0000  # outside every ELRANGE
