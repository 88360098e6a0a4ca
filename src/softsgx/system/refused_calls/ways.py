"""The way out of each refusal by a rule of the kernel's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from softsgx.linux.events import request_name
from softsgx.linux.sgx.ioctl import handlers
from softsgx.report.fields import SHORT
from softsgx.spec.attributes import ATTR_DEBUG, ATTR_MODE64BIT, ATTR_PROVISIONKEY
from softsgx.spec.bits import MASK64, PAGE_MASK, PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_TCS, PT_TRIM, RWX, R
from softsgx.system.refused_calls.asked import Asked

_AGAIN: Final = "try again: the reclaimer, or the other ioctl, is done with the page soon"
_AGAIN_LEAF: Final = "try again: another leaf is using the SECS or the page"
_CLEAR: Final = "clear result and count before each ioctl"
_MEMORY: Final = "free memory of the machine, and try again"
_SIGNAL: Final = "let the handler run, and call again; after one with SA_RESTART Linux does so"
_ZEROES: Final = "zero bytes 8 to 63 of the SECINFO"
_FRESH: Final = "close the enclave and build it anew"
_WITHIN_CAP: Final = "ask for permissions within the cap"


def _request(asked: Asked) -> str:
    known = sorted(handlers(asked.kernel).items())
    names = [request_name(asked.kernel.version, cmd).removeprefix(SHORT) for cmd, _ in known]
    return f"one of {', '.join(f'{n} {cmd:#x}' for n, (cmd, _) in zip(names, known, strict=True))}"


def _readable(asked: Asked) -> str:
    return _there(asked, "can be read")


def _writable(asked: Asked) -> str:
    return f"{_there(asked, 'can be written')}; what the ioctl has done stays done"


def _there(asked: Asked, how: str) -> str:
    at, size = asked.fields["address"], asked.fields["size"]
    return f"the {size} bytes at {at:#x} must be mapped, so that they {how}"


def _offset(asked: Asked) -> str:
    return f"offset {asked.fields['offset'] & ~PAGE_MASK:#x}, the page that contains it"


def _length(asked: Asked) -> str:
    pages = max(asked.fields["length"] + PAGE_MASK & MASK64 & ~PAGE_MASK, PAGE_SIZE)
    return f"length {pages:#x}, whole pages"


def _end(asked: Asked) -> str:
    size, offset = asked.fields["size"], asked.fields["offset"]
    if offset >= size:
        return f"offset below {size:#x}, the size of the enclave"
    return f"length {size - offset:#x} or less: the enclave ends at offset {size:#x}"


def _size(asked: Asked) -> str:
    size = asked.fields["size"]
    power = max(1 << (size - 1).bit_length() if size else 0, 2 * PAGE_SIZE)
    limit = 1 << asked.kernel.processor.part.max_size_64 - 1
    return f"SIZE {min(power, limit):#x}, and BASEADDR a multiple of it"


def _file_size(asked: Asked) -> str:
    limit = 1 << asked.kernel.processor.part.max_size_64 - 1
    return f"SIZE {limit:#x} or less, which is what ECREATE takes, too"


def _before_init(asked: Asked) -> str:
    if not asked.fields["created"]:
        return "SGX_IOC_ENCLAVE_CREATE first"
    if not asked.kernel.has_sgx2:
        return "add all pages before INIT"
    return "add it before INIT, or touch the address from inside (EAUG), and EACCEPT it"


def _init(asked: Asked) -> str:
    if not asked.fields["created"]:
        return "SGX_IOC_ENCLAVE_CREATE first"
    return "nothing is to be done: the enclave is initialised, and can be entered"


def _running(asked: Asked) -> str:
    missing = "SGX_IOC_ENCLAVE_INIT" if asked.fields["created"] else "SGX_IOC_ENCLAVE_CREATE"
    return f"{missing} first"


def _secinfo_flags(asked: Asked) -> str:
    return f"SECINFO.FLAGS {asked.fields['flags'] & (RWX | 0xFF00):#x}"


def _attributes(asked: Asked) -> str:
    excess = asked.fields["attributes"]
    token = "open /dev/sgx_provision, and SGX_IOC_ENCLAVE_PROVISION before INIT"
    if excess == ATTR_PROVISIONKEY:
        return token
    rest = f"leave the bits {excess & ~ATTR_PROVISIONKEY:#x} out of SECS.ATTRIBUTES"
    return f"{rest}; {token}" if excess & ATTR_PROVISIONKEY else rest


def _with_r(asked: Asked) -> str:
    return f"permissions with R: {asked.fields['permissions'] & RWX | R}"


def _type(asked: Asked) -> str:
    """A page of this type cannot be what is asked."""
    kind = asked.fields["page_type"]
    if kind == PT_TRIM:
        return "EACCEPT(TRIM MODIFIED) and REMOVE_PAGES; the next touch adds a fresh page (EAUG)"
    if kind == PT_TCS and asked.fields.get("new_type") == PT_TCS:
        return "nothing is to be done: the page is a TCS"
    assert kind in (PT_TCS, PT_REG), f"page type {kind}"
    return "a page of type REG: a TCS has no permissions, and can only be trimmed"


def _cap_of_tcs(asked: Asked) -> str:
    return "a page added with R and W, or by a touch (EAUG): its cap cannot be raised"


def _not_trimmed(asked: Asked) -> str:
    return "MODIFY_TYPES(PT_TRIM), and EACCEPT(TRIM MODIFIED) from inside the enclave"


def _range(asked: Asked) -> str:
    base, size = asked.fields["base"], asked.fields["size"]
    return f"an address and a length within {base:#x} to {base + size:#x}"


def _cap(asked: Asked) -> str:
    fields, version = asked.fields, asked.kernel.version
    if version.interface == "v2":
        return "RELAX_PERMISSIONS by the host first; what the page was added without stays refused"
    again = "ADD_PAGES with a SECINFO that has them"
    if fields["prot"] & ~version.eaug_cap:
        return f"to have these rights: {again}"
    return f"{again}, or EAUG (touch a hole) and accept inside"


def _production(asked: Asked) -> str:
    bits = ATTR_DEBUG | ATTR_MODE64BIT
    return f"build the enclave with ATTRIBUTES.DEBUG ({bits:#x} with MODE64BIT)"


WAYS: Final[dict[str, str | Callable[[Asked], str]]] = {
    "sgx_ioctl.busy": "wait until the other ioctl of this enclave is back, and try again",
    "sgx_ioctl.request": _request,
    "sgx_provision_fops.request": "ask a descriptor of /dev/sgx_enclave",
    "kmalloc.memory": _MEMORY,
    "copy_from_user.address": _readable,
    "copy_to_user.address": _writable,
    "sgx_validate_offset_length.offset": _offset,
    "sgx_validate_offset_length.length": _length,
    "sgx_validate_offset_length.end": _end,
    "sgx_alloc_epc_page.full": (
        "a larger --epc, or close an enclave; SECS and VA pages stay in EPC"
    ),
    "sgx_alloc_epc_page.short": "try again: ksgxd makes room; or a larger --epc",
    "sgx_alloc_epc_page.signal": _SIGNAL,
    "sgx_alloc_va_page.EPA": _FRESH,
    "sgx_encl_get_backing.memory": _MEMORY,
    "__sgx_encl_eldu.ELDU": f"{_FRESH}: the contents of the page are lost",
    "__sgx_encl_load_page.reclaimed": _AGAIN,
    "sgx_encl_load_page.absent": (
        "a page that was added: by ADD_PAGES before INIT, or by a touch from inside (EAUG)"
    ),
    "sgx_encl_load_page_in_vma.absent": (
        "a page that was added: by ADD_PAGES before INIT, or by a touch from inside (EAUG)"
    ),
    "sgx_encl_load_page_in_vma.cap": "mprotect the area to no more than the cap",
    "sgx_ioc_enclave_create.created": (
        "open /dev/sgx_enclave once more: each time it is opened it is another enclave"
    ),
    "sgx_encl_create.size": _size,
    "shmem_file_setup.size": _file_size,
    "sgx_encl_create.ECREATE": _AGAIN_LEAF,
    "sgx_ioc_enclave_add_pages.state": _before_init,
    "sgx_ioc_enclave_add_pages.src": "copy the contents to an address that is a multiple of 4096",
    "sgx_ioc_enclave_add_pages.signal": _SIGNAL,
    "sgx_validate_secinfo.type": "SECINFO.FLAGS 0x200 with R, W, X for PT_REG, or 0x100 for PT_TCS",
    "sgx_validate_secinfo.write": _with_r,
    "sgx_validate_secinfo.tcs": "SECINFO.FLAGS 0x100: the processor gives a TCS no permissions",
    "sgx_validate_secinfo.reserved": _secinfo_flags,
    "sgx_validate_secinfo.bytes": _ZEROES,
    "sgx_encl_add_page.present": "another offset: each page is added once",
    "__sgx_encl_add_page.noexec": (
        "copy the contents to memory that does not come from a noexec mount"
    ),
    "get_user_pages.address": "map readable memory at src, as long as length, outside of enclaves",
    "__sgx_encl_add_page.EADD": _AGAIN_LEAF,
    "__sgx_encl_extend.EEXTEND": _FRESH,
    "sgx_ioc_enclave_init.state": _init,
    "sgx_ioc_enclave_init.vendor": "sign again with VENDOR 0: softsgx sign --vendor 0",
    "sgx_encl_init.attributes": _attributes,
    "sgx_encl_init.signal": _SIGNAL,
    "sgx_encl_init.EINIT": _AGAIN_LEAF,
    "sgx_set_attribute.file": "open /dev/sgx_provision, and pass its descriptor",
    "sgx_ioc_sgx2_ready.sgx2": "run without --sgx1, on a processor with SGX2",
    "sgx_ioc_sgx2_ready.initialised": _running,
    "sgx_ioc_enclave_restrict_permissions.permissions": "permissions of 0 to 7: R 1, W 2, X 4",
    "sgx_ioc_enclave_restrict_permissions.write": _with_r,
    "sgx_ioc_enclave_restrict_permissions.read": _with_r,
    "sgx_ioc_enclave_restrict_permissions.result": _CLEAR,
    "sgx_enclave_restrict_permissions.type": _type,
    "sgx_enclave_restrict_permissions.EMODPR": _AGAIN,
    "sgx_enclave_etrack.ETRACK": "try again: it needs all who are inside to leave once",
    "sgx_ioc_enclave_modify_types.page_type": "page_type 1 (PT_TCS) or 4 (PT_TRIM)",
    "sgx_ioc_enclave_modify_types.result": _CLEAR,
    "sgx_enclave_modify_types.page_type": "page_type 1 (PT_TCS) or 4 (PT_TRIM)",
    "sgx_enclave_modify_types.type": _type,
    "sgx_enclave_modify_types.rights": _cap_of_tcs,
    "sgx_enclave_modify_types.reclaimed": _AGAIN,
    "sgx_enclave_modify_types.EMODT": _AGAIN,
    "sgx_ioc_enclave_remove_pages.count": "clear count before each ioctl",
    "sgx_encl_remove_pages.type": _not_trimmed,
    "sgx_encl_remove_pages.EMODPR": "EACCEPT(TRIM MODIFIED) from inside the enclave",
    "sgx_encl_remove_pages.reclaimed": _AGAIN,
    "sgx_perm_from_user_secinfo.flags": "SECINFO.FLAGS with R 1, W 2, X 4 only",
    "sgx_perm_from_user_secinfo.bytes": _ZEROES,
    "sgx_perm_from_user_secinfo.write": _with_r,
    "sgx_perm_from_user_secinfo.read": _with_r,
    "sgx_ioc_enclave_relax_perm.count": "clear count before each ioctl",
    "sgx_enclave_relax_perm.absent": "a page that was added",
    "sgx_enclave_relax_perm.type": _type,
    "sgx_enclave_relax_perm.cap": _WITHIN_CAP,
    "sgx_ioc_enclave_restrict_perm.result": _CLEAR,
    "sgx_enclave_restrict_perm.type": _type,
    "sgx_enclave_restrict_perm.cap": _WITHIN_CAP,
    "sgx_enclave_restrict_perm.reclaimed": _AGAIN,
    "sgx_enclave_restrict_perm.EMODPR": _AGAIN,
    "sgx_ioc_enclave_modt.flags": "SECINFO.FLAGS 0x100 (PT_TCS) or 0x400 (PT_TRIM)",
    "sgx_ioc_enclave_modt.bytes": _ZEROES,
    "sgx_ioc_enclave_modt.result": _CLEAR,
    "sgx_get_unmapped_area.private": "MAP_SHARED",
    "sgx_encl_may_map.range": _range,
    "sgx_encl_may_map.personality": "run the program without READ_IMPLIES_EXEC (setarch -X)",
    "sgx_encl_may_map.cap": _cap,
    "sgx_encl_mm_add.signal": "let the handler run, and call again",
    "sgx_vma_access.unregistered": "map /dev/sgx_enclave anew in that process",
    "sgx_vma_access.production": _production,
    "sgx_vma_access.EDBGRD": "a page of a debug enclave, accepted, and of type REG or TCS",
    "sgx_vma_access.EDBGWR": "a page of a debug enclave, accepted, and of type REG or TCS",
}
