"""The ioctls of the 32-patch series of February 2022 (V2), where they are not those of 6.x.

RELAX and RESTRICT take a SECINFO pointer, set the mirror of EPCM rights (`vm_run_prot_bits`), and
zap PTEs whenever it changes. Source: the series as posted; patches 06, 08, 12, 15 and 16 of 32.
"""

from __future__ import annotations

from typing import Final

from softsgx.linux.errno import EAGAIN, EBUSY, EFAULT, EINVAL, EPERM
from softsgx.linux.process import Thread
from softsgx.linux.sgx import edmm
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx import main as m
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.linux.sgx.encls import encls_faulted
from softsgx.linux.sgx.page_ioctl import for_each_page, sgx2_arguments, write_back
from softsgx.linux.trace import refused
from softsgx.linux.uaccess import copy_from_user
from softsgx.linux.uapi import (
    V2_IOC_ENCLAVE_MODIFY_TYPE,
    V2_IOC_ENCLAVE_RELAX_PERMISSIONS,
    V2_IOC_ENCLAVE_REMOVE_PAGES,
    V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    SgxEnclaveModifyTypes,
    SgxEnclaveRelaxPerm,
    SgxEnclaveRestrictPerm,
)
from softsgx.sim import Steps
from softsgx.spec.bits import MASK64, PAGE_SIZE
from softsgx.spec.epcm import PT_MASK, PT_REG, PT_SHIFT, RWX, R, W
from softsgx.spec.paging import SECINFO


def sgx_perm_from_user_secinfo(current: Thread, address: int) -> Steps[int]:
    """R, W, X of a SECINFO in user memory, or -EFAULT, -EINVAL. A page type is refused as well."""
    raw = yield from copy_from_user(current, address, SECINFO.SIZE)
    if raw is None:
        return -EFAULT
    flags = SECINFO.unpack(raw).FLAGS
    rule = "sgx_perm_from_user_secinfo"
    if flags & ~RWX:
        return refused(current, EINVAL, f"{rule}.flags", secinfo_flags=flags)
    if not SECINFO.reserved_clear(raw):
        return refused(current, EINVAL, f"{rule}.bytes")
    if flags & (R | W) == W:
        return refused(current, EINVAL, f"{rule}.write", permissions=flags)
    if current.kernel.version.restrict_requires_read and not flags & R:
        return refused(current, EINVAL, f"{rule}.read", permissions=flags)
    return flags


def sgx_ioc_enclave_relax_perm(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """RELAX_PERMISSIONS: raise the mirror and zap PTEs; the enclave extends the EPCM by EMODPE."""
    params = yield from sgx2_arguments(current, encl, arg, SgxEnclaveRelaxPerm)
    if isinstance(params, int):
        return params
    perm = yield from sgx_perm_from_user_secinfo(current, params.secinfo)
    if perm < 0:
        return perm
    if params.count:
        return refused(current, EINVAL, "sgx_ioc_enclave_relax_perm.count", count=params.count)
    ret, done = 0, 0
    while done < params.length:
        ret = yield from _relax_page(current, encl, encl.base + params.offset + done, perm)
        if ret:
            break
        done += PAGE_SIZE
    params.count = done
    return (yield from write_back(current, arg, params, ret))


def _relax_page(current: Thread, encl: SgxEncl, address: int, perm: int) -> Steps[int]:
    with (yield from encl.lock.acquire()):
        entry = encl.page(address)  # no swap-in
        rule = "sgx_enclave_relax_perm"
        if entry is None:
            return refused(current, EFAULT, f"{rule}.absent", address=address & MASK64)
        if entry.type != PT_REG:
            return refused(current, EINVAL, f"{rule}.type", address=address, page_type=entry.type)
        cap = entry.vm_max_prot_bits
        if perm & ~cap:
            return refused(current, EPERM, f"{rule}.cap", address=address, prot=perm, cap=cap)
        entry.vm_run_prot_bits = perm
    yield from e.sgx_zap_enclave_ptes(current, encl, address)
    return 0


def sgx_ioc_enclave_restrict_perm(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """RESTRICT_PERMISSIONS: lower the mirror, zap PTEs, then EMODPR and tracking."""
    params = yield from sgx2_arguments(current, encl, arg, SgxEnclaveRestrictPerm)
    if isinstance(params, int):
        return params
    perm = yield from sgx_perm_from_user_secinfo(current, params.secinfo)
    if perm < 0:
        return perm
    if params.result or params.count:
        rule = "sgx_ioc_enclave_restrict_perm.result"
        return refused(current, EINVAL, rule, result=params.result, count=params.count)

    def restrict(address: int, secinfo: int) -> Steps[int]:
        return _restrict_page(current, encl, params, address, perm, secinfo)

    ret = yield from for_each_page(current, encl, params, perm, restrict)
    return (yield from write_back(current, arg, params, ret))


def _restrict_page(
    current: Thread,
    encl: SgxEncl,
    params: SgxEnclaveRestrictPerm,
    address: int,
    perm: int,
    secinfo: int,
) -> Steps[int]:
    """One page. The mirror has the new rights while the mutex is dropped: see L1 and L2."""
    guard = yield from encl.lock.acquire()
    with guard:
        entry = yield from e.sgx_encl_load_page(current, encl, address)
        if isinstance(entry, int):
            return -EAGAIN if entry == -EBUSY else -EFAULT
        rule, cap = "sgx_enclave_restrict_perm", entry.vm_max_prot_bits
        if entry.type != PT_REG:
            return refused(current, EINVAL, f"{rule}.type", address=address, page_type=entry.type)
        if perm & ~cap:
            return refused(current, EPERM, f"{rule}.cap", address=address, prot=perm, cap=cap)
        assert entry.epc_page is not None
        if m.sgx_unmark_page_reclaimable(current.kernel, entry.epc_page):
            return refused(current, EAGAIN, f"{rule}.reclaimed")
        run_prot_restore = entry.vm_run_prot_bits
        entry.vm_run_prot_bits = perm
    yield from e.sgx_zap_enclave_ptes(current, encl, address)
    guard = yield from encl.lock.acquire()
    with guard:
        ret = yield from edmm.sgx_encls_emodpr(current, secinfo, entry.epc_page.address)
        if ret:
            entry.vm_run_prot_bits = run_prot_restore
            if not encls_faulted(ret):
                params.result = ret
            m.sgx_mark_page_reclaimable(current.kernel, entry.epc_page)
            return refused(current, EFAULT, f"{rule}.EMODPR")
        ret = yield from edmm.sgx_enclave_etrack(current, encl)
        m.sgx_mark_page_reclaimable(current.kernel, entry.epc_page)
    return ret


def sgx_ioc_enclave_modt(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """MODIFY_TYPE: the type comes in a SECINFO whose other bits must be zero."""
    params = yield from sgx2_arguments(current, encl, arg, SgxEnclaveRestrictPerm)
    if isinstance(params, int):
        return params
    raw = yield from copy_from_user(current, params.secinfo, SECINFO.SIZE)
    if raw is None:
        return -EFAULT
    flags = SECINFO.unpack(raw).FLAGS
    rule = "sgx_ioc_enclave_modt"
    if flags & ~PT_MASK:
        return refused(current, EINVAL, f"{rule}.flags", secinfo_flags=flags)
    if not SECINFO.reserved_clear(raw):
        return refused(current, EINVAL, f"{rule}.bytes")
    if params.result or params.count:
        result, count = params.result, params.count
        return refused(current, EINVAL, f"{rule}.result", result=result, count=count)
    types = SgxEnclaveModifyTypes(
        offset=params.offset, length=params.length, page_type=flags >> PT_SHIFT
    )
    ret = yield from edmm.sgx_enclave_modify_types(current, encl, types)
    params.result, params.count = types.result, types.count
    return (yield from write_back(current, arg, params, ret))


HANDLERS: Final = {
    V2_IOC_ENCLAVE_RELAX_PERMISSIONS: sgx_ioc_enclave_relax_perm,
    V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS: sgx_ioc_enclave_restrict_perm,
    V2_IOC_ENCLAVE_MODIFY_TYPE: sgx_ioc_enclave_modt,
    V2_IOC_ENCLAVE_REMOVE_PAGES: edmm.sgx_ioc_enclave_remove_pages,
}
