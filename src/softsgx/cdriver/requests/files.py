"""Files: the shmem file behind an enclave, descriptors, device nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EINVAL, ENOMEM

if TYPE_CHECKING:
    from softsgx.cdriver.call import Call
    from softsgx.cdriver.requests.handlers import Handlers
    from softsgx.sim import Steps


def _shmem_setup(call: Call, size: int, *_: int) -> int:
    if size >= 1 << 63:
        return -EINVAL
    return -ENOMEM if call.kernel.fail("shmem_file_setup") else 0


def _shmem_get(call: Call, inode: int, index: int, *_: int) -> int:
    """A page of the file, allocated when it is first looked up. The file holds one reference."""
    if call.kernel.fail("sgx_encl_get_backing"):
        return -ENOMEM
    pages = call.driver.shmem.setdefault(inode, {})
    page = pages.get(index)
    if page is None:
        page = pages[index] = call.arena.call("k_new_page", call.kernel.alloc_page(), 0)
    return page


def _shmem_punch(call: Call, inode: int, index: int, *_: int) -> int:
    """Take a page out of the file, whose reference the driver then drops; 0 if it has none."""
    return call.driver.shmem.get(inode, {}).pop(index, 0)


def _shmem_close(call: Call, inode: int, *_: int) -> int:
    """The next page of a file that goes away; 0 at the end."""
    pages = call.driver.shmem.get(inode)
    if not pages:
        call.driver.shmem.pop(inode, None)
        return 0
    return pages.pop(next(iter(pages)))


def _fget(call: Call, fd: int, *_: int) -> int:
    process = call.current.process
    assert process is not None
    file = process.fget(fd & 0xFFFF_FFFF)
    if isinstance(file, int):
        return 0
    file.get()
    return call.driver.file_address(file)


def _fput(call: Call, address: int, *_: int) -> Steps[int]:
    yield from call.driver.files[address].put(call.current)
    return 0


def _misc_register(call: Call, name: int, fops: int, *_: int) -> int:
    call.driver.nodes[f"/dev/{call.arena.text(name)}"] = fops
    return 0


def _misc_deregister(call: Call, name: int, *_: int) -> int:
    del call.driver.nodes[f"/dev/{call.arena.text(name)}"]
    return 0


HANDLERS: Final[Handlers] = {
    "SHMEM_SETUP": _shmem_setup,
    "SHMEM_GET": _shmem_get,
    "SHMEM_PUNCH": _shmem_punch,
    "SHMEM_CLOSE": _shmem_close,
    "FGET": _fget,
    "FPUT": _fput,
    "MISC_REGISTER": _misc_register,
    "MISC_DEREGISTER": _misc_deregister,
}
