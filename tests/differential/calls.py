"""Operations: descriptors, and the seven ioctls with good and bad arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from softsgx.linux import syscalls, uapi
from softsgx.linux.sgx.encl import SGX_ENCL_CREATED, SGX_ENCL_INITIALIZED
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_SECS, PT_TCS, PT_TRIM, PT_VA, REG, TCS, R, W, X
from tests.differential.world import (
    ABSENT,
    ARGUMENT,
    CONST,
    NOTHING,
    SECRET,
    SIZE,
    SOURCE,
    SOURCE_PAGES,
    USER,
    get,
    image,
    put,
    secinfo,
    secs,
    sigstruct,
)

if TYPE_CHECKING:
    from softsgx.sim import Steps
    from softsgx.spec.structure import Structure
    from softsgx.system import HostThread
    from tests.differential.stage import Place, Slot, Stage

_FDS_MAX: Final = 8
_LOADING_MAX: Final = 100
_HUGE: Final = (1 << 64) - PAGE_SIZE
_KERNEL: Final = 0xFFFF_8880_0000_1000
# Where an argument block lies: across two pages, where it cannot be written back, nowhere, ...
_PLACES: Final = (ARGUMENT + PAGE_SIZE - 8, CONST, NOTHING, ABSENT, 8, _KERNEL)


def host_of(slot: Slot) -> HostThread:
    """The thread of a slot, which has one."""
    assert slot.host is not None
    return slot.host


def flags_of(place: Place) -> int:
    """SGX_ENCL_* of an enclave whose file is open, else 0."""
    if place.file is None or not place.file.count:
        return 0
    encl: Any = place.file.encl
    flags: int = encl.flags
    return flags


# Descriptors


def _open(stage: Stage, slot: Slot, e: int) -> Steps[Any]:
    """open(2); the enclave takes the place with this number if that is free."""
    host, place = host_of(slot), stage.places[e]
    if len(host.process.files) >= _FDS_MAX:
        return "too many"
    fd = yield from host.open()
    if fd >= 0:
        file = host.process.files[fd]
        stage.files.append(file)
        if place.file is None or not place.file.count:
            for entry in place.entries.values():
                for tcs in list(entry.stacks):
                    entry.abandon(tcs)
            place.file, place.added = file, 0
            place.entries, place.busy = {}, set()
    return fd


def _open_provision(_stage: Stage, slot: Slot, _e: int) -> Steps[Any]:
    host = host_of(slot)
    if len(host.process.files) >= _FDS_MAX:
        return "too many"
    return (yield from host.open(syscalls.SGX_PROVISION))


def _dup(stage: Stage, slot: Slot, e: int) -> Steps[Any]:
    host = host_of(slot)
    if len(host.process.files) >= _FDS_MAX:
        return "too many"
    return (yield from syscalls.sys_dup(host.thread, stage.fd(host, stage.places[e])))


def _close(stage: Stage, slot: Slot, e: int, v: int) -> Steps[Any]:
    """close(2) of the enclave's descriptor, or of any."""
    host = host_of(slot)
    fd = 3 + v % 5 if v & 32 else stage.fd(host, stage.places[e])
    return host.close(fd)


def _pass_fd(stage: Stage, slot: Slot, e: int, v: int) -> Steps[Any]:
    """SCM_RIGHTS: the open file in another process."""
    others = [h for h in stage.hosts() if h.process is not host_of(slot).process]
    file = stage.places[e].file
    if not others or file is None or not file.count:
        return "nobody"
    process = others[v % len(others)].process
    if len(process.files) >= _FDS_MAX:
        return "too many"
    file.get()
    return process.install_fd(file)
    yield


# Ioctls


def ioctl(
    stage: Stage, slot: Slot, place: Place, cmd: int, argument: Structure, where: int = 0
) -> Steps[Any]:
    """An ioctl: what it returned, and the argument block as it is afterwards.

    `where` spoils the address of the block: 0 does not, 7 is a page of the enclave.
    """
    host = host_of(slot)
    at = (ARGUMENT + slot.cpu * 256, *_PLACES, place.base + 7 * PAGE_SIZE)[where]
    data, mm, there = argument.pack(), host.thread.mm, at in range(USER, NOTHING)
    if there:
        put(mm, at, data)
    ret = yield from host.ioctl(stage.fd(host, place), cmd, at)
    return ret, get(mm, at, len(data)) if there else b""


def _create(stage: Stage, slot: Slot, e: int, spoil: int) -> Steps[Any]:
    place, host = stage.places[e], host_of(slot)
    data = bytearray(secs(e, place.big))
    if spoil in _SECS_SPOILT:
        at, value = _SECS_SPOILT[spoil]
        data[at : at + 8] = value.to_bytes(8, "little")
    put(host.thread.mm, SECRET, bytes(data))
    argument = uapi.SgxEnclaveCreate(
        src=(SECRET, 8, NOTHING, SECRET + 1)[spoil % 4 if spoil > 11 else 0]
    )
    return ioctl(stage, slot, place, uapi.SGX_IOC_ENCLAVE_CREATE, argument, _where(spoil, 8, 11))


# What is wrong with a SECS: offset, and the 8 bytes there.
_SECS_SPOILT: Final = {
    1: (0, 0),
    2: (0, SIZE + PAGE_SIZE),
    3: (8, 0x1000),  # the base is not aligned
    4: (48, 0x4 | 1 << 4),  # PROVISIONKEY
    5: (48, 0x4 | 1 << 10),  # AEX-notify
    6: (0, 1 << 63),
    7: (16, 0),  # SSAFRAMESIZE
}


def _where(spoil: int, first: int, last: int) -> int:
    """The spoilt address of a block for some numbers of `spoil`: 0 for all others."""
    return 1 + (spoil - first) * 2 % 7 if first <= spoil <= last else 0


def _add_segment(
    stage: Stage, slot: Slot, place: Place, offset: int, length: int, flags: int, measured: bool
) -> Steps[Any]:
    host = host_of(slot)
    content = b""
    for segment in image(place.big).segments:
        if segment.offset <= offset < segment.end:
            content = segment.data()[offset - segment.offset :][:length]
    put(host.thread.mm, SOURCE, content.ljust(length, b"\0"))
    put(host.thread.mm, SECRET, secinfo(flags))
    argument = uapi.SgxEnclaveAddPages(
        src=SOURCE, offset=offset, length=length, secinfo=SECRET, flags=int(measured)
    )
    request = uapi.SGX_IOC_ENCLAVE_ADD_PAGES
    ret, block = yield from ioctl(stage, slot, place, request, argument)
    done = uapi.SgxEnclaveAddPages.unpack(block).count
    if done:
        place.added = offset + done
    return ret, block


def _build(stage: Stage, slot: Slot, e: int, spoil: int) -> Steps[Any]:
    """The next ioctl of a loader."""
    place = stage.places[e]
    if not flags_of(place) & SGX_ENCL_CREATED:
        return (yield from _create(stage, slot, e, spoil))
    for segment in image(place.big).segments:
        if segment.end > place.added:
            at = max(segment.offset, place.added)
            length = min(segment.end - at, SOURCE_PAGES * PAGE_SIZE)
            measured = bool(segment.chunks)
            flags = segment.flags if spoil != 1 else segment.flags ^ R
            return (yield from _add_segment(stage, slot, place, at, length, flags, measured))
    return (yield from _init(stage, slot, e, spoil))


def load(stage: Stage, slot: Slot, e: int, v: int) -> Steps[Any]:
    """All that a loader does from where the enclave stands, up to the first error; then mmap.

    Now and then only a part of it.
    """
    found = []
    place = stage.places[e]
    for _ in range(_LOADING_MAX if v % 4 < 3 else 1 + v // 4 % 8):
        if flags_of(place) & SGX_ENCL_INITIALIZED:
            break
        ret, _block = yield from _build(stage, slot, e, 0)
        found.append(ret)
        if ret:
            return found
    if flags_of(place) & SGX_ENCL_INITIALIZED:
        from tests.differential.mappings import map_all

        found.append((yield from map_all(stage, slot, e, v)))
    return found


_SECINFO_FLAGS: Final = (
    *(REG | R | W, REG | R | W | X, REG | R, REG | X, REG, REG | W, TCS, TCS | R, PT_VA << 8),
    *(PT_SECS << 8 | R, PT_TRIM << 8, REG | R | 1 << 3, REG | R | 1 << 16, REG | R | 1 << 5),
)


def _add(stage: Stage, slot: Slot, e: int, page: int, count: int, spoil: int) -> Steps[Any]:
    """ADD_PAGES of any pages, with arguments that the loader would not pass."""
    place, host = stage.places[e], host_of(slot)
    length = min(count, SOURCE_PAGES) * PAGE_SIZE
    flags = _SECINFO_FLAGS[(page + spoil) % len(_SECINFO_FLAGS)]
    put(host.thread.mm, SECRET, secinfo(flags) if spoil != 15 else b"\xff" * 64)
    argument = uapi.SgxEnclaveAddPages(
        src=SOURCE, offset=page * PAGE_SIZE, length=length, secinfo=SECRET, flags=spoil & 1
    )
    if 0 < spoil < 13:
        setattr(argument, *_ADD_SPOILT[spoil - 1])
        if spoil == 1:
            argument.src = place.base + page * PAGE_SIZE
    where = _where(spoil, 13, 14)
    return ioctl(stage, slot, place, uapi.SGX_IOC_ENCLAVE_ADD_PAGES, argument, where)


# Of each, what is wrong; the first is a page of the enclave itself.
_ADD_SPOILT: Final = (
    *(("src", 0), ("src", ABSENT), ("src", NOTHING), ("src", SOURCE + 8)),
    *(("offset", 8), ("offset", SIZE), ("offset", _HUGE), ("length", 0), ("length", _HUGE)),
    *(("secinfo", 8), ("flags", 0xFFFF_FFFE), ("count", 77)),
)


def _init(stage: Stage, slot: Slot, e: int, spoil: int) -> Steps[Any]:
    place, host = stage.places[e], host_of(slot)
    data = bytearray(sigstruct(place.big))
    if 0 < spoil <= len(_SIGSTRUCT_SPOILT):
        for at in _SIGSTRUCT_SPOILT[spoil - 1]:
            data[at] ^= 0x80
    put(host.thread.mm, SECRET, bytes(data))
    argument = uapi.SgxEnclaveInit(sigstruct=SECRET if spoil != 11 else NOTHING)
    return ioctl(stage, slot, place, uapi.SGX_IOC_ENCLAVE_INIT, argument, _where(spoil, 12, 15))


# Bytes of a SIGSTRUCT that are changed: vendor, modulus, signature; MISCSELECT, ATTRIBUTES, XFRM,
# each with its mask and without; MRENCLAVE.
_SIGSTRUCT_SPOILT: Final = (
    *((16,), (128,), (600,), (903, 907), (935, 951), (943, 959), (903,), (935,), (943,), (960,)),
)


def _provision(stage: Stage, slot: Slot, e: int, v: int) -> Steps[Any]:
    host = host_of(slot)
    fds = [*sorted(host.process.files), 77, -1 & 0xFFFF_FFFF, 1 << 32 | 3]
    argument = uapi.SgxEnclaveProvision(fd=fds[v % len(fds)])
    where = 4 if v > 60 else 0
    request = uapi.SGX_IOC_ENCLAVE_PROVISION
    return ioctl(stage, slot, stage.places[e], request, argument, where)


def _unknown(stage: Stage, slot: Slot, e: int, v: int) -> Steps[Any]:
    """An ioctl that the driver does not know: another number, type, size or direction."""
    known = uapi.SGX_IOC_ENCLAVE_CREATE
    cmd = (0x1234, known ^ 1 << 31, known + 8, known ^ 0x100, known + (1 << 16), 0)[v % 6]
    host = host_of(slot)
    return host.ioctl(stage.fd(host, stage.places[e]), cmd, ARGUMENT)


# Pages of a running enclave


def _range(page: int, count: int, spoil: int) -> tuple[int, int]:
    """Offset and length, spoilt or not."""
    offset, length = page * PAGE_SIZE, count * PAGE_SIZE
    return (
        (offset, length),
        (offset + 8, length),
        (offset, length + 8),
        (offset, 0),
        (offset, _HUGE),
        (_HUGE, length),
        (offset, SIZE - offset),
        (SIZE - PAGE_SIZE, length),
    )[spoil if spoil < 8 else 0]


def restrict(
    stage: Stage, slot: Slot, e: int, page: int, count: int, v: int, spoil: int
) -> Steps[Any]:
    """RESTRICT_PERMISSIONS."""
    offset, length = _range(page, count, spoil)
    rights = v % 8 if v < 48 else R
    argument = uapi.SgxEnclaveRestrictPermissions(offset=offset, length=length, permissions=rights)
    if spoil in (8, 9, 10):
        setattr(argument, *(("permissions", 8 + v), ("result", 1), ("count", 4096))[spoil - 8])
    request = uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS
    return ioctl(
        stage, slot, stage.known(host_of(slot), e), request, argument, _where(spoil, 11, 15)
    )


_TYPES: Final = (PT_TRIM, PT_TRIM, PT_TRIM, PT_TCS, PT_TCS, PT_REG, PT_SECS, PT_VA)


def modify(
    stage: Stage, slot: Slot, e: int, page: int, count: int, v: int, spoil: int
) -> Steps[Any]:
    """MODIFY_TYPES."""
    offset, length = _range(page, count, spoil)
    kind = _TYPES[v % len(_TYPES)]
    argument = uapi.SgxEnclaveModifyTypes(offset=offset, length=length, page_type=kind)
    if spoil in (8, 9, 10):
        setattr(argument, *(("page_type", 0x104), ("result", 1), ("count", 1))[spoil - 8])
    request = uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES
    return ioctl(
        stage, slot, stage.known(host_of(slot), e), request, argument, _where(spoil, 11, 15)
    )


def remove(stage: Stage, slot: Slot, e: int, page: int, count: int, spoil: int) -> Steps[Any]:
    """REMOVE_PAGES."""
    offset, length = _range(page, count, spoil)
    argument = uapi.SgxEnclaveRemovePages(offset=offset, length=length, count=int(spoil == 8))
    request = uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES
    return ioctl(
        stage, slot, stage.known(host_of(slot), e), request, argument, _where(spoil, 9, 15)
    )


OPERATIONS: Final[dict[str, Any]] = {
    "open": _open,
    "open_provision": _open_provision,
    "dup": _dup,
    "close": _close,
    "pass_fd": _pass_fd,
    "load": load,
    "build": _build,
    "create": _create,
    "add": _add,
    "init": _init,
    "provision": _provision,
    "unknown": _unknown,
    "restrict": restrict,
    "modify": modify,
    "remove": remove,
}
