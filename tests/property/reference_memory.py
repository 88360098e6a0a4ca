"""The memory of the naive processor: EPC pages, page tables, TLBs, and tracking.

Half of the model of `reference.py`, whose docstring applies here, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

SECS, TCS, REG, VA, TRIM, SS_FIRST, SS_REST = 0, 1, 2, 3, 4, 5, 6
SHADOW_STACKS = (SS_FIRST, SS_REST)
CHILDREN = (TCS, REG, TRIM, *SHADOW_STACKS)
R, W, X = 1, 2, 4
SHADOW_LOAD, SHADOW_STORE = 8, 16
SHADOW = SHADOW_LOAD | SHADOW_STORE
UD, GP, PF = 6, 13, 14
PAGE = 4096

Target = tuple[str, int]  # ("epc", number) or ("ram", number)


class Refused(Exception):
    """A fault. `code` is None where the manual leaves the page-fault error code open."""

    def __init__(self, vector: int, address: int | None = None, code: int | None = None) -> None:
        super().__init__(vector, address, code)
        self.vector, self.address, self.code = vector, address, code


@dataclass(eq=False)
class Page:
    """An EPC page and its EPCM entry."""

    valid: bool = False
    pt: int = 0
    rwx: int = 0
    secs: int | None = None
    address: int = 0
    blocked: bool = False
    pending: bool = False
    modified: bool = False
    pr: bool = False
    data: bytearray = field(default_factory=lambda: bytearray(PAGE))
    # The stays that must end before the page is tracked; None: stamped, and no ETRACK since.
    waits_for: frozenset[int] | None = frozenset()

    def get(self, offset: int, size: int = 8) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def put(self, offset: int, size: int, value: int) -> None:
        self.data[offset : offset + size] = value.to_bytes(size, "little")


@dataclass
class Enclave:
    """ELRANGE, and the stays that were inside at the last ETRACK."""

    base: int
    size: int
    followed: frozenset[int] = frozenset()

    def holds(self, address: int) -> bool:
        return self.base <= address < self.base + self.size


@dataclass
class Pte:
    """A user page: always readable; W and X as `rights` say. With CET, one that is dirty and not
    writable is a shadow stack."""

    target: Target
    rights: int
    dirty: bool = False


@dataclass
class TlbEntry:
    """What may be done through it; `clean`: a write is allowed, but walks again to set D."""

    target: Target
    rights: int
    clean: bool
    abort: bool


@dataclass
class Lp:
    """A logical processor: the EPC numbers of SECS and TCS while inside, the stay, the TLB."""

    enclave: int | None = None
    tcs: int | None = None
    stay: int = 0
    tlb: dict[int, TlbEntry] = field(default_factory=dict)


def page_of(address: int) -> int:
    return address & ~(PAGE - 1)


def access_code(need: int) -> int:
    """U, W, I and SS of the page-fault error code."""
    write = 2 if need in (W, SHADOW_STORE) else 0
    return 4 | write | (0x10 if need == X else 0) | (0x40 if need & SHADOW else 0)


def canonical(address: int) -> bool:
    return address >> 47 in (0, 0x1FFFF)


class Memory:
    """EPC, page tables of user and kernel, logical processors."""

    def __init__(self, pages: int, lps: int, *, cet: bool = False) -> None:
        self.cet = cet
        self.epc = [Page() for _ in range(pages)]
        self.lps = [Lp() for _ in range(lps)]
        self.enclaves: dict[int, Enclave] = {}  # by EPC number of the SECS
        self.ram: dict[int, bytearray] = {}
        self.pte: dict[int, Pte] = {}
        self.kernel: dict[int, int] = {}  # linear page of the kernel -> EPC number
        self.stays = 0

    # Tracking: every entry opens a stay with a number of its own.

    def inside(self, secs: int | None) -> frozenset[int]:
        return frozenset(lp.stay for lp in self.lps if lp.enclave == secs)

    def children(self, secs: int) -> Iterable[Page]:
        return [page for page in self.epc if page.valid and page.secs == secs]

    def tracked(self, page: Page) -> bool:
        return page.waits_for is not None and not page.waits_for & self.inside(page.secs)

    # Translation

    def walk(self, address: int, need: int) -> Target:
        """Walk the current page tables for user mode, without the EPCM."""
        if not canonical(address):
            raise Refused(GP)
        pte = self.pte.get(page_of(address))
        access = access_code(need)
        if pte is None:
            raise Refused(PF, address, access)
        if need & ~(pte.rights | self.shadow_rights(pte)):
            raise Refused(PF, address, access | 1)
        pte.dirty |= need == W
        return pte.target

    def fill(self, lp: Lp, address: int, need: int) -> TlbEntry:
        target = self.walk(address, need)
        pte = self.pte[page_of(address)]
        rights = pte.rights | self.shadow_rights(pte)
        entry = TlbEntry(target, rights, False, target[0] == "epc")
        if lp.enclave is not None and self.enclaves[lp.enclave].holds(address):
            if target[0] != "epc":
                raise Refused(PF, address)
            page = self.epc[target[1]]
            if not self.reachable(page, lp.enclave, address, need):
                raise Refused(PF, address, 0x8001 | access_code(need))
            entry.rights &= R | SHADOW if page.pt in SHADOW_STACKS else page.rwx
            entry.abort = False
        if entry.rights & W and not pte.dirty:
            entry.rights, entry.clean = entry.rights & ~W, True
        return entry

    def translate(self, n: int, address: int, need: int) -> TlbEntry:
        lp = self.lps[n]
        leaves = lp.enclave is not None and not self.enclaves[lp.enclave].holds(address)
        if leaves and need & (X | SHADOW):
            raise Refused(GP)
        entry = lp.tlb.get(page_of(address))
        if entry is not None and need & entry.rights:
            return entry
        # A translation that does not permit the access is dropped by the page fault: SDM 3A,
        # 4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure Caches".
        lp.tlb.pop(page_of(address), None)
        if entry is not None and not (need == W and entry.clean):
            self.fill(lp, address, need)  # raises the fault if the access is denied now, too
            raise Refused(PF, address)  # else a spurious fault, whose code is unspecified
        entry = lp.tlb[page_of(address)] = self.fill(lp, address, need)
        if leaves:
            entry.rights &= ~(X | SHADOW)
        return entry

    def contents(self, target: Target) -> bytearray:
        return self.epc[target[1]].data if target[0] == "epc" else self.ram[target[1]]

    def load(self, n: int, address: int, size: int) -> bytes:
        entry = self.translate(n, address, R)
        offset = address % PAGE
        if entry.abort:
            return b"\xff" * size
        return bytes(self.contents(entry.target)[offset : offset + size])

    def store(self, n: int, address: int, data: bytes) -> None:
        entry = self.translate(n, address, W)
        if not entry.abort:
            offset = address % PAGE
            self.contents(entry.target)[offset : offset + len(data)] = data

    def fetch(self, n: int, address: int) -> None:
        self.translate(n, address, X)

    def shadow_load(self, n: int, address: int) -> int:
        entry = self.translate(n, address, SHADOW_LOAD)
        if entry.abort:
            return (1 << 64) - 1
        offset = address % PAGE
        return int.from_bytes(self.contents(entry.target)[offset : offset + 8], "little")

    def shadow_store(self, n: int, address: int, value: int) -> None:
        entry = self.translate(n, address, SHADOW_STORE)
        if not entry.abort:
            offset = address % PAGE
            self.contents(entry.target)[offset : offset + 8] = value.to_bytes(8, "little")

    def shadow_rights(self, pte: Pte) -> int:
        return SHADOW if self.cet and pte.dirty and not pte.rights & W else 0

    def reachable(self, page: Page, secs: int, address: int, need: int) -> bool:
        """What an access from inside finds: a PT_REG page with the right, or a shadow stack, to
        which loads and shadow-stack accesses go."""
        if page.pt not in SHADOW_STACKS:
            return not need & SHADOW and self.usable(page, secs, address, need)
        as_data = replace(page, pt=REG)
        return need in (R, SHADOW_LOAD, SHADOW_STORE) and self.usable(as_data, secs, address, 0)

    # Operands

    def usable(self, page: Page, secs: int, address: int, need: int) -> bool:
        """An accepted PT_REG page of the enclave at this address, with these rights."""
        if not page.valid or page.blocked or page.pending or page.modified or page.pt != REG:
            return False
        return page.secs == secs and page.address == page_of(address) and not need & ~page.rwx

    def operand(self, address: int, need: int = R) -> Page:
        """The EPC page under an operand of ENCLU; the leaf itself checks the EPCM."""
        target = self.walk(address, need)
        if target[0] != "epc":
            raise Refused(PF, address)
        return self.epc[target[1]]
