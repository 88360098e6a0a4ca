"""What identifies an enclave with CET: reports, keys, and what the part announces.

SDM 3D, EREPORT, EGETKEY; CPUID leaf 12H.
"""

from dataclasses import replace

import pytest

from softsgx.cpu import Fault, Part, Readings, Status
from softsgx.cpu.bare import BareEnclave
from softsgx.cpu.keys import cmac, token_material
from softsgx.spec.attributes import ATTR_EINITTOKENKEY, ATTR_MODE64BIT
from softsgx.spec.cet import SH_STK_EN
from softsgx.spec.keys import EINITTOKEN_KEY, KEYREQUEST, REPORT, REPORT_KEY, SEAL_KEY, TARGETINFO
from softsgx.spec.leaves import (
    EGETKEY,
    EREPORT,
)
from softsgx.spec.sigstruct import EINITTOKEN
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.cpu.cet_rig import (
    BOTH,
    CET,
    DATA,
    building,
    inside,
    machine,
    running,
)

NO_CET = Part()


# Reports and keys


def key(enclave: BareEnclave, **fields: int | bytes) -> bytes:
    """EGETKEY from inside."""
    lp = inside(enclave)
    lp.store(DATA, KEYREQUEST(**fields).pack())
    assert lp.enclu(EGETKEY, DATA, DATA + 0x800) == 0
    return lp.load(DATA + 0x800, 16)


def report(enclave: BareEnclave, target: TARGETINFO) -> REPORT:
    lp = inside(enclave)
    lp.store(DATA, target.pack())
    assert lp.enclu(EREPORT, DATA, DATA + 0x400, DATA + 0x800) is None
    return REPORT.unpack(lp.load(DATA + 0x800, REPORT.SIZE))


def test_a_report_names_the_cet_attributes_and_the_target_can_verify_it() -> None:
    enclave = running()
    secs = enclave.bare.processor.secs[enclave.secs]
    own = TARGETINFO(
        MEASUREMENT=secs.MRENCLAVE,
        ATTRIBUTES=secs.ATTRIBUTES,
        XFRM=secs.XFRM,
        MISCSELECT=secs.MISCSELECT,
        CET_ATTRIBUTES=BOTH,
    )
    made = report(enclave, own)
    assert made.CET_ATTRIBUTES == BOTH
    report_key = key(enclave, KEYNAME=REPORT_KEY, KEYID=made.KEYID)
    assert cmac(report_key, made.pack()[:384]) == made.MAC
    other = report(enclave, own.replace(CET_ATTRIBUTES=SH_STK_EN))
    assert cmac(report_key, other.pack()[:384]) != other.MAC


def test_without_cet_a_target_with_cet_attributes_is_refused() -> None:
    bare = machine(part=NO_CET)
    enclave = bare.enclave(pages=2)
    enclave.enter(inside(enclave))
    lp, data = inside(enclave), enclave.data[0]
    lp.store(data, TARGETINFO(CET_ATTRIBUTES=1).pack())
    with pytest.raises(Fault, match=r"EREPORT\.05"):
        lp.enclu(EREPORT, data, data + 0x400, data + 0x800)


def test_the_mask_of_a_key_request_chooses_cet_attributes() -> None:
    whole, stack = running(BOTH), running(SH_STK_EN)
    # The same signer, another enclave: MRSIGNER policy, all attributes but those of CET masked out.
    request: dict[str, int | bytes] = {"KEYNAME": SEAL_KEY, "KEYPOLICY": 2}

    def keys(mask: int) -> tuple[bytes, bytes]:
        masked = {**request, "CET_ATTRIBUTES_MASK": mask}
        return key(whole, **masked), key(stack, **masked)

    assert keys(0)[0] == keys(0)[1]
    assert keys(SH_STK_EN)[0] == keys(SH_STK_EN)[1]
    assert keys(0xFF)[0] != keys(0xFF)[1]
    # The mask itself is part of a SEAL key.
    assert len({keys(mask)[1] for mask in (0, 1, 0x21)}) == 3


def test_a_launch_enclave_derives_the_key_that_einit_verifies_a_token_with() -> None:
    attributes = ATTR_MODE64BIT | ATTR_EINITTOKENKEY
    enclave = running(BOTH, attributes=attributes)
    secs, lp = enclave.bare.processor.secs[enclave.secs], enclave.bare.lp
    keys = enclave.bare.processor.keys

    def expected(cet: int) -> bytes:
        token = EINITTOKEN(
            CET_MASKED_ATTRIBUTES_LE=cet, MASKEDATTRIBUTESLE=secs.ATTRIBUTES & 3, KEYID=bytes(32)
        )
        return keys.derive(token_material(keys, token, lp.lepubkeyhash))

    derived = key(enclave, KEYNAME=EINITTOKEN_KEY, CET_ATTRIBUTES_MASK=SH_STK_EN)
    assert derived == expected(SH_STK_EN)
    assert derived != expected(0)


def test_an_enclave_without_cet_keeps_its_keys_on_a_part_with_cet() -> None:
    """Sealed data outlive the update to such a part: the fields are zero there, too."""

    def sealed(part: Part) -> bytes:
        bare = machine(part=part)
        enclave = bare.enclave(pages=2)
        enclave.enter(inside(enclave))
        lp, data = inside(enclave), enclave.data[0]
        lp.store(data, KEYREQUEST(KEYNAME=SEAL_KEY, KEYPOLICY=1).pack())
        assert lp.enclu(EGETKEY, data, data + 0x800) == 0
        return lp.load(data + 0x800, 16)

    assert sealed(CET) == sealed(NO_CET)


def test_a_mask_on_a_part_without_cet_by_the_other_reading_changes_nothing() -> None:
    readings = Readings(keyrequest_cet_mask_reserved=False)
    bare = machine(readings, part=NO_CET)
    enclave = bare.enclave(pages=2)
    enclave.enter(inside(enclave))
    lp, data = inside(enclave), enclave.data[0]

    def sealed(mask: int) -> bytes:
        lp.store(data, KEYREQUEST(KEYNAME=SEAL_KEY, CET_ATTRIBUTES_MASK=mask).pack())
        status = lp.enclu(EGETKEY, data, data + 0x800)
        assert isinstance(status, Status)
        assert status == 0
        return lp.load(data + 0x800, 16)

    assert sealed(0) == sealed(0xFF)


# The part


def test_what_a_part_with_cet_announces() -> None:
    plain, with_cet = NO_CET.cpuid(7, 0, ()), CET.cpuid(7, 0, ())
    assert with_cet == plain._replace(ecx=plain.ecx | 1 << 7, edx=1 << 20)
    assert CET.cpuid(0x12, 1, ()).eax == NO_CET.cpuid(0x12, 1, ()).eax | 1 << 6
    assert CET.cpuid(0x12, 0, ()).ebx == 1
    assert replace(CET, cpinfo=True).cpuid(0x12, 0, ()).ebx == 3


def test_cpinfo_needs_cet() -> None:
    with pytest.raises(ValueError, match=r"^Part\.cpinfo: #CP is reported by a part with CET only"):
        Part(cpinfo=True)


@pytest.mark.parametrize("bit", [11, 12])
def test_cet_state_is_no_part_of_xfrm(bit: int) -> None:
    """CET_U and CET_S are components of IA32_XSS; enclaves save theirs in the CET save area."""
    with pytest.raises(ValueError, match="belong to IA32_XSS"):
        Part(cet=True, xfrm=3 | 1 << bit)
    with pytest.raises(Fault, match=r"ECREATE\.12"):
        building(xfrm=3 | 1 << bit)


def test_an_enclave_without_cet_runs_on_a_part_with_cet_as_elsewhere() -> None:
    enclave = machine().enclave(pages=1)
    lp = inside(enclave)
    enclave.enter(lp)
    lp.store(enclave.data[0], b"x")
    lp.interrupt()
    enclave.resume(lp)
    enclave.exit(lp)
    assert (lp.u_cet, lp.ssp) == (0, 0)
    page = enclave.pages[enclave.tcs[0]]
    tcs = TCS_PAGE.unpack(
        enclave.bare.processor.memory.page_view(enclave.bare.processor.epc.pfn(page))
    )
    assert (tcs.OCETSSA, tcs.PREVSSP) == (0, 0)
