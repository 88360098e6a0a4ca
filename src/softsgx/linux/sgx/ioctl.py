"""The ioctls of /dev/sgx_enclave. Linux 6.12, sgx/ioctl.c.

One ioctl per enclave runs at a time: a second one gets -EBUSY. `edmm.py` has the three that change
pages of a running enclave.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import (
    EACCES,
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENOIOCTLCMD,
    ENOMEM,
    ENOTTY,
    EPERM,
    ERESTARTSYS,
)
from softsgx.linux.process import Thread
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx import main as m
from softsgx.linux.sgx.backing import shmem_file_setup
from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
from softsgx.linux.sgx.encls import encls, encls_failed, encls_faulted
from softsgx.linux.sgx.page_ioctl import sgx_validate_offset_length, write_back
from softsgx.linux.smp import preempt_disabled
from softsgx.linux.trace import refused, request_name, trace_arguments, trace_call
from softsgx.linux.uaccess import copy_from_user, pin_source_page
from softsgx.linux.uapi import (
    SGX_IOC_ENCLAVE_ADD_PAGES,
    SGX_IOC_ENCLAVE_CREATE,
    SGX_IOC_ENCLAVE_INIT,
    SGX_IOC_ENCLAVE_PROVISION,
    SGX_PAGE_MEASURE,
    SgxEnclaveAddPages,
    SgxEnclaveCreate,
    SgxEnclaveInit,
    SgxEnclaveProvision,
)
from softsgx.mem.pagetable import direct
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.attributes import (
    ATTR_AEXNOTIFY,
    ATTR_DEBUG,
    ATTR_KSS,
    ATTR_MODE64BIT,
    ATTR_PROVISIONKEY,
    XFRM_LEGACY,
)
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_TCS, RWX, R, W
from softsgx.spec.msr import CR4_OSXSAVE, IA32_SGXLEPUBKEYHASH
from softsgx.spec.paging import PAGEINFO, SECINFO
from softsgx.spec.secs import SECS
from softsgx.spec.sigstruct import SIGSTRUCT, SIGSTRUCT_VENDORS
from softsgx.spec.status import SGX_UNMASKED_EVENT

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel
    from softsgx.linux.sgx.main import SgxEpcPage

Handler = Callable[[Thread, SgxEncl, int], Steps[int]]

SGX_EINIT_SPIN_COUNT: Final = 20
SGX_EINIT_SLEEP_COUNT: Final = 50
EEXTEND_CHUNK: Final = 256

# Attribute bits that the kernel does not know.
_ATTR_RESERVED: Final = (1 << 3 | 1 << 6 | 1 << 8 | 1 << 9) | ~((1 << 11) - 1) & MASK64
_MISC_RESERVED: Final = ~1 & 0xFFFFFFFF


def sgx_ioctl(current: Thread, encl: SgxEncl, cmd: int, arg: int) -> Steps[int]:
    """Dispatch one request. -EBUSY while another one runs, even if the request is unknown."""
    steps = _sgx_ioctl(current, encl, cmd, arg)
    if not current.kernel.processor.log.on:
        return steps
    fields = (("enclave", encl.number), ("arg", arg))
    return trace_call(current, request_name(current.kernel.version, cmd), fields, steps)


def _sgx_ioctl(current: Thread, encl: SgxEncl, cmd: int, arg: int) -> Steps[int]:
    yield ("ioctl", encl.name, True)
    if encl.flags & e.SGX_ENCL_IOCTL:
        return refused(current, EBUSY, "sgx_ioctl.busy")
    encl.flags |= e.SGX_ENCL_IOCTL
    try:
        handler = handlers(current.kernel).get(cmd)
        if handler is None:
            ret = refused(current, ENOIOCTLCMD, "sgx_ioctl.request", request=cmd)
        else:
            ret = yield from handler(current, encl, arg)
    finally:
        encl.flags &= ~e.SGX_ENCL_IOCTL
    return -ENOTTY if ret == -ENOIOCTLCMD else ret


def handlers(kernel: Kernel) -> dict[int, Handler]:
    """Request number -> handler, for the interface of this kernel."""
    return {**_BUILD, **kernel.version.interface.page_ioctls(), **kernel.design.ioctls()}


# CREATE


def sgx_ioc_enclave_create(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """SGX_IOC_ENCLAVE_CREATE: ECREATE from a SECS in user memory."""
    if encl.flags & e.SGX_ENCL_CREATED:
        return refused(current, EINVAL, "sgx_ioc_enclave_create.created")
    raw = yield from copy_from_user(current, arg, SgxEnclaveCreate.SIZE)
    if raw is None:
        return -EFAULT
    if current.kernel.fail("create_buffer"):
        return refused(current, ENOMEM, "kmalloc.memory")
    create = SgxEnclaveCreate.unpack(raw)
    secs = yield from copy_from_user(current, create.src, PAGE_SIZE)
    if secs is None:
        return -EFAULT
    _trace_secs(current, create, SECS.unpack(secs))
    return (yield from sgx_encl_create(current, encl, secs))


def _trace_secs(current: Thread, create: SgxEnclaveCreate, secs: SECS) -> None:
    trace_arguments(
        current,
        create,
        base=secs.BASEADDR,
        size=secs.SIZE_,
        attributes=secs.ATTRIBUTES,
        xfrm=secs.XFRM,
        ssaframesize=secs.SSAFRAMESIZE,
        miscselect=secs.MISCSELECT,
    )


def sgx_encl_create(current: Thread, encl: SgxEncl, raw: bytes) -> Steps[int]:
    """Tests only SIZE; ECREATE tests the rest, and its faults become -EIO."""
    kernel = current.kernel
    secs = SECS.unpack(raw)
    size = secs.SIZE_
    if not size or size & (size - 1):
        return refused(current, EINVAL, "sgx_encl_create.size", size=size)
    va_page = yield from e.sgx_encl_grow(current, encl, True)
    if isinstance(va_page, int):
        return va_page
    e.sgx_encl_add_va_page(encl, va_page)
    ret = shmem_file_setup(current, size + PAGE_SIZE + (size + PAGE_SIZE) // 32)
    if ret:
        yield from e.sgx_encl_shrink(current, encl, va_page)
        return ret
    secs_epc = yield from m.sgx_alloc_epc_page(current, encl.secs, True)
    if isinstance(secs_epc, int):
        yield from e.sgx_encl_shrink(current, encl, va_page)
        return secs_epc
    encl.secs.epc_page = secs_epc
    block = kernel.get_operands()
    page = kernel.alloc_page()
    memory = kernel.processor.memory
    memory.write_page(page, raw)
    pginfo = PAGEINFO(SRCPGE=direct(page << PAGE_SHIFT), SECINFO=block.address + 64)
    memory.write(block.physical, pginfo.pack() + bytes(32) + SECINFO().pack())
    ret = yield from encls(current, leaves.ECREATE, block.address, secs_epc.address)
    kernel.free_page(page)
    kernel.put_operands(block)
    if ret:
        yield from e.sgx_encl_free_epc_page(current, secs_epc)
        encl.secs.epc_page = None
        yield from e.sgx_encl_shrink(current, encl, va_page)
        return refused(current, EIO, "sgx_encl_create.ECREATE")
    encl.base, encl.size = secs.BASEADDR, size
    encl.attributes = secs.ATTRIBUTES
    encl.attributes_mask = _allowed_attributes(kernel)
    if secs.ATTRIBUTES & ATTR_DEBUG:
        encl.flags |= e.SGX_ENCL_DEBUG
    encl.flags |= e.SGX_ENCL_CREATED
    return 0


def _allowed_attributes(kernel: Kernel) -> int:
    """SGX_ATTR_UNPRIV_MASK."""
    bits = ATTR_DEBUG | ATTR_MODE64BIT | ATTR_KSS
    return bits | (ATTR_AEXNOTIFY if kernel.version.aexnotify else 0)


# ADD_PAGES


def sgx_ioc_enclave_add_pages(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """SGX_IOC_ENCLAVE_ADD_PAGES: EADD, and EEXTEND on request; `count` is written back."""
    if not encl.flags & e.SGX_ENCL_CREATED or encl.flags & e.SGX_ENCL_INITIALIZED:
        return refused(current, EINVAL, "sgx_ioc_enclave_add_pages.state", **e.sgx_encl_state(encl))
    raw = yield from copy_from_user(current, arg, SgxEnclaveAddPages.SIZE)
    if raw is None:
        return -EFAULT
    add = SgxEnclaveAddPages.unpack(raw)
    ret = _check_add(current, encl, add)
    secinfo = None if ret else (yield from copy_from_user(current, add.secinfo, SECINFO.SIZE))
    if secinfo is None:
        trace_arguments(current, add)
        return ret or -EFAULT
    flags = SECINFO.unpack(secinfo).FLAGS
    trace_arguments(current, add, secinfo_flags=flags)
    ret = sgx_validate_secinfo(current, secinfo)
    if ret:
        return ret
    done = 0
    while done < add.length:
        if current.signal_pending():
            if not done:
                ret = refused(current, ERESTARTSYS, "sgx_ioc_enclave_add_pages.signal")
            break
        ret = yield from sgx_encl_add_page(
            current,
            encl,
            add.src + done,
            add.offset + done,
            flags,
            bool(add.flags & SGX_PAGE_MEASURE),
        )
        if ret:
            break
        done += PAGE_SIZE
    add.count = done
    return (yield from write_back(current, arg, add, ret))


def _check_add(current: Thread, encl: SgxEncl, add: SgxEnclaveAddPages) -> int:
    if add.src & PAGE_MASK:
        return refused(current, EINVAL, "sgx_ioc_enclave_add_pages.src", src=add.src)
    return sgx_validate_offset_length(current, encl, add.offset, add.length)


def sgx_validate_secinfo(current: Thread, raw: bytes) -> int:
    """What ADD_PAGES accepts: REG or TCS, no W without R, TCS without rights, the rest zero."""
    flags = SECINFO.unpack(raw).FLAGS
    page_type = flags >> 8 & 0xFF
    if page_type not in (PT_REG, PT_TCS):
        return refused(current, EINVAL, "sgx_validate_secinfo.type", page_type=page_type)
    if flags & (R | W) == W:
        return refused(current, EINVAL, "sgx_validate_secinfo.write", permissions=flags & RWX)
    if page_type == PT_TCS and flags & RWX:
        return refused(current, EINVAL, "sgx_validate_secinfo.tcs", permissions=flags & RWX)
    if flags & ~(RWX | 0xFF00):
        return refused(current, EINVAL, "sgx_validate_secinfo.reserved", flags=flags)
    if not SECINFO.reserved_clear(raw):
        return refused(current, EINVAL, "sgx_validate_secinfo.bytes")
    return 0


def sgx_encl_add_page(
    current: Thread, encl: SgxEncl, src: int, offset: int, flags: int, measure: bool
) -> Steps[int]:
    """One page: descriptor, EPC page, VA slot, then EADD and EEXTEND under the mutex."""
    kernel = current.kernel
    page_type = flags >> 8 & 0xFF
    prot = R | W if page_type == PT_TCS else flags & RWX
    if kernel.fail("sgx_encl_page_alloc"):
        return refused(current, ENOMEM, "kmalloc.memory")
    # K11: the sum wraps as in C; EADD refuses an address outside the enclave.
    encl_page = SgxEnclPage(encl, (encl.base + offset) & MASK64, prot)
    epc_page = yield from m.sgx_alloc_epc_page(current, encl_page, True)
    if isinstance(epc_page, int):
        return epc_page
    va_page = yield from e.sgx_encl_grow(current, encl, True)
    if isinstance(va_page, int):
        yield from e.sgx_encl_free_epc_page(current, epc_page)
        return va_page
    with (yield from current.mm.mmap_lock.acquire_read()), (yield from encl.lock.acquire()):
        e.sgx_encl_add_va_page(encl, va_page)
        ret = yield from _add_locked(current, encl_page, epc_page, src, flags, measure)
        if not ret:
            m.sgx_mark_page_reclaimable(kernel, epc_page)
            return 0
        yield from e.sgx_encl_shrink(current, encl, va_page)
    yield from e.sgx_encl_free_epc_page(current, epc_page)
    return ret


def _add_locked(
    current: Thread,
    encl_page: SgxEnclPage,
    epc_page: SgxEpcPage,
    src: int,
    flags: int,
    measure: bool,
) -> Steps[int]:
    """The part of sgx_encl_add_page under both locks; undone by the caller if it fails."""
    encl = encl_page.encl
    index = encl_page.address >> PAGE_SHIFT
    if index in encl.page_array:
        return refused(current, EBUSY, "sgx_encl_add_page.present", address=encl_page.address)
    if current.kernel.fail("xa_insert"):
        return refused(current, ENOMEM, "kmalloc.memory")
    encl.page_array[index] = encl_page
    ret = yield from __sgx_encl_add_page(current, encl_page, epc_page, src, flags)
    if ret:
        del encl.page_array[index]
        return ret
    encl_page.epc_page = epc_page
    encl_page.type = flags >> 8 & 0xFF
    encl.secs_child_cnt += 1
    if measure:
        ret = yield from __sgx_encl_extend(current, encl, epc_page)
        if ret:
            # The child count stays too high: the SECS leaks, with a warning at release.
            encl_page.epc_page = None
            del encl.page_array[index]
    return ret


def __sgx_encl_add_page(
    current: Thread, encl_page: SgxEnclPage, epc_page: SgxEpcPage, src: int, flags: int
) -> Steps[int]:
    """Pin the source page, EADD it."""
    kernel = current.kernel
    pfn = pin_source_page(current, src)
    if pfn < 0:
        return pfn
    secs = encl_page.encl.secs.epc_page
    assert secs is not None
    block = kernel.get_operands()
    source, secinfo = direct(pfn << PAGE_SHIFT), block.address + PAGEINFO.SIZE + 32
    pginfo = PAGEINFO.S.pack(encl_page.address, source, secinfo, secs.address)
    operands = pginfo + bytes(32) + SECINFO.S.pack(flags)
    kernel.processor.memory.write(block.physical, operands)
    ret = yield from encls(current, leaves.EADD, block.address, epc_page.address)
    kernel.put_operands(block)
    return refused(current, EIO, "__sgx_encl_add_page.EADD") if ret else 0


def __sgx_encl_extend(current: Thread, encl: SgxEncl, epc_page: SgxEpcPage) -> Steps[int]:
    """EEXTEND of the 16 chunks of a page."""
    secs = encl.secs.epc_page
    assert secs is not None
    for offset in range(0, PAGE_SIZE, EEXTEND_CHUNK):
        ret = yield from encls(current, leaves.EEXTEND, secs.address, epc_page.address + offset)
        if ret:
            if encls_failed(ret):
                current.kernel.warn(f"EEXTEND of {epc_page}: {ret:#x}")
            return refused(current, EIO, "__sgx_encl_extend.EEXTEND")
    return 0


# INIT and PROVISION


def sgx_ioc_enclave_init(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """SGX_IOC_ENCLAVE_INIT: EINIT with a SIGSTRUCT from user memory and an all-zero token."""
    kernel = current.kernel
    if not encl.flags & e.SGX_ENCL_CREATED or encl.flags & e.SGX_ENCL_INITIALIZED:
        return refused(current, EINVAL, "sgx_ioc_enclave_init.state", **e.sgx_encl_state(encl))
    raw = yield from copy_from_user(current, arg, SgxEnclaveInit.SIZE)
    if raw is None:
        return -EFAULT
    if kernel.fail("init_page"):
        return refused(current, ENOMEM, "kmalloc.memory")
    init = SgxEnclaveInit.unpack(raw)
    trace_arguments(current, init)
    sig = yield from copy_from_user(current, init.sigstruct, SIGSTRUCT.SIZE)
    if sig is None:
        return -EFAULT
    vendor = SIGSTRUCT.unpack(sig).VENDOR
    if vendor not in SIGSTRUCT_VENDORS:
        return refused(current, EINVAL, "sgx_ioc_enclave_init.vendor", vendor=vendor)
    page = kernel.alloc_page()
    kernel.processor.memory.write(page << PAGE_SHIFT, sig)
    ret = yield from sgx_encl_init(current, encl, SIGSTRUCT.unpack(sig), page)
    kernel.free_page(page)
    return ret


def sgx_encl_init(current: Thread, encl: SgxEncl, sig: SIGSTRUCT, page: int) -> Steps[int]:
    """Check the attributes, then EINIT, repeated while it returns SGX_UNMASKED_EVENT.

    `page` holds SIGSTRUCT and, in its upper half, the token, which is all zero.
    """
    kernel = current.kernel
    part, lp = kernel.processor.part, kernel.lp(current)
    excess = encl.attributes & ~encl.attributes_mask
    if excess:
        return refused(current, EACCES, "sgx_encl_init.attributes", attributes=excess)
    attributes_reserved = ~part.attributes & MASK64 | _ATTR_RESERVED
    if not kernel.version.aexnotify:
        attributes_reserved |= ATTR_AEXNOTIFY
    assert encl.secs.epc_page is not None
    given = {"secs": encl.secs.epc_page.number, "sigstruct": page << PAGE_SHIFT}
    excess = sig.ATTRIBUTES & sig.ATTRIBUTEMASK & attributes_reserved
    if excess:
        rule = "sgx_encl_init.signed_attributes"
        return refused(current, EINVAL, rule, attributes=excess, **given)
    excess = sig.MISCSELECT & sig.MISCMASK & (~part.miscselect | _MISC_RESERVED)
    if excess:
        return refused(
            current, EINVAL, "sgx_encl_init.signed_miscselect", miscselect=excess, **given
        )
    xfrm_reserved = ~(part.xfrm if lp.cr4 & CR4_OSXSAVE else XFRM_LEGACY)
    excess = sig.XFRM & sig.XFRMMASK & xfrm_reserved
    if excess:
        return refused(current, EINVAL, "sgx_encl_init.signed_xfrm", xfrm=excess, **given)
    if kernel.version.key_hash_allocates and kernel.fail("crypto_alloc_shash"):
        return refused(current, ENOMEM, "kmalloc.memory")
    signer = sha256(sig.MODULUS).digest()
    sigstruct = direct(page << PAGE_SHIFT)
    with (yield from encl.lock.acquire()):
        secs = encl.secs.epc_page
        assert secs is not None
        ret = 0
        for _sleep in range(SGX_EINIT_SLEEP_COUNT):
            for _spin in range(SGX_EINIT_SPIN_COUNT):
                rdx = sigstruct + PAGE_SIZE // 2
                # The hash MSRs are per processor: no other task may run between WRMSR and EINIT.
                with preempt_disabled(encl.lock.owner):
                    sgx_update_lepubkeyhash(current, signer)
                    ret = yield from encls(current, leaves.EINIT, sigstruct, secs.address, rdx)
                if ret != SGX_UNMASKED_EVENT:
                    break
            if ret != SGX_UNMASKED_EVENT:
                break
            yield ("sleep", encl.name, False)  # 20 ms
            if current.signal_pending():
                return refused(current, ERESTARTSYS, "sgx_encl_init.signal")
        if encls_faulted(ret):
            if encls_failed(ret):
                kernel.warn(f"EINIT: {ret:#x}")
            return refused(current, EIO, "sgx_encl_init.EINIT")
        if ret:
            return refused(current, EPERM, "sgx_encl_init.EINIT")
        encl.flags |= e.SGX_ENCL_INITIALIZED
    return 0


def sgx_update_lepubkeyhash(current: Thread, signer: bytes) -> None:
    """Write the hash of the signer into the four hash MSRs, so that any signer may launch."""
    lp = current.kernel.lp(current)
    for number, msr in enumerate(IA32_SGXLEPUBKEYHASH):
        lp.wrmsr(msr, int.from_bytes(signer[8 * number : 8 * number + 8], "little"))


def sgx_ioc_enclave_provision(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """SGX_IOC_ENCLAVE_PROVISION: a descriptor of /dev/sgx_provision permits PROVISIONKEY."""
    raw = yield from copy_from_user(current, arg, SgxEnclaveProvision.SIZE)
    if raw is None:
        return -EFAULT
    assert current.process is not None
    provision = SgxEnclaveProvision.unpack(raw)
    trace_arguments(current, provision)
    file = current.process.fget(provision.fd & 0xFFFFFFFF)
    if isinstance(file, int) or file.path != "/dev/sgx_provision":
        return refused(current, EINVAL, "sgx_set_attribute.file", fd=provision.fd & 0xFFFFFFFF)
    encl.attributes_mask |= ATTR_PROVISIONKEY
    return 0


_BUILD: Final[dict[int, Handler]] = {
    SGX_IOC_ENCLAVE_CREATE: sgx_ioc_enclave_create,
    SGX_IOC_ENCLAVE_ADD_PAGES: sgx_ioc_enclave_add_pages,
    SGX_IOC_ENCLAVE_INIT: sgx_ioc_enclave_init,
    SGX_IOC_ENCLAVE_PROVISION: sgx_ioc_enclave_provision,
}
