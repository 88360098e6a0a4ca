"""The host side of an enclave in Python: build it, enter it, manage its pages.

`load` does what a runtime's loader does, through the driver: reserve an aligned range, CREATE,
ADD_PAGES, INIT, mmap. Its layout: per thread a TCS and its SSA frames, one page of SECINFO slots,
data pages, then a hole that grows by EAUG.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from softsgx.cpu.signature import development_key
from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, Segment
from softsgx.image.sigstruct import sign
from softsgx.linux import uapi
from softsgx.linux.errno import errno_text
from softsgx.linux.uapi import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    SgxEnclaveRun,
)
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT, MISC_EXINFO, XFRM_LEGACY
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import PT_TCS, PT_TRIM, REG, RWX, TCS, R, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.structure import Structure
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system.enclave import EnclaveAbort, EnclaveProgram, EnclaveThread
from softsgx.system.host import EnclaveEntry, HostThread

_SLOT: Final = SECINFO.SIZE
_SLOTS: Final = PAGE_SIZE // _SLOT


class BuildError(Exception):
    """A system call of the loader failed; the text names it and the errno."""


@dataclass
class Enclave:
    """A loaded enclave, seen from its host. Addresses are linear addresses.

    `tcs` lists the TCS pages, `data` the RW data pages, `heap` the first address behind them (a
    hole). All methods are generators and take the host thread that acts; ioctls return the errno
    and the argument block as the kernel left it.
    """

    fd: int
    base: int
    size: int
    image: EnclaveImage
    scratch: int = 0
    tcs: list[int] = field(default_factory=list)
    data: list[int] = field(default_factory=list)
    heap: int = 0
    thread_type: type[EnclaveThread] = EnclaveThread

    def entry(self, program: EnclaveProgram) -> EnclaveEntry:
        """Enclave code to be entered; keep it to resume an interrupted program."""
        return EnclaveEntry(program, self.secinfo_slot, self.thread_type)

    def secinfo_slot(self, tcs: int) -> int:
        """The SECINFO operand slot of a thread, in the scratch pages: one each for those built."""
        if tcs in self.tcs:
            return self.scratch + self.tcs.index(tcs) * _SLOT
        return self.scratch + tcs // PAGE_SIZE * _SLOT % PAGE_SIZE

    def run(self, thread: int = 0) -> SgxEnclaveRun:
        """A fresh run structure for a TCS."""
        return SgxEnclaveRun(tcs=self.tcs[thread])

    def call(
        self, host: HostThread, program: EnclaveProgram, *, thread: int = 0, args: Any = None
    ) -> Steps[Any]:
        """Enter, run `program`, serve its calls out, leave; its result.

        EnclaveFault if an exception ended it that nobody repaired, EnclaveAbort if it gave up.
        """
        entry, run = self.entry(program), self.run(thread)
        while True:
            yield from host.enter(entry, run, args=args)
            if run.function != leaves.EEXIT:
                entry.abandon(run.tcs)
                raise EnclaveFault(run)
            if not (yield from entry.serve(host, run.tcs)):
                if isinstance(entry.result, EnclaveAbort):
                    raise entry.result
                return entry.result

    # ioctls

    def ioctl(self, host: HostThread, cmd: int, argument: Structure) -> Steps[tuple[int, Any]]:
        """An ioctl: the result, and the argument block read back from user memory."""
        return (yield from ioctl(host, self.fd, cmd, argument))

    def restrict(
        self, host: HostThread, address: int, length: int, rights: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveRestrictPermissions]]:
        """SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS."""
        argument = uapi.SgxEnclaveRestrictPermissions(
            offset=address - self.base, length=length, permissions=rights
        )
        return (yield from self.ioctl(host, uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, argument))

    def modify_types(
        self, host: HostThread, address: int, length: int, page_type: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveModifyTypes]]:
        """SGX_IOC_ENCLAVE_MODIFY_TYPES."""
        argument = uapi.SgxEnclaveModifyTypes(
            offset=address - self.base, length=length, page_type=page_type
        )
        return (yield from self.ioctl(host, uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES, argument))

    def trim(
        self, host: HostThread, address: int, length: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveModifyTypes]]:
        """MODIFY_TYPES to PT_TRIM."""
        return (yield from self.modify_types(host, address, length, PT_TRIM))

    def make_tcs(
        self, host: HostThread, address: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveModifyTypes]]:
        """MODIFY_TYPES of one page to PT_TCS."""
        return (yield from self.modify_types(host, address, PAGE_SIZE, PT_TCS))

    def remove(
        self, host: HostThread, address: int, length: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveRemovePages]]:
        """SGX_IOC_ENCLAVE_REMOVE_PAGES."""
        argument = uapi.SgxEnclaveRemovePages(offset=address - self.base, length=length)
        return (yield from self.ioctl(host, uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES, argument))


class EnclaveFault(Exception):
    """The enclave was left by an exception; `run` says which."""

    def __init__(self, run: SgxEnclaveRun) -> None:
        super().__init__(
            f"vector {run.exception_vector}, error code {run.exception_error_code:#x}, "
            f"address {run.exception_addr:#x}"
        )
        self.run = run


def ioctl(host: HostThread, fd: int, cmd: int, argument: Structure) -> Steps[tuple[int, Any]]:
    """An ioctl with its argument block in user memory: the result, and the block read back."""
    address = yield from host.alloc(PAGE_SIZE)
    yield from host.store(address, argument.pack())
    ret = yield from host.ioctl(fd, cmd, address)
    raw = yield from host.load(address, argument.SIZE)
    yield from host.munmap(address, PAGE_SIZE)
    return ret, type(argument).unpack(raw)


def default_image(
    *,
    pages: int = 1,
    threads: int = 1,
    nssa: int = 2,
    ssaframesize: int = 1,
    xfrm: int = XFRM_LEGACY,
    hole: int = 16,
    rights: int = R | W,
) -> EnclaveImage:
    """`threads` TCS with `nssa` SSA frames each, scratch, `pages` data pages, a hole."""
    frames = nssa * ssaframesize * PAGE_SIZE
    segments, at = [], 0
    for _ in range(threads):
        tcs = TCS_PAGE(OSSA=at + PAGE_SIZE, NSSA=nssa, OENTRY=0)
        segments.append(Segment(at, PAGE_SIZE, TCS, tcs.pack(), label="TCS"))
        segments.append(Segment(at + PAGE_SIZE, frames, REG | R | W, label="SSA"))
        at += PAGE_SIZE + frames
    scratch = (threads * _SLOT + PAGE_MASK) & ~PAGE_MASK
    segments.append(Segment(at, scratch, REG | R | W, label="scratch"))
    at += scratch
    if pages:
        length = pages * PAGE_SIZE
        segments.append(Segment(at, length, REG | rights, chunks=NO_CHUNKS, label="data"))
        at += length
    size = 2 * PAGE_SIZE
    while size < at + hole * PAGE_SIZE:
        size *= 2
    return EnclaveImage(
        size=size,
        segments=tuple(segments),
        attributes=ATTR_MODE64BIT | ATTR_DEBUG,
        miscselect=MISC_EXINFO,
        ssaframesize=ssaframesize,
        xfrm=xfrm,
    )


def load(host: HostThread, image: EnclaveImage | None = None, **layout: int) -> Steps[Enclave]:
    """Build and map an enclave as a runtime's loader does; BuildError names what failed."""
    if image is None:
        part = host.kernel.processor.part
        image = replace(default_image(**layout), miscselect=part.miscselect & MISC_EXINFO)
    fd = _checked("open", (yield from host.open()))
    try:
        base = yield from reserve(host, image.size)
        yield from build(host, fd, base, image)
    except BuildError:
        yield from host.close(fd)
        raise
    enclave = _type(host)(fd, base, image.size, image)
    for segment in image.segments:
        rights = R | W if segment.is_tcs else segment.flags & RWX
        start = base + segment.offset
        yield from _map(host, fd, start, segment.size, rights)
        if segment.label == "scratch":
            enclave.scratch = start
        elif segment.label == "data":
            enclave.data = list(range(start, base + segment.end, PAGE_SIZE))
    enclave.tcs = [base + offset for offset in image.tcs]
    enclave.heap = base + max(segment.end for segment in image.segments)
    if enclave.heap < base + image.size:
        yield from _map(host, fd, enclave.heap, base + image.size - enclave.heap, RWX)
    return enclave


def _type(host: HostThread) -> type[Enclave]:
    """The kind that speaks with this kernel."""
    if host.thread.kernel.version.interface == "v2":
        from softsgx.system.v2_enclave import V2Enclave

        return V2Enclave
    return Enclave


def reserve(host: HostThread, size: int) -> Steps[int]:
    """A naturally aligned range: reserve twice the size, keep the aligned half."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    area = _checked("mmap", (yield from host.mmap(0, 2 * size, PROT_NONE, flags)))
    base = (area + size - 1) & ~(size - 1)
    if base > area:
        yield from host.munmap(area, base - area)
    yield from host.munmap(base + size, area + size - base)
    return base


def build(host: HostThread, fd: int, base: int, image: EnclaveImage) -> Steps[None]:
    """CREATE, ADD_PAGES per segment, INIT, signed with the development key."""
    for segment in image.segments:
        if segment.chunks and set(segment.chunks) != set(ALL_CHUNKS):
            raise BuildError(
                f"segment at {segment.offset:#x}: SGX_IOC_ENCLAVE_ADD_PAGES measures all of a page "
                "or nothing"
            )
    slots = sum(s.size for s in image.segments if s.label == "scratch") // _SLOT or _SLOTS
    if len(image.tcs) > slots:
        raise BuildError(f"{len(image.tcs)} TCS: the scratch pages have {slots} SECINFO slots")
    secs = yield from _in_memory(host, image.secs(base).pack())
    create = uapi.SgxEnclaveCreate(src=secs)
    ret, _ = yield from ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_CREATE, create)
    _checked("SGX_IOC_ENCLAVE_CREATE", ret)
    for segment in image.segments:
        source = yield from _in_memory(host, segment.content, segment.size)
        secinfo = yield from _in_memory(host, SECINFO(FLAGS=segment.flags).pack())
        done = 0
        while done < segment.size:
            add = uapi.SgxEnclaveAddPages(
                src=source + done,
                offset=segment.offset + done,
                length=segment.size - done,
                secinfo=secinfo,
                flags=uapi.SGX_PAGE_MEASURE if segment.chunks else 0,
            )
            ret, add = yield from ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_ADD_PAGES, add)
            _checked("SGX_IOC_ENCLAVE_ADD_PAGES", ret)
            done += add.count
        yield from host.munmap(source, segment.size)
        yield from host.munmap(secinfo, PAGE_SIZE)
    sig = sign(image, development_key())
    address = yield from _in_memory(host, sig.pack())
    init = uapi.SgxEnclaveInit(sigstruct=address)
    ret, _ = yield from ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_INIT, init)
    _checked("SGX_IOC_ENCLAVE_INIT", ret)
    yield from host.munmap(secs, PAGE_SIZE)
    yield from host.munmap(address, PAGE_SIZE)


def _in_memory(host: HostThread, data: bytes, size: int = 0) -> Steps[int]:
    """Fresh anonymous memory of `size` bytes that begins with `data`; its address."""
    address = yield from host.alloc(size or len(data))
    for at in range(0, len(data), PAGE_SIZE):
        # Page by page: an access that faults is executed again from its start.
        yield from host.store(address + at, data[at : at + PAGE_SIZE])
    return address


def _map(host: HostThread, fd: int, start: int, length: int, rights: int) -> Steps[None]:
    ret = yield from host.mmap(start, length, rights, MAP_SHARED | MAP_FIXED, fd)
    _checked(f"mmap of {start:#x}", ret)


def _checked(what: str, ret: int) -> int:
    if ret < 0:
        raise BuildError(f"{what}: {errno_text(ret)}")
    return ret
