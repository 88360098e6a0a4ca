"""The ioctls that change pages of a running enclave. Linux 6.12, sgx/ioctl.c.

RESTRICT_PERMISSIONS, MODIFY_TYPES and REMOVE_PAGES work page by page in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from softsgx.linux.errno import EAGAIN, EBUSY, EFAULT, EINVAL, EPERM
from softsgx.linux.process import Thread
from softsgx.linux.sgx import encl as e
from softsgx.linux.sgx import main as m
from softsgx.linux.sgx.encl import SgxEncl, SgxEnclPage
from softsgx.linux.sgx.encls import (
    ENCLS_FAULT_FLAG,
    FAULT_PF,
    encls,
    encls_failed,
    encls_faulted,
)
from softsgx.linux.sgx.page_ioctl import for_each_page, sgx2_arguments, write_back
from softsgx.linux.trace import refused
from softsgx.linux.uapi import (
    SGX_IOC_ENCLAVE_MODIFY_TYPES,
    SGX_IOC_ENCLAVE_REMOVE_PAGES,
    SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    SgxEnclaveModifyTypes,
    SgxEnclaveRemovePages,
    SgxEnclaveRestrictPermissions,
)
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_SHIFT, PT_TCS, PT_TRIM, RWX, R, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT

if TYPE_CHECKING:
    from softsgx.linux.kernel import Kernel, Operands

Body = Callable[[Thread, SgxEncl, Any], Steps[int]]

_RESTRICT: Final = "sgx_ioc_enclave_restrict_permissions"


def sgx_load_for_ioctl(current: Thread, encl: SgxEncl, address: int) -> Steps[SgxEnclPage | int]:
    """The page at `address`, resident. -EAGAIN while the reclaimer holds it, else -EFAULT."""
    page = encl.page(address)
    if page is not None and page.available:
        return page
    entry = yield from e.sgx_encl_load_page(current, encl, address)
    if isinstance(entry, int):
        return -EAGAIN if entry == -EBUSY else -EFAULT
    return entry


def sgx_enclave_etrack(current: Thread, encl: SgxEncl) -> Steps[int]:
    """ETRACK, repeated after a round of IPIs if it fails, and always a round of IPIs at the end.

    The caller holds encl.lock from before the leaf that needs tracking.
    """
    secs = encl.secs.epc_page
    assert secs is not None
    if current.kernel.fail("ETRACK"):
        return refused(current, EFAULT, "sgx_enclave_etrack.ETRACK")
    ret = yield from encls(current, leaves.ETRACK, 0, secs.address)
    if ret:
        current.kernel.pr_err_once("ETRACK returned", f"{ret} ({ret:#x})")
        # The previous cycle is not complete: drive all threads out, then try again.
        yield from e.sgx_ipi_enclave_cpus(current, encl)
        ret = yield from encls(current, leaves.ETRACK, 0, secs.address)
        if ret:
            current.kernel.pr_err_once("ETRACK repeat returned", f"{ret} ({ret:#x})")
            return refused(current, EFAULT, "sgx_enclave_etrack.ETRACK")
    yield from e.sgx_ipi_enclave_cpus(current, encl)
    return 0


# RESTRICT_PERMISSIONS


def sgx_ioc_enclave_restrict_permissions(
    current: Thread, encl: SgxEncl, arg: int, body: Body | None = None
) -> Steps[int]:
    """SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS; another design passes its own `body`."""
    if body is None:
        body = sgx_enclave_restrict_permissions
    params = yield from sgx2_arguments(current, encl, arg, SgxEnclaveRestrictPermissions)
    if isinstance(params, int):
        return params
    ret = _check_restrict(current, params)
    if ret:
        return ret
    ret = yield from body(current, encl, params)
    return (yield from write_back(current, arg, params, ret))


def _check_restrict(current: Thread, params: SgxEnclaveRestrictPermissions) -> int:
    asked = params.permissions
    if asked & ~RWX:
        return refused(current, EINVAL, f"{_RESTRICT}.permissions", permissions=asked)
    if asked & (R | W) == W:
        return refused(current, EINVAL, f"{_RESTRICT}.write", permissions=asked)
    if current.kernel.version.restrict_requires_read and not asked & R:
        # the rule of the V3 and V4 series
        return refused(current, EINVAL, f"{_RESTRICT}.read", permissions=asked)
    result, count = params.result, params.count
    if result or count:
        return refused(current, EINVAL, f"{_RESTRICT}.result", result=result, count=count)
    return 0


def sgx_enclave_restrict_permissions(
    current: Thread, encl: SgxEncl, modp: SgxEnclaveRestrictPermissions
) -> Steps[int]:
    """Per page: EMODPR, ETRACK, IPIs. Touches no VMA, PTE or cap; does not roll back."""
    block = sgx_rights_operand(current.kernel, modp.permissions)
    ret, done = 0, 0
    while done < modp.length:
        yield from m.sgx_reclaim_direct(current)
        # The mutex is held from EMODPR until tracking is complete.
        with (yield from encl.lock.acquire()):
            ret = yield from sgx_restrict_one(current, encl, modp, done, block.address)
            changed = False
            if not ret:
                # L4: a failure here leaves the EPCM entry changed, yet the page is not counted.
                ret = yield from sgx_enclave_etrack(current, encl)
                changed = not ret or not current.kernel.races.etrack_failure_uncounted
        if changed:
            done += PAGE_SIZE
        if ret:
            break
    modp.count = done
    current.kernel.put_operands(block)
    return ret


def sgx_rights_operand(kernel: Kernel, rights: int) -> Operands:
    """Write a SECINFO with these rights to a block of operand memory; the caller puts it back."""
    block = kernel.get_operands()
    kernel.processor.memory.write(block.physical, SECINFO(FLAGS=rights & RWX).pack())
    return block


def sgx_restrict_one(
    current: Thread,
    encl: SgxEncl,
    modp: SgxEnclaveRestrictPermissions,
    done: int,
    secinfo: int,
) -> Steps[int]:
    """EMODPR of one page with the SECINFO at `secinfo`, mutex held; tracking is the caller's."""
    entry = yield from sgx_load_for_ioctl(current, encl, encl.base + modp.offset + done)
    if isinstance(entry, int):
        return entry
    if entry.type != PT_REG:
        rule, address = "sgx_enclave_restrict_permissions.type", encl.base + modp.offset + done
        return refused(current, EINVAL, rule, address=address, page_type=entry.type)
    assert entry.epc_page is not None
    ret = yield from sgx_encls_emodpr(current, secinfo, entry.epc_page.address)
    if encls_faulted(ret):
        vector = ret & ~ENCLS_FAULT_FLAG
        current.kernel.pr_err_once("EMODPR encountered exception", str(vector))
        return refused(current, EFAULT, "sgx_enclave_restrict_permissions.EMODPR")
    if encls_failed(ret):
        modp.result = ret
        return refused(current, EFAULT, "sgx_enclave_restrict_permissions.EMODPR")
    return 0


def sgx_encls_emodpr(current: Thread, secinfo: int, epc: int) -> Steps[int]:
    """EMODPR. A test can make it fail as if another leaf were using the page."""
    if current.kernel.fail("EMODPR"):
        return SGX_EPC_PAGE_CONFLICT
    return (yield from encls(current, leaves.EMODPR, secinfo, epc))


def sgx_emodpr(current: Thread, entry: SgxEnclPage, rights: int) -> Steps[int]:
    """EMODPR of a resident page, mutex held: the leaf's code as `encls` gives it."""
    assert entry.epc_page is not None
    block = sgx_rights_operand(current.kernel, rights)
    ret = yield from sgx_encls_emodpr(current, block.address, entry.epc_page.address)
    current.kernel.put_operands(block)
    return ret


# MODIFY_TYPES


def sgx_ioc_enclave_modify_types(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """SGX_IOC_ENCLAVE_MODIFY_TYPES."""
    params = yield from sgx2_arguments(current, encl, arg, SgxEnclaveModifyTypes)
    if isinstance(params, int):
        return params
    ret = _check_types(current, params)
    if ret:
        return ret
    ret = yield from sgx_enclave_modify_types(current, encl, params)
    return (yield from write_back(current, arg, params, ret))


def _check_types(current: Thread, params: SgxEnclaveModifyTypes) -> int:
    rule = "sgx_ioc_enclave_modify_types"
    if params.page_type & ~0xFF:
        return refused(current, EINVAL, f"{rule}.page_type", page_type=params.page_type)
    if params.result or params.count:
        return refused(current, EINVAL, f"{rule}.result", result=params.result, count=params.count)
    return 0


def sgx_enclave_modify_types(
    current: Thread, encl: SgxEncl, modt: SgxEnclaveModifyTypes
) -> Steps[int]:
    """Per page: EMODT, ETRACK, IPIs; before it, for a new TCS, the PTEs are zapped."""
    if modt.page_type not in (PT_TCS, PT_TRIM):
        asked = modt.page_type
        return refused(current, EINVAL, "sgx_enclave_modify_types.page_type", page_type=asked)

    def modify(address: int, secinfo: int) -> Steps[int]:
        return _modify_page(current, encl, modt, address, secinfo)

    return (yield from for_each_page(current, encl, modt, modt.page_type << PT_SHIFT, modify))


def _modify_page(
    current: Thread, encl: SgxEncl, modt: SgxEnclaveModifyTypes, address: int, secinfo: int
) -> Steps[int]:
    """One page. The mutex is dropped in the middle to zap PTEs; see K3."""
    guard = yield from encl.lock.acquire()
    with guard:
        entry = yield from sgx_load_for_ioctl(current, encl, address)
        if isinstance(entry, int):
            return entry
        new = modt.page_type
        if not (entry.type == PT_REG or (entry.type == PT_TCS and new == PT_TRIM)):
            asked = {"page_type": entry.type, "new_type": new}
            rule = "sgx_enclave_modify_types.type"
            return refused(current, EINVAL, rule, address=address, **asked)
        max_prot, run_prot = entry.vm_max_prot_bits, entry.vm_run_prot_bits
        to_tcs = entry.type == PT_REG and new == PT_TCS
        if to_tcs:
            if max_prot & (R | W) != R | W:
                rule = "sgx_enclave_modify_types.rights"
                return refused(current, EPERM, rule, address=address, cap=max_prot)
            entry.vm_max_prot_bits = entry.vm_run_prot_bits = R | W
            assert entry.epc_page is not None
            if m.sgx_unmark_page_reclaimable(current.kernel, entry.epc_page):
                entry.vm_max_prot_bits, entry.vm_run_prot_bits = max_prot, run_prot
                return refused(current, EAGAIN, "sgx_enclave_modify_types.reclaimed")
            entry.busy = not current.kernel.races.modify_vs_fault
        else:
            return (yield from _emodt(current, encl, entry, modt, (max_prot, run_prot), secinfo))
    # K3: with the mutex dropped a fault may map the page again, unless it is marked busy.
    yield from e.sgx_zap_enclave_ptes(current, encl, address)
    guard = yield from encl.lock.acquire()
    with guard:
        assert entry.epc_page is not None
        m.sgx_mark_page_reclaimable(current.kernel, entry.epc_page)
        ret = yield from _emodt(current, encl, entry, modt, (max_prot, run_prot), secinfo)
        entry.busy = False
    return ret


def _emodt(
    current: Thread,
    encl: SgxEncl,
    entry: SgxEnclPage,
    modt: SgxEnclaveModifyTypes,
    prots: tuple[int, int],
    secinfo: int,
) -> Steps[int]:
    """EMODT and tracking; the kernel's own record changes last (L5)."""
    assert entry.epc_page is not None
    ret = yield from encls(current, leaves.EMODT, secinfo, entry.epc_page.address)
    if ret:
        entry.vm_max_prot_bits, entry.vm_run_prot_bits = prots
        if encls_faulted(ret):
            vector = ret & ~ENCLS_FAULT_FLAG
            current.kernel.pr_err_once("EMODT encountered exception", str(vector))
        else:
            modt.result = ret
        return refused(current, EFAULT, "sgx_enclave_modify_types.EMODT")
    ret = yield from sgx_enclave_etrack(current, encl)
    if ret:
        return ret
    entry.type = modt.page_type
    return 0


# REMOVE_PAGES


def sgx_ioc_enclave_remove_pages(current: Thread, encl: SgxEncl, arg: int) -> Steps[int]:
    """SGX_IOC_ENCLAVE_REMOVE_PAGES."""
    params = yield from sgx2_arguments(current, encl, arg, SgxEnclaveRemovePages)
    if isinstance(params, int):
        return params
    ret = _check_remove(current, params)
    if ret:
        return ret
    ret = yield from sgx_encl_remove_pages(current, encl, params)
    return (yield from write_back(current, arg, params, ret))


def _check_remove(current: Thread, params: SgxEnclaveRemovePages) -> int:
    if params.count:
        return refused(current, EINVAL, "sgx_ioc_enclave_remove_pages.count", count=params.count)
    return 0


def sgx_encl_remove_pages(
    current: Thread, encl: SgxEncl, params: SgxEnclaveRemovePages
) -> Steps[int]:
    """Per page: prove that the enclave accepted PT_TRIM, zap the PTEs, EREMOVE."""

    def remove(address: int, secinfo: int) -> Steps[int]:
        return _remove_page(current, encl, address, secinfo)

    return for_each_page(current, encl, params, RWX, remove)


def _remove_page(current: Thread, encl: SgxEncl, address: int, secinfo: int) -> Steps[int]:
    """One page. The mutex is dropped in the middle to zap PTEs; see K2."""
    kernel = current.kernel
    guard = yield from encl.lock.acquire()
    with guard:
        entry = yield from sgx_load_for_ioctl(current, encl, address)
        if isinstance(entry, int):
            return entry
        if entry.type != PT_TRIM:
            rule = "sgx_encl_remove_pages.type"
            return refused(current, EPERM, rule, address=address, page_type=entry.type)
        assert entry.epc_page is not None
        # An accepted PT_TRIM page is the only one on which EMODPR raises #PF.
        ret = yield from encls(current, leaves.EMODPR, secinfo, entry.epc_page.address)
        if ret != FAULT_PF:
            return refused(current, EPERM, "sgx_encl_remove_pages.EMODPR", address=address)
        if m.sgx_unmark_page_reclaimable(kernel, entry.epc_page):
            return refused(current, EBUSY, "sgx_encl_remove_pages.reclaimed")
        entry.busy = not kernel.races.remove_vs_fault
    # K2: with the mutex dropped a fault may map the page again, unless it is marked busy.
    yield from e.sgx_zap_enclave_ptes(current, encl, address)
    guard = yield from encl.lock.acquire()
    with guard:
        assert entry.epc_page is not None
        yield from e.sgx_encl_free_epc_page(current, entry.epc_page)
        encl.secs_child_cnt -= 1
        entry.epc_page = None
        del encl.page_array[address >> PAGE_SHIFT]
        yield from e.sgx_encl_shrink(current, encl, None)
    return 0


HANDLERS: Final = {
    SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS: sgx_ioc_enclave_restrict_permissions,
    SGX_IOC_ENCLAVE_MODIFY_TYPES: sgx_ioc_enclave_modify_types,
    SGX_IOC_ENCLAVE_REMOVE_PAGES: sgx_ioc_enclave_remove_pages,
}
