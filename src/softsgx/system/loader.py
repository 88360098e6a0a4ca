"""The loader of enclaves in Python.

`load` does what a runtime's loader does, through the driver: reserve an aligned range, CREATE,
ADD_PAGES, INIT, mmap. Its layout: for each thread a TCS and its SSA frames, then pages of SECINFO
slots, data pages, and a hole in which EAUG adds pages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from softsgx.cpu.signature import development_key
from softsgx.image.image import ALL_CHUNKS, NO_CHUNKS, EnclaveImage, Segment
from softsgx.image.rules import size_for
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
)
from softsgx.sim import Steps
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT, MISC_EXINFO, XFRM_LEGACY
from softsgx.spec.bits import PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import REG, RWX, TCS, R, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.tcs import TCS as TCS_PAGE
from softsgx.system.host import HostThread
from softsgx.system.loaded_enclave import SLOT, Enclave, ioctl
from softsgx.system.v2_enclave import V2Enclave

_SLOTS: Final = PAGE_SIZE // SLOT


class BuildError(Exception):
    """A system call of the loader failed; the text names it and the errno."""


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
    scratch = (threads * SLOT + PAGE_MASK) & ~PAGE_MASK
    segments.append(Segment(at, scratch, REG | R | W, label="scratch"))
    at += scratch
    if pages:
        length = pages * PAGE_SIZE
        segments.append(Segment(at, length, REG | rights, chunks=NO_CHUNKS, label="data"))
        at += length
    return EnclaveImage(
        size=size_for(at + hole * PAGE_SIZE),
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
    """The kind of enclave for the ioctls of this kernel."""
    if host.thread.kernel.version.interface.has_relax:
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
    slots = sum(s.size for s in image.segments if s.label == "scratch") // SLOT or _SLOTS
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
