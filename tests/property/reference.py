"""A second, naive processor for the SGX2 leaves; test_reference.py compares the real one with it.

Written from the manual's tables (SDM 3D: EAUG, EMODPR, EMODT, EACCEPT, EACCEPTCOPY, EMODPE, EBLOCK,
ETRACK, EREMOVE, EWB, EENTER, ERESUME, EEXIT, AEX; access control at translation), deliberately not
from `softsgx.cpu`, which it neither imports nor resembles: dataclasses, dictionaries and sets.

The main difference is tracking. There are no epochs and no counters: every entry opens a *stay*
with a number of its own; ETRACK notes on every stamped page the stays inside at that moment; the
page is tracked when all these stays have ended.

Left out, and therefore not compared: contents of SSA frames, registers, leaves held open, eviction
beyond "may this page leave the EPC", SSP and the tracker, enclaves that are 32-bit or not
initialised. SSAFRAMESIZE is 1 and XFRM is 3, so a frame is one page. With `cet` the enclaves use
shadow stacks, and entry looks at the page of their CET state save area.
"""

from dataclasses import dataclass

from tests.property.reference_memory import (
    CHILDREN,
    GP,
    PAGE,
    PF,
    REG,
    SECS,
    SHADOW_LOAD,
    SHADOW_STACKS,
    SHADOW_STORE,
    SS_FIRST,
    SS_REST,
    TCS,
    TRIM,
    UD,
    Enclave,
    Lp,
    Memory,
    Page,
    R,
    Refused,
    W,
    X,
    canonical,
    page_of,
)

PENDING, MODIFIED, PR = 8, 16, 32


@dataclass(frozen=True)
class Status:
    """A result in RAX, with the flag that goes with it: "zf" for errors, "cf" for information."""

    rax: int
    flag: str = ""


SUCCESS = Status(0)
BLKSTATE, NOTBLOCKABLE, PG_INVLD = Status(3, "cf"), Status(5, "cf"), Status(6, "zf")
NOT_BLOCKED, NOT_TRACKED = Status(10, "zf"), Status(11, "zf")
CHILD_PRESENT, ENCLAVE_ACT = Status(13, "zf"), Status(14, "zf")
PREV_TRK_INCMPL, PG_IS_SECS = Status(17, "zf"), Status(18, "cf")
MISMATCH, NOT_MODIFIABLE = Status(19, "zf"), Status(20, "zf")


def secinfo_flags(raw: bytes) -> int:
    """FLAGS of a SECINFO; #GP(0) for bits 7:6, 63:16 and bytes 8..63."""
    flags = int.from_bytes(raw[:8], "little")
    if flags & 0xC0 or flags >> 16 or any(raw[8:64]):
        raise Refused(GP)
    return flags


class Reference(Memory):
    """Leaves by name; the first argument is the number of the logical processor."""

    # ENCLS: RCX is an address of the kernel

    def at_cpl0(self, n: int, rbx: int, align: int, rcx: int) -> Page:
        """What every ENCLS leaf here tests first; the EPC page at RCX."""
        if self.lps[n].enclave is not None:
            raise Refused(UD)
        if rbx % align or rcx % PAGE:
            raise Refused(GP)
        return self.kernel_page(rcx)

    def kernel_page(self, address: int) -> Page:
        if page_of(address) not in self.kernel:
            raise Refused(PF, address, 0x8003)
        return self.epc[self.kernel[page_of(address)]]

    def eaug(
        self, n: int, rbx: int, rcx: int, pageinfo: tuple[int, int, int, int], raw: bytes
    ) -> None:
        linaddr, srcpge, secinfo, secs = pageinfo
        page = self.at_cpl0(n, rbx, 32, rcx)
        if secinfo % 64 or secs % PAGE or linaddr % PAGE or srcpge:
            raise Refused(GP)
        parent = self.kernel_page(secs)
        if page.valid:
            raise Refused(PF, rcx, 0x8003)
        pt = REG
        if secinfo:
            flags = secinfo_flags(raw)
            pt = flags >> 8
            if not self.cet or pt not in SHADOW_STACKS or flags & (R | W | X) != R | W:
                raise Refused(GP)  # only shadow stacks have one
        if not parent.valid or parent.pt != SECS:
            raise Refused(PF, secs, 0x8003)
        number = self.kernel[secs]
        enclave = self.enclaves[number]
        if not enclave.holds(linaddr):
            raise Refused(GP)
        if pt != REG and linaddr in (enclave.base, enclave.base + enclave.size - PAGE):
            raise Refused(GP)
        page = self.epc[self.kernel[rcx]] = Page(True, pt, R | W, number, linaddr, pending=True)
        if pt == SS_FIRST:
            page.put(PAGE - 8, 8, linaddr + PAGE + 1)

    def emodpr(self, n: int, rbx: int, rcx: int, raw: bytes) -> Status:
        page = self.at_cpl0(n, rbx, 64, rcx)
        flags = secinfo_flags(raw)
        if flags & W and not flags & R:
            raise Refused(GP)
        if not page.valid:
            raise Refused(PF, rcx, 0x8003)
        if page.pending or page.modified:
            return NOT_MODIFIABLE
        if page.pt != REG:
            raise Refused(PF, rcx, 0x8003)
        page.pr, page.waits_for = True, None
        page.rwx &= flags
        return SUCCESS

    def emodt(self, n: int, rbx: int, rcx: int, raw: bytes) -> Status:
        page = self.at_cpl0(n, rbx, 64, rcx)
        pt = secinfo_flags(raw) >> 8
        if pt not in (TCS, TRIM):
            raise Refused(GP)
        if not page.valid:
            raise Refused(PF, rcx, 0x8003)
        if page.pt != REG and (page.pt not in (TCS, *SHADOW_STACKS) or pt != TRIM):
            raise Refused(PF, rcx, 0x8003)
        if page.pending or page.modified:
            return NOT_MODIFIABLE
        page.pr, page.modified, page.rwx, page.pt, page.waits_for = False, True, 0, pt, None
        return SUCCESS

    def eblock(self, n: int, rcx: int) -> Status:
        page = self.at_cpl0(n, 0, 1, rcx)
        if not page.valid:
            return PG_INVLD
        if page.pt == SECS:
            return PG_IS_SECS
        if page.pt not in CHILDREN:
            return NOTBLOCKABLE
        if page.blocked:
            return BLKSTATE
        page.blocked, page.waits_for = True, None
        return SUCCESS

    def etrack(self, n: int, rcx: int) -> Status:
        page = self.at_cpl0(n, 0, 1, rcx)
        if not page.valid or page.pt != SECS:
            raise Refused(PF, rcx, 0x8003)
        number = self.kernel[rcx]
        enclave, inside = self.enclaves[number], self.inside(number)
        if enclave.followed & inside:
            return PREV_TRK_INCMPL
        enclave.followed = inside
        for child in self.children(number):
            if child.waits_for is None:
                child.waits_for = inside
        return SUCCESS

    def eremove(self, n: int, rcx: int) -> Status:
        page = self.at_cpl0(n, 0, 1, rcx)
        if page.valid and page.pt == SECS and self.children(self.kernel[rcx]):
            return CHILD_PRESENT
        if page.valid and page.pt in CHILDREN and (page.pt != TRIM or page.modified):
            if self.inside(page.secs):
                return ENCLAVE_ACT
        self.epc[self.kernel[rcx]] = Page()
        return SUCCESS

    def ewb(self, n: int, rcx: int) -> Status:
        """Only whether the page may leave; assumes well-formed operands and an empty slot."""
        page = self.at_cpl0(n, 0, 1, rcx)
        if not page.valid:
            raise Refused(PF, rcx, 0x8003)
        if page.pt in CHILDREN and not page.blocked:
            return NOT_BLOCKED
        if page.pt in CHILDREN and not self.tracked(page):
            return NOT_TRACKED
        if page.pt == SECS and self.children(self.kernel[rcx]):
            return CHILD_PRESENT
        self.epc[self.kernel[rcx]] = Page()
        return SUCCESS

    # ENCLU inside: operands are linear addresses of the enclave

    def in_enclave(self, n: int) -> tuple[Lp, int, Enclave]:
        lp = self.lps[n]
        if lp.enclave is None:
            raise Refused(GP)
        return lp, lp.enclave, self.enclaves[lp.enclave]

    def secinfo(self, secs: int, rbx: int, page: Page) -> int:
        """FLAGS of the SECINFO at RBX in `page`, which must be a usable operand."""
        if not self.usable(page, secs, rbx, R):
            raise Refused(PF, rbx)
        return secinfo_flags(bytes(page.data[rbx % PAGE : rbx % PAGE + 64]))

    def eaccept(self, n: int, rbx: int, rcx: int) -> Status:
        _, secs, enclave = self.in_enclave(n)
        if rbx % 64 or not enclave.holds(rbx):
            raise Refused(GP)
        flags = self.secinfo(secs, rbx, self.operand(rbx))
        if rcx % PAGE or not enclave.holds(rcx):
            raise Refused(GP)
        page = self.operand(rcx)
        pt, pending, modified, pr = flags >> 8, flags & PENDING, flags & MODIFIED, flags & PR
        if pt == REG:
            legal = bool(pr or pending) and not modified
        elif pt in SHADOW_STACKS:
            legal = self.cet and bool(pending) and not modified and not pr
        else:
            legal = pt in (TCS, TRIM) and bool(modified) and not pending and not pr
        if not legal:
            raise Refused(GP)
        if not page.valid or page.blocked or page.pt not in CHILDREN or page.secs != secs:
            raise Refused(PF, rcx)
        state = (page.address, page.pt, page.rwx, page.pending, page.modified)
        if state != (rcx, pt, flags & (R | W | X), bool(pending), bool(modified)):
            return MISMATCH
        if not self.tracked(page):
            return NOT_TRACKED
        if pt == TCS:
            dbgoptin, aep, active = page.get(8) & 1, page.get(40), page.get(0)
            cssa, nssa = page.get(24, 4), page.get(28, 4)
            frames = cssa < nssa or (cssa, nssa) == (0, 0)  # Intel's own tests make a TCS of zeroes
            # With CET the 8 bytes from 72 on are OCETSSA, those from 80 on PREVSSP.
            reserved = page.data[80 if self.cet else 72 :]
            if any(reserved) or dbgoptin or not frames or aep or active:
                raise Refused(GP)
        page.pending = page.modified = page.pr = False
        return SUCCESS

    def eacceptcopy(self, n: int, rbx: int, rcx: int, rdx: int) -> Status:
        _, secs, enclave = self.in_enclave(n)
        if rbx % 64 or rcx % PAGE or rdx % PAGE:
            raise Refused(GP)
        if not all(map(enclave.holds, (rbx, rcx, rdx))):
            raise Refused(GP)
        secinfo_page = self.operand(rbx)
        page, source = self.operand(rcx, W), self.operand(rdx)
        flags = self.secinfo(secs, rbx, secinfo_page)
        if flags & (R | W) == W or flags >> 8 != REG:
            raise Refused(GP)
        if not self.usable(source, secs, rdx, R):
            raise Refused(PF, rdx)
        fresh = page.valid and page.pending and not page.modified and not page.blocked
        if not fresh or page.pt != REG or page.rwx != R | W:
            return MISMATCH
        if page.secs != secs or page.address != rcx:
            return MISMATCH
        page.data[:] = source.data
        page.rwx, page.pending = flags & (R | W | X), False
        return SUCCESS

    def emodpe(self, n: int, rbx: int, rcx: int) -> None:
        _, secs, enclave = self.in_enclave(n)
        if rbx % 64 or rcx % PAGE or not enclave.holds(rbx) or not enclave.holds(rcx):
            raise Refused(GP)
        secinfo_page, page = self.operand(rbx), self.operand(rcx)
        flags = self.secinfo(secs, rbx, secinfo_page)
        if not self.usable(page, secs, rcx, 0):
            raise Refused(PF, rcx)
        if not page.rwx & R and not flags & R and flags & W:
            raise Refused(GP)
        page.rwx |= flags & (R | W | X)

    # Entry and exit

    def enter(self, n: int, rbx: int, rcx: int, resume: bool) -> None:
        """EENTER or ERESUME."""
        if self.lps[n].enclave is not None or rbx % PAGE or not canonical(rcx):
            raise Refused(GP)
        # As measured: a write to the last byte; an address outside the EPC gives W and SGX, too.
        last = rbx + PAGE - 1
        target = self.walk(last, W)
        if target[0] != "epc":
            raise Refused(PF, last, 0x8007)
        tcs = self.epc[target[1]]
        if not tcs.valid or tcs.blocked or tcs.address != rbx or tcs.pt != TCS or tcs.modified:
            raise Refused(PF, last)
        assert tcs.secs is not None
        base = self.enclaves[tcs.secs].base
        ossa, oentry, fs, gs = (tcs.get(offset) for offset in (16, 32, 48, 56))
        dbgoptin, aexnotify, reserved = tcs.get(8) & 1, tcs.get(8) & 2, tcs.get(8) >> 2
        if ossa % PAGE or fs % PAGE or gs % PAGE or reserved or (aexnotify and not dbgoptin):
            raise Refused(GP)
        cssa, nssa = tcs.get(24, 4), tcs.get(28, 4)
        if (resume and cssa == 0) or (not resume and cssa >= nssa):
            raise Refused(GP)
        frame = base + ossa + PAGE * (cssa - 1 if resume else cssa)
        self.operand(frame, R)
        if not self.usable(self.operand(frame, W), tcs.secs, frame, R | W):
            raise Refused(PF, frame)
        if not all(canonical(base + offset) for offset in (oentry, fs, gs)):
            raise Refused(GP)
        if tcs.get(0):
            raise Refused(GP)
        if self.cet:
            self.save_area(tcs, base, cssa - 1 if resume else cssa)
        tcs.put(0, 8, 1)
        tcs.put(40, 8, rcx)
        tcs.put(24, 4, cssa - 1 if resume else cssa)
        self.stays += 1
        number = next(i for i, page in enumerate(self.epc) if page is tcs)
        self.lps[n] = Lp(tcs.secs, number, self.stays)

    def save_area(self, tcs: Page, base: int, index: int) -> None:
        """The page of a frame of the CET state save area, reached like a shadow stack."""
        if tcs.get(72) % 16:
            raise Refused(GP)
        address = page_of(base + tcs.get(72) + 16 * index)
        self.walk(address, SHADOW_LOAD)
        target = self.walk(address, SHADOW_STORE)
        assert tcs.secs is not None
        page = self.epc[target[1]] if target[0] == "epc" else Page()
        if page.pt != SS_REST or not self.reachable(page, tcs.secs, address, SHADOW_STORE):
            raise Refused(PF, address, 0x8047)

    def eexit(self, n: int, rbx: int) -> None:
        self.in_enclave(n)
        if not canonical(rbx):
            raise Refused(GP)
        self.leave(n)

    def aex(self, n: int) -> None:
        tcs = self.leave(n)
        tcs.put(24, 4, tcs.get(24, 4) + 1)

    def leave(self, n: int) -> Page:
        lp = self.lps[n]
        assert lp.tcs is not None
        tcs = self.epc[lp.tcs]
        tcs.put(0, 8, 0)
        self.lps[n] = Lp()
        return tcs
