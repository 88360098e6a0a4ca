"""Kernel versions: where 6.1 and the V2 series differ, and unknown names."""

from dataclasses import fields

import pytest

from softsgx.linux import uapi
from softsgx.linux.errno import EACCES, EFAULT, EINVAL, EPERM
from softsgx.linux.version import EXPLORED, VERSION_DEFAULT, VERSIONS
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_MODE64BIT
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import RWX, R, W, X
from softsgx.spec.paging import SECINFO
from softsgx.system import Machine
from tests.linux.building import BAD, created, filled
from tests.linux.world import World, world

RELAX = uapi.V2_IOC_ENCLAVE_RELAX_PERMISSIONS
RESTRICT = uapi.V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS


def v2(rights: int = R | W) -> World:
    return world(Machine(cpus=4, epc="1M", linux="v2"), rights=rights)


def secinfo(w: World, raw: bytes) -> int:
    address: int = w.do(w.host.alloc(PAGE_SIZE))
    w.do(w.host.store(address, raw))
    return address


def change(w: World, cmd: int, raw: bytes | int, **fields: int) -> tuple[int, int]:
    """RELAX or RESTRICT of the data page: errno and count."""
    raw = SECINFO(FLAGS=raw).pack() if isinstance(raw, int) else raw
    block = uapi.SgxEnclaveRelaxPerm if cmd == RELAX else uapi.SgxEnclaveRestrictPerm
    arguments = {
        "offset": w.enclave.data[0] - w.enclave.base,
        "length": PAGE_SIZE,
        "secinfo": secinfo(w, raw),
    } | fields
    ret, after = w.do(w.enclave.ioctl(w.host, cmd, block(**arguments)))
    return ret, after.count


def run_bits(w: World) -> int:
    page = w.encl.page(w.enclave.data[0])
    assert page is not None
    return page.vm_run_prot_bits


def test_unknown_version_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"linux='5\.19': known versions are 6\.18, 6\.12, 6\.1, v2"
    ):
        Machine(linux="5.19")


def test_unknown_race_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"race 'k99': known races are eaug_double_fault, .*over"):
        Machine(races={"k99": True})


@pytest.mark.parametrize(
    ("linux", "mask"), [("6.18", 0x486), ("6.12", 0x486), ("6.1", 0x086), ("v2", 0x086)]
)
def test_allowed_attributes(linux: str, mask: int) -> None:
    assert created(Machine(epc="1M", linux=linux)).encl.attributes_mask == mask


@pytest.mark.parametrize(("linux", "ret"), [("6.18", 0), ("6.12", 0), ("6.1", -EACCES)])
def test_aexnotify(linux: str, ret: int) -> None:
    machine = Machine(epc="1M", linux=linux)
    assert filled(machine, attributes=ATTR_MODE64BIT | ATTR_AEXNOTIFY).init() == ret


@pytest.mark.parametrize("cmd", [RELAX, RESTRICT])
@pytest.mark.parametrize("flags", [8, 0x200 | R, W, W | X, 1 << 63])
def test_v2_secinfo_flags_refused(cmd: int, flags: int) -> None:
    assert change(v2(), cmd, flags) == (-EINVAL, 0)


@pytest.mark.parametrize("cmd", [RELAX, RESTRICT])
def test_v2_secinfo_reserved_bytes_and_pointer(cmd: int) -> None:
    w = v2()
    assert change(w, cmd, SECINFO(FLAGS=R).pack()[:63] + b"\1") == (-EINVAL, 0)
    assert change(w, cmd, R, secinfo=BAD) == (-EFAULT, 0)
    assert change(w, cmd, R, count=1) == (-EINVAL, 1)


@pytest.mark.parametrize("rights", [0, X, R])
def test_v2_accepts_none_and_x_alone(rights: int) -> None:
    w = v2(RWX)
    assert change(w, RESTRICT, rights) == (0, PAGE_SIZE)
    assert run_bits(w) == rights


@pytest.mark.parametrize("cmd", [RELAX, RESTRICT])
def test_v2_beyond_the_cap_is_eperm(cmd: int) -> None:
    w = v2()
    assert change(w, cmd, RWX) == (-EPERM, 0)
    assert run_bits(w) == R | W


@pytest.mark.parametrize("cmd", [RELAX, RESTRICT])
def test_v2_zaps_the_pte(cmd: int) -> None:
    from softsgx.sim import Steps
    from softsgx.system import EnclaveThread

    def touch(t: EnclaveThread) -> Steps[None]:
        yield from t.store(t.args, b"x")

    w = v2()
    page = w.enclave.data[0]
    w.call(touch, page)
    assert w.mm.space.lookup(page) != 0
    assert change(w, cmd, R) == (0, PAGE_SIZE)
    assert (w.mm.space.lookup(page), run_bits(w)) == (0, R)
    # An ordinary fault, without the SGX bit: the kernel's own mirror refuses.
    vector, code, address = w.fault(touch, page)
    assert (vector, code & 0x8000, address) == (14, 0, page)


@pytest.mark.parametrize(("linux", "cap"), [("6.12", RWX), ("6.1", RWX), ("v2", R | W)])
def test_cap_of_eaug(linux: str, cap: int) -> None:
    assert Machine(epc="1M", linux=linux).kernel.version.eaug_cap == cap


def test_where_6_18_differs_from_6_12() -> None:
    """In nothing that a shipped scenario does, so `explore --shipped` leaves it out.

    None fails an allocation, advises, or moves an area: test_init.py, test_madvise.py and
    test_mremap.py have the differences. Another field here needs another look at EXPLORED.
    """
    new, old = VERSIONS["6.18"], VERSIONS["6.12"]
    assert type(new.interface) is type(old.interface)
    differ = {f.name for f in fields(new) if getattr(new, f.name) != getattr(old, f.name)}
    assert differ - {"interface"} == {
        *("name", "key_hash_allocates", "guard_advice", "mremap_checks_first")
    }
    assert tuple(name for name in VERSIONS if name != "6.18") == EXPLORED
    assert VERSION_DEFAULT == "6.12"
