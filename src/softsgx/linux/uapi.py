"""The user interface of the driver: request numbers, argument blocks, the vDSO's run structure.

Linux 6.12, arch/x86/include/uapi/asm/sgx.h; for `V2_`, the 32-patch series of February 2022.
"""

from typing import Final

from softsgx.spec.structure import Structure, raw, u16, u32, u64


class SgxEnclaveCreate(Structure, size=8):
    """struct sgx_enclave_create: address of the SECS page."""

    src: int = u64(0)


class SgxEnclaveAddPages(Structure, size=48):
    """struct sgx_enclave_add_pages: `count` is written back, in bytes."""

    src: int = u64(0)
    offset: int = u64(8)
    length: int = u64(16)
    secinfo: int = u64(24)
    flags: int = u64(32)
    count: int = u64(40)


class SgxEnclaveInit(Structure, size=8):
    """struct sgx_enclave_init: address of the SIGSTRUCT."""

    sigstruct: int = u64(0)


class SgxEnclaveProvision(Structure, size=8):
    """struct sgx_enclave_provision: a descriptor of /dev/sgx_provision."""

    fd: int = u64(0)


class SgxEnclaveRestrictPermissions(Structure, size=40):
    """struct sgx_enclave_restrict_permissions: `result` and `count` are written back."""

    offset: int = u64(0)
    length: int = u64(8)
    permissions: int = u64(16)
    result: int = u64(24)
    count: int = u64(32)


class SgxEnclaveModifyTypes(Structure, size=40):
    """struct sgx_enclave_modify_types: `result` and `count` are written back."""

    offset: int = u64(0)
    length: int = u64(8)
    page_type: int = u64(16)
    result: int = u64(24)
    count: int = u64(32)


class SgxEnclaveRemovePages(Structure, size=24):
    """struct sgx_enclave_remove_pages: `count` is written back."""

    offset: int = u64(0)
    length: int = u64(8)
    count: int = u64(16)


class SgxEnclaveRelaxPerm(Structure, size=32):
    """struct sgx_enclave_relax_perm of the V2 series: `secinfo` is an address."""

    offset: int = u64(0)
    length: int = u64(8)
    secinfo: int = u64(16)
    count: int = u64(24)


class SgxEnclaveRestrictPerm(Structure, size=40):
    """struct sgx_enclave_restrict_perm of the V2 series; its modify-type block is the same."""

    offset: int = u64(0)
    length: int = u64(8)
    secinfo: int = u64(16)
    result: int = u64(24)
    count: int = u64(32)


class SgxEnclaveRun(Structure, size=256):
    """struct sgx_enclave_run, the last argument of __vdso_sgx_enter_enclave."""

    tcs: int = u64(0)
    function: int = u32(8)
    exception_vector: int = u16(12)
    exception_error_code: int = u16(14)
    exception_addr: int = u64(16)
    user_handler: int = u64(24)
    user_data: int = u64(32)
    reserved: bytes = raw(40, 216)


_MAGIC: Final = 0xA4
_WRITE: Final = 1
_READ: Final = 2


def _io(direction: int, number: int, size: int) -> int:
    """_IOC of include/uapi/asm-generic/ioctl.h."""
    return direction << 30 | size << 16 | _MAGIC << 8 | number


SGX_IOC_ENCLAVE_CREATE: Final = _io(_WRITE, 0x00, SgxEnclaveCreate.SIZE)
SGX_IOC_ENCLAVE_ADD_PAGES: Final = _io(_READ | _WRITE, 0x01, SgxEnclaveAddPages.SIZE)
SGX_IOC_ENCLAVE_INIT: Final = _io(_WRITE, 0x02, SgxEnclaveInit.SIZE)
SGX_IOC_ENCLAVE_PROVISION: Final = _io(_WRITE, 0x03, SgxEnclaveProvision.SIZE)
SGX_IOC_VEPC_REMOVE_ALL: Final = _io(0, 0x04, 0)
SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS: Final = _io(
    _READ | _WRITE, 0x05, SgxEnclaveRestrictPermissions.SIZE
)
SGX_IOC_ENCLAVE_MODIFY_TYPES: Final = _io(_READ | _WRITE, 0x06, SgxEnclaveModifyTypes.SIZE)
SGX_IOC_ENCLAVE_REMOVE_PAGES: Final = _io(_READ | _WRITE, 0x07, SgxEnclaveRemovePages.SIZE)

V2_IOC_ENCLAVE_RELAX_PERMISSIONS: Final = _io(_READ | _WRITE, 0x05, SgxEnclaveRelaxPerm.SIZE)
V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS: Final = _io(_READ | _WRITE, 0x06, SgxEnclaveRestrictPerm.SIZE)
V2_IOC_ENCLAVE_MODIFY_TYPE: Final = _io(_READ | _WRITE, 0x07, SgxEnclaveRestrictPerm.SIZE)
V2_IOC_ENCLAVE_REMOVE_PAGES: Final = _io(_READ | _WRITE, 0x08, SgxEnclaveRemovePages.SIZE)

SGX_PAGE_MEASURE: Final = 1 << 0

# mmap and mprotect
PROT_NONE: Final = 0
PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
PROT_SEM: Final = 8
MAP_SHARED: Final = 0x01
MAP_PRIVATE: Final = 0x02
MAP_SHARED_VALIDATE: Final = 0x03
MAP_DROPPABLE: Final = 0x08
MAP_TYPE: Final = 0x0F
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_GROWSDOWN: Final = 0x100
MAP_NORESERVE: Final = 0x4000
MAP_HUGETLB: Final = 0x40000
MAP_FIXED_NOREPLACE: Final = 0x100000
# All flags that MAP_SHARED_VALIDATE lets through; MAP_FIXED_NOREPLACE is not among them.
LEGACY_MAP_MASK: Final = (
    (MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE)
    | (0x40 | MAP_GROWSDOWN | 0x800 | 0x1000 | 0x2000)  # 32BIT, DENYWRITE, EXECUTABLE, LOCKED
    | (0x8000 | 0x1_0000 | 0x2_0000 | 0x4_0000)  # POPULATE, NONBLOCK, STACK, HUGETLB
    | (21 << 26 | 30 << 26)  # HUGE_2MB, HUGE_1GB
)
MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4
