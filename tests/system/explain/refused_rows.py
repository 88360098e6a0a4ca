"""How each rule of `linux.refusals` refuses, and that its advice works.

A row provokes one refusal and returns the result of the call, and a function that does what the
explanation advises: its result is at least 0 if the advice is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from softsgx.cpu import SGX1_PART
from softsgx.linux import uapi
from softsgx.spec.attributes import ATTR_MODE64BIT, ATTR_PROVISIONKEY
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_TCS, PT_TRIM, RWX, R, W, X
from softsgx.spec.paging import SECINFO
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.system import Machine, load
from tests.linux.building import BAD, Building, created, filled, initialized
from tests.linux.failing import nth
from tests.linux.world import World, signalled, world

Follow = Callable[[], Any]
Row = Callable[[], tuple[Machine, Any, Follow]]
ROWS: Final[dict[str, Row]] = {}
VM: Final = uapi.MAP_SHARED | uapi.MAP_FIXED


def row(*rules: str) -> Callable[[Row], Row]:
    def note(function: Row) -> Row:
        for rule in rules:
            assert rule not in ROWS, rule
            ROWS[rule] = function
        return function

    return note


def machine(**options: Any) -> Machine:
    given: dict[str, Any] = {"cpus": 4, "epc": "1M", "explain": True}
    return Machine(**given | options)


def running(linux: str = "6.12", **options: Any) -> World:
    layout = {name: options.pop(name) for name in ("rights", "pages") if name in options}
    return world(machine(linux=linux, **options), **layout)


def without(b: Building, body: Callable[[], Any]) -> Any:
    """Once memory is free again, or the signal is gone."""
    b.machine.kernel.inject = None
    b.host.thread.pending_signals = 0
    return body()


# All ioctls


@row("sgx_ioctl.busy")
def busy() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    b.encl.flags |= 1 << 1
    ret = b.add(0)[0]
    b.encl.flags &= ~(1 << 1)
    return b.machine, ret, lambda: b.add(0)[0]


@row("sgx_ioctl.request")
def request() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    return b.machine, b.at(0xA4FF, 0), b.create


@row("sgx_provision_fops.request")
def provision_request() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    fd = b.do(b.host.open("/dev/sgx_provision"))
    ret = b.do(b.host.ioctl(fd, uapi.SGX_IOC_ENCLAVE_CREATE, 0))
    return b.machine, ret, b.create


@row("kmalloc.memory")
def memory() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    b.machine.kernel.inject = nth("create_buffer")
    return b.machine, b.create(), lambda: without(b, b.create)


@row("copy_from_user.address")
def unreadable() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    return b.machine, b.at(uapi.SGX_IOC_ENCLAVE_CREATE, BAD), b.create


@row("copy_to_user.address")
def unwritable() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    source, secinfo = b.memory(bytes(PAGE_SIZE)), b.memory(SECINFO(FLAGS=0x203).pack())
    add = uapi.SgxEnclaveAddPages(src=source, offset=0, length=PAGE_SIZE, secinfo=secinfo)
    at = b.memory(add.pack())
    b.do(b.host.mprotect(at, PAGE_SIZE, R))
    ret = b.at(uapi.SGX_IOC_ENCLAVE_ADD_PAGES, at)
    b.do(b.host.mprotect(at, PAGE_SIZE, R | W))
    return b.machine, ret, lambda: b.add(PAGE_SIZE)[0]  # the page was added nevertheless


@row("sgx_validate_offset_length.offset")
def offset() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    return b.machine, b.add(0x1008)[0], lambda: b.add(0x1000)[0]


@row("sgx_validate_offset_length.length")
def length() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    return b.machine, b.add(0, length=0x1001)[0], lambda: b.add(0, pages=2)[0]


@row("sgx_validate_offset_length.end")
def end() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    last = b.image.size - PAGE_SIZE
    return b.machine, b.add(last, pages=2)[0], lambda: b.add(last)[0]


# EPC


@row("sgx_alloc_epc_page.full")
def full() -> tuple[Machine, Any, Follow]:
    b = Building(machine(epc="64K"))
    first = b.fd
    for _ in range(8):
        assert b.create() == 0
        b.fd = b.do(b.host.open())
    ret = b.create()

    def closed() -> int:
        b.do(b.host.close(first))
        return b.create()

    return b.machine, ret, closed


@row("sgx_alloc_epc_page.signal")
def full_and_signal() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    b.machine.run(load(b.machine.thread(b.host.process, 1), pages=8), cpu=1)
    kernel, thread = b.machine.kernel, b.host.thread

    def site(name: str) -> bool:
        if name == "sgx_alloc_epc_page":
            thread.pending_signals = 1
            return True
        return False

    kernel.inject = site
    return b.machine, b.create(), lambda: without(b, b.create)


@row("sgx_alloc_epc_page.short")
def evicted_and_short() -> tuple[Machine, Any, Follow]:
    w = running(pages=2)
    evict(w, w.enclave.data[0])
    w.do(load(w.host, pages=2))  # what the reclaimer could take
    w.kernel.inject = nth("sgx_alloc_epc_page")
    ret = w.do(w.enclave.trim(w.host, w.enclave.data[0], PAGE_SIZE))[0]
    w.kernel.inject = None
    return w.machine, ret, lambda: w.do(w.enclave.trim(w.host, w.enclave.data[0], PAGE_SIZE))[0]


def evict(w: World, address: int) -> None:
    from softsgx.linux.sgx.main import sgx_reclaim_pages

    while True:
        page = w.encl.page(address)
        if page is None or page.epc_page is None:
            return
        w.machine.run(sgx_reclaim_pages(w.machine.ksgxd), cpu=w.machine.ksgxd.cpu)


@row("sgx_encl_get_backing.memory")
def no_backing() -> tuple[Machine, Any, Follow]:
    w = running(pages=2)
    at = w.enclave.data[0]
    evict(w, at)
    w.kernel.inject = nth("sgx_encl_get_backing")
    ret = w.do(w.enclave.trim(w.host, at, PAGE_SIZE))[0]
    w.kernel.inject = None
    return w.machine, ret, lambda: w.do(w.enclave.trim(w.host, at, PAGE_SIZE))[0]


@row("__sgx_encl_load_page.reclaimed")
def held() -> tuple[Machine, Any, Follow]:
    w = running(pages=1)
    page = w.encl.page(w.enclave.data[0])
    assert page is not None
    page.being_reclaimed = True
    ret = w.do(w.enclave.trim(w.host, page.address, PAGE_SIZE))[0]
    page.being_reclaimed = False
    return w.machine, ret, lambda: w.do(w.enclave.trim(w.host, page.address, PAGE_SIZE))[0]


@row("sgx_encl_load_page.absent")
def absent() -> tuple[Machine, Any, Follow]:
    w = running()
    ret = w.do(w.enclave.restrict(w.host, w.enclave.heap, PAGE_SIZE, R))[0]

    def touched() -> int:
        w.do(w.host.load(w.enclave.heap, 1))
        assert w.call(lambda t: t.accept_new(w.enclave.heap)) == 0
        result: int = w.do(w.enclave.restrict(w.host, w.enclave.heap, PAGE_SIZE, R))[0]
        return result

    return w.machine, ret, touched


# CREATE and ADD_PAGES


@row("sgx_ioc_enclave_create.created")
def twice() -> tuple[Machine, Any, Follow]:
    b = created(machine())

    def opened() -> int:
        b.fd = b.do(b.host.open())
        return b.create()

    return b.machine, b.create(), opened


@row("sgx_encl_create.size")
def size() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    return b.machine, b.create(SIZE_=3 << 13), lambda: b.create(SIZE_=0x8000, BASEADDR=0)


@row("shmem_file_setup.size")
def huge() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    return b.machine, b.create(SIZE_=1 << 63), lambda: b.create(SIZE_=1 << 45, BASEADDR=0)


@row("sgx_encl_create.ECREATE")
def secs() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    return b.machine, b.create(XFRM=1), lambda: b.create(XFRM=3)


@row("sgx_ioc_enclave_add_pages.state")
def too_early() -> tuple[Machine, Any, Follow]:
    b = Building(machine())
    ret = b.add(0)[0]
    return b.machine, ret, lambda: b.create() or b.add(0)[0]


@row("sgx_ioc_enclave_add_pages.src")
def source() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    at = b.memory(bytes(2 * PAGE_SIZE))
    return b.machine, b.add(0, src=at + 8)[0], lambda: b.add(0, src=at)[0]


@row("sgx_ioc_enclave_add_pages.signal")
def interrupted() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    real = b.host.ioctl
    signalled(b.host)
    ret = b.add(0)[0]
    b.host.ioctl = real  # type: ignore[method-assign]
    return b.machine, ret, lambda: without(b, lambda: b.add(0)[0])


def secinfo(flags: int, good: int) -> tuple[Machine, Any, Follow]:
    b = created(machine())
    return b.machine, b.add(0, secinfo=flags)[0], lambda: b.add(0, secinfo=good)[0]


row("sgx_validate_secinfo.type")(lambda: secinfo(0x403, 0x203))
row("sgx_validate_secinfo.write")(lambda: secinfo(0x202, 0x203))
row("sgx_validate_secinfo.tcs")(lambda: secinfo(0x103, 0x100))
row("sgx_validate_secinfo.reserved")(lambda: secinfo(0x20B, 0x203))


@row("sgx_validate_secinfo.bytes")
def secinfo_bytes() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    raw = SECINFO(FLAGS=0x203).pack()
    ret = b.add(0, secinfo=raw[:9] + b"\1" + raw[10:])[0]
    return b.machine, ret, lambda: b.add(0, secinfo=raw)[0]


@row("sgx_encl_add_page.present")
def present() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    assert b.add(0)[0] == 0
    return b.machine, b.add(0)[0], lambda: b.add(PAGE_SIZE)[0]


@row("__sgx_encl_add_page.noexec")
def noexec() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    at = b.memory(bytes(PAGE_SIZE))
    vma = b.host.thread.mm.vma_lookup(at)
    assert vma is not None
    vma.may &= ~X
    return b.machine, b.add(0, src=at)[0], lambda: b.add(0)[0]


@row("get_user_pages.address")
def no_source() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    return b.machine, b.add(0, src=0)[0], lambda: b.add(0)[0]


@row("__sgx_encl_add_page.EADD")
def bad_tcs() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    page = bytearray(PAGE_SIZE)
    page[4000] = 1
    ret = b.add(0, src=b.memory(bytes(page)), secinfo=0x100)[0]
    page[4000] = 0
    return b.machine, ret, lambda: b.add(0, src=b.memory(bytes(page)), secinfo=0x100)[0]


# INIT


@row("sgx_ioc_enclave_init.state")
def init_too_early() -> tuple[Machine, Any, Follow]:
    b = Building(machine())

    def built() -> int:
        assert b.create() == 0
        b.fill()
        return b.init()

    return b.machine, b.init(), built


def signed(**fields: int) -> tuple[Machine, Any, Follow]:
    b = filled(machine())
    wrong: SIGSTRUCT = b.sigstruct().replace(**fields)
    return b.machine, b.init(wrong), b.init


row("sgx_ioc_enclave_init.vendor")(lambda: signed(VENDOR=7))
row("sgx_encl_init.signed_attributes")(lambda: signed(ATTRIBUTES=1 << 63))
row("sgx_encl_init.signed_miscselect")(lambda: signed(MISCSELECT=2))
row("sgx_encl_init.signed_xfrm")(lambda: signed(XFRM=1 << 9 | 3))
row("sgx_encl_init.EINIT")(lambda: signed(EXPONENT=5))


@row("sgx_encl_init.attributes")
def no_token() -> tuple[Machine, Any, Follow]:
    b = filled(machine(), attributes=ATTR_MODE64BIT | ATTR_PROVISIONKEY)
    ret = b.init()

    def permitted() -> int:
        assert b.provision(b.do(b.host.open("/dev/sgx_provision"))) == 0
        return b.init()

    return b.machine, ret, permitted


@row("sgx_encl_init.signal")
def disturbed() -> tuple[Machine, Any, Follow]:
    b = filled(machine())
    real = b.host.ioctl
    lp = b.machine.processor.lps[0]
    lp.pending_event = True
    signalled(b.host)
    ret = b.init()
    b.host.ioctl = real  # type: ignore[method-assign]
    lp.pending_event = False
    return b.machine, ret, lambda: without(b, b.init)


@row("sgx_set_attribute.file")
def no_file() -> tuple[Machine, Any, Follow]:
    b = created(machine())
    return b.machine, b.provision(99), lambda: b.provision(b.do(b.host.open("/dev/sgx_provision")))


# Pages of a running enclave


@row("sgx_ioc_sgx2_ready.sgx2")
def sgx1() -> tuple[Machine, Any, Follow]:
    w = running(part=SGX1_PART)
    ret = w.do(w.enclave.restrict(w.host, w.enclave.data[0], PAGE_SIZE, R))[0]
    v = running()
    return (
        w.machine,
        ret,
        lambda: v.do(v.enclave.restrict(v.host, v.enclave.data[0], PAGE_SIZE, R))[0],
    )


def restricted(b: Building, **fields: int) -> Any:
    block = uapi.SgxEnclaveRestrictPermissions(**{"offset": 0, "length": PAGE_SIZE} | fields)
    return b.ioctl(uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, block)[0]


@row("sgx_ioc_sgx2_ready.initialised")
def not_initialised() -> tuple[Machine, Any, Follow]:
    b = filled(machine())
    data = next(s.offset for s in b.image.segments if s.label == "data")
    ret = restricted(b, offset=data, permissions=R)
    return b.machine, ret, lambda: b.init() or restricted(b, offset=data, permissions=R)


def restriction(good: int, /, **fields: int) -> tuple[Machine, Any, Follow]:
    b = initialized(machine(restrict_requires_read=bool(fields.pop("v3", 0))))
    data = next(s.offset for s in b.image.segments if s.label == "data")
    ret = restricted(b, offset=data, **fields)
    return b.machine, ret, lambda: restricted(b, offset=data, permissions=good)


_RESTRICT: Final = "sgx_ioc_enclave_restrict_permissions"
row(f"{_RESTRICT}.permissions")(lambda: restriction(R, permissions=9))
row(f"{_RESTRICT}.write")(lambda: restriction(R | W, permissions=W))
row(f"{_RESTRICT}.read")(lambda: restriction(R, permissions=X, v3=1))
row(f"{_RESTRICT}.result")(lambda: restriction(R, permissions=R, count=4))


@row("sgx_enclave_restrict_permissions.type")
def restrict_tcs() -> tuple[Machine, Any, Follow]:
    b = initialized(machine())
    tcs = next(s.offset for s in b.image.segments if s.is_tcs)
    data = next(s.offset for s in b.image.segments if s.label == "data")
    ret = restricted(b, offset=tcs, permissions=R)
    return b.machine, ret, lambda: restricted(b, offset=data, permissions=R)


@row("sgx_enclave_restrict_permissions.EMODPR")
def restrict_pending() -> tuple[Machine, Any, Follow]:
    w = running()
    at = w.enclave.heap
    w.do(w.host.load(at, 1))
    ret = w.do(w.enclave.restrict(w.host, at, PAGE_SIZE, R))[0]

    def accepted() -> int:
        assert w.call(lambda t: t.accept_new(at)) == 0
        result: int = w.do(w.enclave.restrict(w.host, at, PAGE_SIZE, R))[0]
        return result

    return w.machine, ret, accepted


@row("sgx_enclave_etrack.ETRACK")
def no_track() -> tuple[Machine, Any, Follow]:
    w = running()
    w.kernel.inject = nth("ETRACK")
    at = w.enclave.data[0]
    ret = w.do(w.enclave.restrict(w.host, at, PAGE_SIZE, R))[0]
    w.kernel.inject = None
    return w.machine, ret, lambda: w.do(w.enclave.restrict(w.host, at, PAGE_SIZE, R))[0]


def modified(w: World, **fields: int) -> Any:
    at = w.enclave.data[0] - w.enclave.base
    block = uapi.SgxEnclaveModifyTypes(**{"offset": at, "length": PAGE_SIZE} | fields)
    return w.do(w.enclave.ioctl(w.host, uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES, block))[0]


def modification(**fields: int) -> tuple[Machine, Any, Follow]:
    w = running()
    return w.machine, modified(w, **fields), lambda: modified(w, page_type=PT_TRIM)


_TYPES: Final = "sgx_ioc_enclave_modify_types"
row(f"{_TYPES}.page_type")(lambda: modification(page_type=0x101))
row(f"{_TYPES}.result")(lambda: modification(page_type=PT_TRIM, result=1))
row("sgx_enclave_modify_types.page_type")(lambda: modification(page_type=PT_REG))


@row("sgx_enclave_modify_types.type")
def retrim() -> tuple[Machine, Any, Follow]:
    w = running()
    at = w.enclave.data[0]
    assert modified(w, page_type=PT_TRIM) == 0
    ret = modified(w, page_type=PT_TRIM)

    def fresh() -> int:
        assert w.call(lambda t: t.accept_trim(at)) == 0
        assert w.do(w.enclave.remove(w.host, at, PAGE_SIZE))[0] == 0
        w.do(w.host.load(at, 1))
        assert w.call(lambda t: t.accept_new(at)) == 0
        result: int = modified(w, page_type=PT_TRIM)
        return result

    return w.machine, ret, fresh


@row("sgx_enclave_modify_types.rights")
def tcs_of_ro() -> tuple[Machine, Any, Follow]:
    w = running(rights=R)
    ret = modified(w, page_type=PT_TCS)

    def touched() -> int:
        at = w.enclave.heap
        w.do(w.host.load(at, 1))
        assert w.call(lambda t: t.accept_new(at)) == 0
        result: int = modified(w, offset=at - w.enclave.base, page_type=PT_TCS)
        return result

    return w.machine, ret, touched


@row("sgx_enclave_modify_types.EMODT")
def retype_pending() -> tuple[Machine, Any, Follow]:
    w = running()
    at = w.enclave.heap
    w.do(w.host.load(at, 1))
    offset = at - w.enclave.base
    ret = modified(w, offset=offset, page_type=PT_TRIM)

    def accepted() -> int:
        assert w.call(lambda t: t.accept_new(at)) == 0
        result: int = modified(w, offset=offset, page_type=PT_TRIM)
        return result

    return w.machine, ret, accepted


@row("sgx_ioc_enclave_remove_pages.count")
def remove_count() -> tuple[Machine, Any, Follow]:
    w = running()
    at = w.enclave.data[0]
    block = uapi.SgxEnclaveRemovePages(offset=at - w.enclave.base, length=PAGE_SIZE, count=1)
    ret = w.do(w.enclave.ioctl(w.host, uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES, block))[0]
    return w.machine, ret, lambda: removed(w, at)


def removed(w: World, at: int, *, trimmed: bool = False) -> Any:
    if not trimmed:
        assert modified(w, page_type=PT_TRIM) == 0
    assert w.call(lambda t: t.accept_trim(at)) == 0
    return w.do(w.enclave.remove(w.host, at, PAGE_SIZE))[0]


@row("sgx_encl_remove_pages.type")
def remove_reg() -> tuple[Machine, Any, Follow]:
    w = running()
    at = w.enclave.data[0]
    ret = w.do(w.enclave.remove(w.host, at, PAGE_SIZE))[0]
    return w.machine, ret, lambda: removed(w, at)


@row("sgx_encl_remove_pages.EMODPR")
def remove_unaccepted() -> tuple[Machine, Any, Follow]:
    w = running()
    at = w.enclave.data[0]
    assert modified(w, page_type=PT_TRIM) == 0
    ret = w.do(w.enclave.remove(w.host, at, PAGE_SIZE))[0]
    return w.machine, ret, lambda: removed(w, at, trimmed=True)


# The series of February 2022


def v2_ioctl(w: World, cmd: int, block: type[Any], flags: int | bytes, **fields: int) -> Any:
    raw = SECINFO(FLAGS=flags).pack() if isinstance(flags, int) else flags
    operand = w.do(w.host.alloc(PAGE_SIZE))
    w.do(w.host.store(operand, raw))
    where = {"offset": w.enclave.data[0] - w.enclave.base, "length": PAGE_SIZE, "secinfo": operand}
    return w.do(w.enclave.ioctl(w.host, cmd, block(**where | fields)))[0]


def relax(w: World, flags: int | bytes = R, **fields: int) -> Any:
    cmd = uapi.V2_IOC_ENCLAVE_RELAX_PERMISSIONS
    return v2_ioctl(w, cmd, uapi.SgxEnclaveRelaxPerm, flags, **fields)


def v2_restrict(w: World, flags: int | bytes = R, **fields: int) -> Any:
    cmd = uapi.V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS
    return v2_ioctl(w, cmd, uapi.SgxEnclaveRestrictPerm, flags, **fields)


def v2_modify(w: World, flags: int | bytes = PT_TRIM << 8, **fields: int) -> Any:
    cmd = uapi.V2_IOC_ENCLAVE_MODIFY_TYPE
    return v2_ioctl(w, cmd, uapi.SgxEnclaveRestrictPerm, flags, **fields)


def v2(
    change: Callable[..., Any], *wrong: int | bytes, good: int = R, **fields: int
) -> tuple[Machine, Any, Follow]:
    v3 = bool(fields.pop("v3", 0))
    w = running("v2", rights=R | W, restrict_requires_read=v3)
    return w.machine, change(w, *wrong, **fields), lambda: change(w, good)


_SPOILT: Final = SECINFO(FLAGS=R).pack()[:20] + b"\1" + bytes(43)
_TRIM: Final = PT_TRIM << 8
row("sgx_perm_from_user_secinfo.flags")(lambda: v2(relax, 0x201))
row("sgx_perm_from_user_secinfo.bytes")(lambda: v2(relax, _SPOILT))
row("sgx_perm_from_user_secinfo.write")(lambda: v2(relax, W, good=R | W))
row("sgx_perm_from_user_secinfo.read")(lambda: v2(relax, 0, v3=1))
row("sgx_ioc_enclave_relax_perm.count")(lambda: v2(relax, R, count=1))
row("sgx_enclave_relax_perm.cap")(lambda: v2(relax, RWX, good=R | W))
row("sgx_ioc_enclave_restrict_perm.result")(lambda: v2(v2_restrict, R, result=1))
row("sgx_enclave_restrict_perm.cap")(lambda: v2(v2_restrict, RWX, good=R | W))
row("sgx_ioc_enclave_modt.flags")(lambda: v2(v2_modify, 0x403, good=_TRIM))
row("sgx_ioc_enclave_modt.bytes")(lambda: v2(v2_modify, bytes(1) + b"\4" + _SPOILT[2:], good=_TRIM))
row("sgx_ioc_enclave_modt.result")(lambda: v2(v2_modify, _TRIM, good=_TRIM, count=1))


def v2_elsewhere(
    change: Callable[..., Any], where: Callable[[World], int]
) -> tuple[Machine, Any, Follow]:
    w = running("v2", rights=R | W)
    return w.machine, change(w, R, offset=where(w) - w.enclave.base), lambda: change(w, R)


row("sgx_enclave_relax_perm.absent")(lambda: v2_elsewhere(relax, lambda w: w.enclave.heap))
row("sgx_enclave_relax_perm.type")(lambda: v2_elsewhere(relax, lambda w: w.enclave.tcs[0]))
row("sgx_enclave_restrict_perm.type")(lambda: v2_elsewhere(v2_restrict, lambda w: w.enclave.tcs[0]))


@row("sgx_enclave_restrict_perm.EMODPR")
def v2_conflict() -> tuple[Machine, Any, Follow]:
    w = running("v2", rights=R | W)
    w.kernel.inject = nth("EMODPR")
    ret = v2_restrict(w)
    w.kernel.inject = None
    return w.machine, ret, lambda: v2_restrict(w)


def taken(w: World, body: Callable[[], Any]) -> Any:
    """While the reclaimer holds the first data page but has not marked it yet."""
    page = w.encl.page(w.enclave.data[0])
    assert page is not None
    assert page.epc_page is not None
    del w.kernel.active_page_list[page.epc_page]
    ret = body()
    w.kernel.active_page_list[page.epc_page] = None
    return ret


@row("sgx_enclave_restrict_perm.reclaimed")
def v2_taken() -> tuple[Machine, Any, Follow]:
    w = running("v2", rights=R | W)
    return w.machine, taken(w, lambda: v2_restrict(w)), lambda: v2_restrict(w)


@row("sgx_enclave_modify_types.reclaimed")
def tcs_taken() -> tuple[Machine, Any, Follow]:
    w = running()
    ret = taken(w, lambda: modified(w, page_type=PT_TCS))
    return w.machine, ret, lambda: modified(w, page_type=PT_TCS)


@row("sgx_encl_remove_pages.reclaimed")
def removal_taken() -> tuple[Machine, Any, Follow]:
    w = running()
    at = w.enclave.data[0]
    assert modified(w, page_type=PT_TRIM) == 0
    assert w.call(lambda t: t.accept_trim(at)) == 0

    def remove() -> Any:
        return w.do(w.enclave.remove(w.host, at, PAGE_SIZE))[0]

    return w.machine, taken(w, remove), remove
