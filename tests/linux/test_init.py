"""SGX_IOC_ENCLAVE_INIT: its checks in order, and what it returns for each result of EINIT."""

from hashlib import sha256

import pytest

from softsgx.cpu import LogicalProcessor
from softsgx.linux import uapi
from softsgx.linux.errno import EACCES, EFAULT, EINVAL, EIO, ENOMEM, EPERM
from softsgx.linux.sgx.encl import SGX_ENCL_CREATED, SGX_ENCL_INITIALIZED
from softsgx.spec.attributes import ATTR_EINITTOKENKEY, ATTR_KSS, ATTR_MODE64BIT, ATTR_PROVISIONKEY
from softsgx.spec.bits import MASK64
from softsgx.spec.leaves import EINIT
from softsgx.spec.msr import CR4_OSXSAVE
from softsgx.spec.status import SGX_UNMASKED_EVENT
from softsgx.system import Machine
from tests.linux.building import BAD, Building, created, filled, initialized
from tests.linux.failing import failing

INIT = uapi.SGX_IOC_ENCLAVE_INIT


def init_with(b: Building, **fields: int) -> int:
    """INIT; the SIGSTRUCT is changed after signing, so EINIT itself must refuse it."""
    sig = b.sigstruct()
    for name, value in fields.items():
        setattr(sig, name, value)
    return b.init(sig)


def test_state() -> None:
    assert Building().at(INIT, BAD) == -EINVAL
    assert initialized().at(INIT, BAD) == -EINVAL
    assert created().at(INIT, BAD) == -EFAULT


def test_init_sets_initialized_and_created_stays() -> None:
    b = initialized()
    both = SGX_ENCL_CREATED | SGX_ENCL_INITIALIZED
    assert b.encl.flags & both == both


def test_sigstruct_must_be_readable() -> None:
    assert filled().ioctl(INIT, uapi.SgxEnclaveInit(sigstruct=BAD))[0] == -EFAULT


def test_no_memory_for_the_operands() -> None:
    b = filled()
    b.machine.kernel.inject = lambda site: site == "init_page"
    assert b.init() == -ENOMEM
    b.machine.kernel.inject = None
    assert b.init() == 0


@pytest.mark.parametrize(("linux", "ret"), [("6.12", -ENOMEM), ("6.1", -ENOMEM), ("6.18", 0)])
def test_no_memory_for_the_hash_of_the_key(linux: str, ret: int) -> None:
    """Linux 6.18 hashes without an allocation: sgx/ioctl.c, sgx_encl_init."""
    b = filled(Machine(cpus=2, epc="1M", linux=linux))
    b.machine.kernel.inject = lambda site: site == "crypto_alloc_shash"
    assert b.init() == ret
    b.machine.kernel.inject = None
    if ret:
        assert not b.encl.flags & SGX_ENCL_INITIALIZED
        assert b.init() == 0


@pytest.mark.parametrize(("vendor", "errno"), [(1, EINVAL), (0x8087, EINVAL), (0x8086, EPERM)])
def test_vendor(vendor: int, errno: int) -> None:
    # 0x8086 is let through; the signature does not cover it.
    assert init_with(filled(), VENDOR=vendor) == -errno


@pytest.mark.parametrize("attribute", [ATTR_PROVISIONKEY, ATTR_EINITTOKENKEY])
def test_attributes_outside_the_mask(attribute: int) -> None:
    b = filled(attributes=ATTR_MODE64BIT | attribute)
    # The mask is tested before SIGSTRUCT, but after the vendor.
    assert init_with(b, ATTRIBUTES=1 << 3, ATTRIBUTEMASK=MASK64) == -EACCES
    assert init_with(b, VENDOR=1) == -EINVAL


def test_kss_is_allowed() -> None:
    assert filled(attributes=ATTR_MODE64BIT | ATTR_KSS).init() == 0


@pytest.mark.parametrize(
    ("name", "bit"),
    [("ATTRIBUTES", bit) for bit in (3, 6, 8, 9, 11, 63)]
    + [("MISCSELECT", bit) for bit in (1, 31)]
    + [("XFRM", bit) for bit in (10, 63)],
)
def test_reserved_bits_of_sigstruct_count_under_their_mask(name: str, bit: int) -> None:
    mask = {"ATTRIBUTES": "ATTRIBUTEMASK", "MISCSELECT": "MISCMASK", "XFRM": "XFRMMASK"}[name]
    b = filled()
    assert init_with(b, **{name: 1 << bit, mask: 1 << bit}) == -EINVAL
    # Outside the mask EINIT tests it.
    assert init_with(b, **{name: 1 << bit, mask: 0}) == -EPERM


def test_status_of_einit_is_eperm_and_init_may_be_repeated() -> None:
    b = filled()
    assert init_with(b, ISVSVN=7) == -EPERM  # the signature does not match
    assert b.encl.flags & SGX_ENCL_INITIALIZED == 0
    assert b.init() == 0
    assert b.machine.kernel.warnings == []


def test_wrong_measurement_is_eperm_and_pages_may_still_be_added() -> None:
    b = created()
    assert b.init() == -EPERM
    b.fill()
    assert b.init() == 0


@pytest.mark.parametrize("state", [0, 1])
def test_unmasked_event_is_retried_1000_times(state: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from softsgx.linux.sgx.encls import encls as real
    from softsgx.sim import Steps
    from softsgx.spec.leaves import EINIT
    from softsgx.spec.status import SGX_UNMASKED_EVENT

    b, tries = filled(), 0

    def encls(current: object, leaf: int, *operands: int) -> Steps[int]:
        nonlocal tries
        tries += leaf == EINIT
        if leaf == EINIT and not (state and tries > 41):
            return int(SGX_UNMASKED_EVENT)
        return (yield from real(current, leaf, *operands))  # type: ignore[arg-type]

    monkeypatch.setattr("softsgx.linux.sgx.ioctl.encls", encls)
    assert b.init() == (0 if state else -EPERM)
    assert tries == (42 if state else 1000)


@pytest.mark.parametrize(("fault", "warnings"), [(0x4000000D, 1), (0x4000000E, 0)])
def test_fault_of_einit_is_eio(fault: int, warnings: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from softsgx.sim import Steps

    def encls(*_: object) -> Steps[int]:
        yield ("test", "EINIT", False)
        return fault

    b = filled()
    with monkeypatch.context() as patch:
        patch.setattr("softsgx.linux.sgx.ioctl.encls", encls)
        assert b.init() == -EIO
    assert len(b.machine.kernel.warnings) == warnings
    assert b.init() == 0


def test_aexnotify_of_sigstruct_is_reserved_in_6_1() -> None:
    fields = {"ATTRIBUTES": 1 << 10, "ATTRIBUTEMASK": 1 << 10}
    assert init_with(filled(Machine(epc="1M", linux="6.1")), **fields) == -EINVAL
    assert init_with(filled(Machine(epc="1M")), **fields) == -EPERM


# The launch key


def test_hash_of_the_signer_is_in_the_msrs() -> None:
    """SHA-256 of MODULUS as stored, little endian, in MSRs 8CH to 8FH: any signer may launch."""
    b = filled()
    sig = b.sigstruct()
    lp = b.machine.processor.lps[0]
    assert b.init(sig) == 0
    found = b"".join(lp.rdmsr(msr).to_bytes(8, "little") for msr in range(0x8C, 0x90))
    assert found == sha256(sig.MODULUS).digest()
    assert b.machine.processor.lps[1].rdmsr(0x8C) != lp.rdmsr(0x8C), "of this processor only"


def test_all_four_msrs_are_written_at_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest of a hypervisor, say, may have changed them in between."""
    b = filled()
    lp = b.machine.processor.lps[0]
    written: list[int] = []
    real = type(lp).wrmsr

    def wrmsr(self: LogicalProcessor, msr: int, value: int) -> None:
        written.append(msr)
        real(self, msr, value)

    monkeypatch.setattr(type(lp), "wrmsr", wrmsr)
    failing(monkeypatch, EINIT, {1: int(SGX_UNMASKED_EVENT), 2: int(SGX_UNMASKED_EVENT)})
    assert b.init() == 0
    assert written == [0x8C, 0x8D, 0x8E, 0x8F] * 3


def test_einittokenkey_is_out_of_reach_even_with_provision() -> None:
    b = filled(attributes=ATTR_MODE64BIT | ATTR_EINITTOKENKEY)
    fd = b.do(b.host.open("/dev/sgx_provision"))
    assert b.provision(fd) == 0
    assert b.init() == -EACCES


@pytest.mark.parametrize("bit", [2, 9])
def test_xfrm_without_osxsave_is_legacy_only(bit: int) -> None:
    """CR4.OSXSAVE decides which bits of XFRM are reserved in a SIGSTRUCT."""
    b = filled()
    fields = {"XFRM": 1 << bit, "XFRMMASK": 1 << bit}
    known = bool(b.machine.processor.part.xfrm >> bit & 1)
    assert init_with(b, **fields) == (-EPERM if known else -EINVAL)
    b.machine.processor.lps[0].cr4 &= ~CR4_OSXSAVE
    assert init_with(b, **fields) == -EINVAL
