"""Kernel memory that may fail, frames of RAM in windows, copies from and to user memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.linux.errno import EFAULT
from softsgx.linux.uaccess import copy_from_user, copy_to_user, get_user_page_remote
from softsgx.mem.pagetable import direct
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from softsgx.cdriver.call import Call
    from softsgx.cdriver.driver import CDriver
    from softsgx.cdriver.requests.handlers import Handlers
    from softsgx.sim import Steps

# The function that allocates, and what the place is called where a test lets it fail.
_SITES: Final = {"sgx_ioc_enclave_create": "create_buffer", "sgx_ioc_enclave_init": "init_page"}


def _fail(call: Call, site: int, *_: int) -> int:
    name = call.arena.text(site)
    return int(call.kernel.fail(_SITES.get(name, name)))


# Windows: pages of the arena that show a frame while it is mapped


def _kmap(call: Call, page: int, pfn: int, window: int, *_: int) -> int:
    call.driver.windows[window] = pfn
    refresh(call.driver, window)
    return 0


def _kunmap(call: Call, page: int, pfn: int, window: int, *_: int) -> int:
    flush(call.driver, window)
    del call.driver.windows[window]
    return 0


def _page_free(call: Call, page: int, pfn: int, borrowed: int, *_: int) -> int:
    if not borrowed:
        call.kernel.free_page(pfn)
    return 0


def refresh(driver: CDriver, window: int) -> None:
    """Show in a window what its frame holds."""
    memory = driver.kernel.processor.memory
    driver.arena.write(window, memory.read_page(driver.windows[window]))


def flush(driver: CDriver, window: int) -> None:
    """Write back what the driver has changed in a window."""
    memory, pfn = driver.kernel.processor.memory, driver.windows[window]
    data = driver.arena.read(window, PAGE_SIZE)
    if data != memory.read_page(pfn):
        memory.write_page(pfn, data)


def window_of(driver: CDriver, address: int) -> int | None:
    """The window in which an address of the arena lies."""
    window = address & ~PAGE_MASK
    return window if window in driver.windows else None


def window_address(driver: CDriver, address: int, window: int) -> int:
    """The kernel's address of the memory that a window shows."""
    return direct(driver.windows[window] << PAGE_SHIFT) + address - window


# User memory


def _copy_from_user(call: Call, to: int, at: int, size: int, *_: int) -> Steps[int]:
    data = yield from copy_from_user(call.current, at, size)
    if data is None:
        return 1
    call.arena.write(to, data)
    return 0


def _copy_to_user(call: Call, to: int, at: int, size: int, *_: int) -> Steps[int]:
    return (yield from copy_to_user(call.current, to, call.arena.read(at, size)))


def _get_user_page(call: Call, address: int, *_: int) -> int:
    """get_user_pages of one page, mmap_lock held."""
    mm = call.current.mm
    if mm.user is not None:
        vma = mm.vma_lookup(address)
        pfn = -EFAULT if vma is not None else mm.user.source_page(address)
    else:
        pfn = get_user_page_remote(mm, address)
    if pfn < 0:
        return pfn
    return call.driver.arena.call("k_new_page", pfn, 1)


HANDLERS: Final[Handlers] = {
    "FAIL": _fail,
    "KMAP": _kmap,
    "KUNMAP": _kunmap,
    "PAGE_FREE": _page_free,
    "COPY_FROM_USER": _copy_from_user,
    "COPY_TO_USER": _copy_to_user,
    "GET_USER_PAGE": _get_user_page,
}
