"""The enclave and the set-up of the kernel's own SGX selftest, in Python.

Layout, measurement and operations are those of Linux 6.12, tools/testing/selftests/sgx. The enclave
program reads its operation from ordinary memory, as the test enclave does through RDI: 64-bit
words, the first of which is the number of the operation.
"""

from __future__ import annotations

from hashlib import sha256
from struct import unpack
from typing import Any, Final

from softsgx.cpu.signature import development_key, sign
from softsgx.linux import uapi
from softsgx.linux.errno import EINVAL
from softsgx.linux.uapi import (
    MAP_FIXED,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    SGX_PAGE_MEASURE,
    SgxEnclaveRun,
)
from softsgx.linux.vdso import UserHandler
from softsgx.sim import Steps
from softsgx.spec.bits import MASK32, PAGE_SIZE
from softsgx.spec.leaves import EENTER, EMODPE, ERESUME
from softsgx.spec.paging import SECINFO
from softsgx.spec.secs import SECS
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.structure import Structure
from softsgx.spec.tcs import TCS
from softsgx.system import EnclaveThread, Machine
from softsgx.system.host import EnclaveEntry
from softsgx.system.loaded_enclave import ioctl
from softsgx.system.loader import reserve

M1: Final = 0x1122334455667788
M2: Final = 0x8877665544332211

PUT_TO_BUFFER, GET_FROM_BUFFER, PUT_TO_ADDRESS, GET_FROM_ADDRESS = range(4)
NOP, EACCEPT_PAGE, EMODPE_PAGE, INIT_TCS = range(4, 8)

# Offsets in the enclave.
TEXT: Final = 0x2000
DATA: Final = 0x4000
SSA: Final = (0x7000, 0x8000)
STACK: Final = (0x9000, 0xA000)
HEAP: Final = 0xB000
ENTRY: Final = TEXT + 0x10
DYNAMIC_ENTRY: Final = TEXT + 0x40
D2: Final = DATA + PAGE_SIZE  # the second data page

# SECINFO.FLAGS of the segments, and what EACCEPT is given.
TCS_FLAGS: Final = 0x100
REG_FLAGS: Final = 0x200
R, W, X = 1, 2, 4
ACCEPT_NEW: Final = 0x20B
ACCEPT_RESTRICTED: Final = 0x221
ACCEPT_TCS: Final = 0x110
ACCEPT_TRIM: Final = 0x410

SIGSTRUCT_HEADER: Final = bytes.fromhex("06000000E10000000000010000000000")
SIGSTRUCT_HEADER2: Final = bytes.fromhex("01010000600000006000000001000000")


class Segment:
    """A loadable segment: offset, bytes, SECINFO.FLAGS, rights of its mapping, measured or not."""

    def __init__(self, offset: int, data: bytes, flags: int, prot: int, measure: bool) -> None:
        self.offset = offset
        self.data = data
        self.flags = flags
        self.prot = prot
        self.measure = measure


def segments(heap: int) -> list[Segment]:
    """TCS pages, text, data, and `heap` bytes that are not measured."""
    tcs = b"".join(
        TCS(OSSA=ssa, NSSA=1, OENTRY=ENTRY, FSLIMIT=MASK32, GSLIMIT=MASK32).pack() for ssa in SSA
    )
    text = bytes(range(256)) * (2 * PAGE_SIZE // 256)
    return [
        Segment(0, tcs, TCS_FLAGS, R | W, True),
        Segment(TEXT, text, REG_FLAGS | R | X, R | X, True),
        Segment(DATA, b"\x01".ljust(HEAP - DATA, b"\0"), REG_FLAGS | R | W, R | W, True),
        Segment(HEAP, bytes(heap), REG_FLAGS | R | W, R | W, False),
    ]


def measurement(size: int, parts: list[Segment]) -> bytes:
    """MRENCLAVE, from 64-byte blocks in the order of the ioctls."""
    le = int.to_bytes
    digest = sha256(b"ECREATE\0" + le(1, 4, "little") + le(size, 8, "little") + bytes(44))
    for part in parts:
        for at in range(0, len(part.data), PAGE_SIZE):
            page = part.offset + at
            flags = le(part.flags, 8, "little")
            digest.update(b"EADD\0\0\0\0" + le(page, 8, "little") + flags + bytes(40))
            if part.measure:
                for chunk in range(0, PAGE_SIZE, 256):
                    offset = le(page + chunk, 8, "little")
                    digest.update(b"EEXTEND\0" + offset + bytes(48))
                    digest.update(part.data[at + chunk : at + chunk + 256])
    return digest.digest()


def sigstruct(mrenclave: bytes) -> SIGSTRUCT:
    """All masks 0, DATE and VENDOR 0."""
    sig = SIGSTRUCT(
        HEADER=SIGSTRUCT_HEADER,
        HEADER2=SIGSTRUCT_HEADER2,
        EXPONENT=3,
        ATTRIBUTES=0x4,
        XFRM=3,
        ENCLAVEHASH=mrenclave,
    )
    return sign(sig, development_key())


# The enclave program


def words_of(block: bytes) -> tuple[int, ...]:
    """The four 64-bit words of an operation."""
    return unpack("<4Q", block)


def memcpy(t: EnclaveThread, to: int, source: int) -> Steps[None]:
    """Eight bytes, one by one."""
    for at in range(8):
        byte = yield from t.load(source + at, 1)
        yield from t.store(to + at, byte)


def operation(t: EnclaveThread) -> Steps[None]:
    """What runs inside at every EENTER."""
    raw = yield from t.load(t.args, 32)
    number, first, second, third = words_of(raw)
    if number == PUT_TO_BUFFER:
        yield from memcpy(t, _base(t) + DATA, t.args + 8)
    elif number == GET_FROM_BUFFER:
        yield from memcpy(t, t.args + 8, _base(t) + DATA)
    elif number == PUT_TO_ADDRESS:
        yield from memcpy(t, second, t.args + 8)
    elif number == GET_FROM_ADDRESS:
        yield from memcpy(t, t.args + 8, second)
    elif number == EACCEPT_PAGE:
        status = yield from t.eaccept(first, second)
        assert status is not None
        yield from t.store(t.args + 24, int(status).to_bytes(8, "little"))
    elif number == EMODPE_PAGE:
        # The page type in the flags is 0, as in the test enclave.
        yield from t.store(t.secinfo, SECINFO(FLAGS=second).pack())
        yield from t.enclu(EMODPE, t.secinfo, first)
    elif number == INIT_TCS:
        page = TCS(OSSA=second, NSSA=1, OENTRY=third, FSLIMIT=MASK32, GSLIMIT=MASK32)
        yield from t.store(first, page.pack())
    else:
        assert number == NOP


def _base(t: EnclaveThread) -> int:
    assert t.lp.secs is not None
    return t.lp.secs.BASEADDR


# The host side


class SelfTest:
    """The fixture: an enclave set up as for every case, and what the cases do with it.

    `enclave_size` is the size of SECS.SIZE, `end` the offset of the first hole. Every step of the
    set-up is asserted.
    """

    def __init__(self, *, epc: str = "1M", heap: int = PAGE_SIZE) -> None:
        self.machine = Machine(epc=epc)
        self.host = self.machine.thread()
        self.run_ = SgxEnclaveRun()
        self.parts = segments(heap)
        self.end = HEAP + heap
        self.enclave_size = PAGE_SIZE
        while self.enclave_size < self.end:
            self.enclave_size *= 2
        self.base = 0
        self.fd = self.do(self.host.open())
        assert self.fd >= 0
        self._probe_mapping(PROT_READ)
        self._probe_mapping(PROT_EXEC)
        self._build()
        self.entry = EnclaveEntry(operation, self._secinfo)
        self.op = self.do(self.host.alloc(16 * PAGE_SIZE))
        self.run_ = SgxEnclaveRun(tcs=self.base)

    def do(self, body: Steps[Any]) -> Any:
        """Run one body to its end."""
        return self.machine.run(body)

    @property
    def d2(self) -> int:
        """Address of the second data page."""
        return self.base + D2

    @property
    def hole(self) -> int:
        """Address of the first page after the segments."""
        return self.base + self.end

    def _probe_mapping(self, prot: int) -> None:
        address = self.do(self.host.mmap(0, PAGE_SIZE, prot, MAP_SHARED, self.fd))
        assert address > 0
        assert self.do(self.host.munmap(address, PAGE_SIZE)) == 0

    def _build(self) -> None:
        self.base = self.do(reserve(self.host, self.enclave_size))
        assert self.base % self.enclave_size == 0
        secs = SECS(
            SIZE_=self.enclave_size, BASEADDR=self.base, SSAFRAMESIZE=1, ATTRIBUTES=0x4, XFRM=3
        )
        create = uapi.SgxEnclaveCreate(src=self.memory(secs.pack()))
        assert self.ioctl(uapi.SGX_IOC_ENCLAVE_CREATE, create)[0] == 0
        for part in self.parts:
            add = uapi.SgxEnclaveAddPages(
                src=self.memory(part.data),
                offset=part.offset,
                length=len(part.data),
                secinfo=self.memory(SECINFO(FLAGS=part.flags).pack()),
                flags=SGX_PAGE_MEASURE if part.measure else 0,
            )
            ret, add = self.ioctl(uapi.SGX_IOC_ENCLAVE_ADD_PAGES, add)
            assert (ret, add.count) == (0, len(part.data))
        sig = sigstruct(measurement(self.enclave_size, self.parts))
        init = uapi.SgxEnclaveInit(sigstruct=self.memory(sig.pack()))
        assert self.ioctl(uapi.SGX_IOC_ENCLAVE_INIT, init)[0] == 0
        for part in self.parts:
            self.map(self.base + part.offset, len(part.data), part.prot)

    def memory(self, data: bytes) -> int:
        """Anonymous memory that holds `data`."""
        address: int = self.do(self.host.alloc(len(data)))
        self.do(self.host.store(address, data))
        return address

    def map(self, address: int, length: int, prot: int) -> None:
        """mmap of the enclave, MAP_SHARED | MAP_FIXED, which succeeds."""
        flags = MAP_SHARED | MAP_FIXED
        assert self.do(self.host.mmap(address, length, prot, flags, self.fd)) == address

    def _secinfo(self, tcs: int) -> int:
        """The operand of EACCEPT and EMODPE lies on the stack of the thread."""
        number = (tcs - self.base) // PAGE_SIZE
        return self.base + STACK[number] if number < len(STACK) else tcs - PAGE_SIZE

    # ioctls

    def ioctl(self, cmd: int, argument: Structure) -> tuple[int, Any]:
        """The result, and the argument block as the kernel left it."""
        result: tuple[int, Any] = self.do(ioctl(self.host, self.fd, cmd, argument))
        return result

    def probe(self, cmd: int, argument: type[Structure]) -> None:
        """The ioctl with an all-zero block: this platform has it."""
        assert self.ioctl(cmd, argument())[0] == -EINVAL

    def modify_types(self, offset: int, length: int, page_type: int) -> None:
        """MODIFY_TYPES; asserts that the whole range was changed."""
        modt = uapi.SgxEnclaveModifyTypes(offset=offset, length=length, page_type=page_type)
        ret, modt = self.ioctl(uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES, modt)
        assert (ret, modt.result, modt.count) == (0, 0, length)

    def remove_pages(self, offset: int, length: int) -> tuple[int, int]:
        """REMOVE_PAGES; its result and count."""
        remove = uapi.SgxEnclaveRemovePages(offset=offset, length=length)
        ret, remove = self.ioctl(uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES, remove)
        return ret, remove.count

    def restrict(self, offset: int, length: int, permissions: int) -> tuple[int, int, int]:
        """RESTRICT_PERMISSIONS; its result, SGX result and count."""
        modp = uapi.SgxEnclaveRestrictPermissions(
            offset=offset, length=length, permissions=permissions
        )
        ret, modp = self.ioctl(uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, modp)
        return ret, modp.result, modp.count

    # Entering

    def enter(
        self, *words: int, leaf: int = EENTER, handler: UserHandler | None = None
    ) -> tuple[int, ...]:
        """Call the vDSO function with this operation; R0; the words as the enclave left them.

        Each operation has a block of its own: one that was interrupted will be resumed.
        """
        block = b"".join(word.to_bytes(8, "little") for word in words).ljust(32, b"\0")
        if leaf == EENTER:
            self.op += len(block)
            self.do(self.host.store(self.op, block))
        call = self.host.enter(self.entry, self.run_, leaf, args=self.op, handler=handler)
        assert self.do(call) == 0
        raw = self.do(self.host.load(self.op, 32))
        return words_of(raw)

    def enter_on(self, tcs: int, *words: int) -> tuple[int, ...]:
        """Enter on another thread: R0, X, Z; run.tcs stays there."""
        self.run_.tcs = tcs
        words = self.enter(*words)
        self.left_by_eexit()
        return words

    def left_by_eexit(self) -> None:
        """X, Z."""
        assert self.run_.function == 4
        assert self.exception() == (0, 0, 0)

    def exception(self) -> tuple[int, int, int]:
        """Vector, error code and address of the run structure."""
        run = self.run_
        return run.exception_vector, run.exception_error_code, run.exception_addr

    def zero_exception(self) -> None:
        """As the test does by hand after each fault."""
        self.run_.exception_vector = self.run_.exception_error_code = self.run_.exception_addr = 0

    def write(self, address: int, value: int) -> None:
        """W(address, value): R0, X, Z."""
        self.enter(PUT_TO_ADDRESS, value, address)
        self.left_by_eexit()

    def read(self, address: int) -> int:
        """Rd(address): R0, X, Z; the value."""
        value = self.enter(GET_FROM_ADDRESS, 0, address)[1]
        self.left_by_eexit()
        return value

    def accept(self, address: int, flags: int) -> None:
        """EACCEPT(address, flags) = 0: R0, X, Z."""
        assert self.enter(EACCEPT_PAGE, address, flags, 0xFFFF)[3] == 0
        self.left_by_eexit()

    def resume(self) -> None:
        """ERESUME on run.tcs: 0, X, Z."""
        self.enter(leaf=ERESUME)
        self.left_by_eexit()

    def faulted(self, code: int, address: int) -> None:
        """The enclave was left by this #PF; the fields are zeroed afterwards."""
        assert self.run_.function == 3
        assert self.exception() == (14, code, address)
        self.zero_exception()

    def faults_on(self, operation: int, code: int, address: int) -> None:
        """The operation at `address` ends in this #PF: R0, function 3."""
        self.enter(operation, M2, address)
        self.faulted(code, address)

    # The end

    def tear_down(self) -> None:
        """munmap of the whole range, close: all EPC is free, and the kernel gave no warning."""
        assert self.do(self.host.munmap(self.base, self.enclave_size)) == 0
        assert self.do(self.host.close(self.fd)) == 0
        kernel = self.machine.kernel
        self.machine.settle()
        assert kernel.nr_free == self.machine.processor.epc.pages
        assert kernel.warnings == []


def total_epc(machine: Machine) -> int:
    """The sizes of all EPC sections that CPUID announces."""
    total, subleaf = 0, 2
    while True:
        eax, _ebx, ecx, edx = machine.processor.cpuid(0x12, subleaf)
        if not eax & 0xF:
            return total
        total += ecx & 0xFFFFF000 | (edx & 0xFFFFF) << 32
        subleaf += 1
