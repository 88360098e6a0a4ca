"""A processor with CET under a driver without: which of them refuses what. Linux 6.12, sgx/ioctl.c.

CREATE leaves the check of the SECS to ECREATE, INIT allows DEBUG, MODE64BIT, KSS and, by PROVISION,
PROVISIONKEY; of pages only REG and TCS are added, and changed to TCS and TRIM.
"""

import pytest

from softsgx.cpu import Part
from softsgx.linux import uapi
from softsgx.linux.errno import EACCES, EINVAL, EIO
from softsgx.spec.attributes import ATTR_CET, ATTR_MODE64BIT
from softsgx.spec.bits import MASK64, PAGE_SIZE
from softsgx.spec.cet import SH_STK_EN
from softsgx.spec.epcm import PT_SS_FIRST, PT_SS_REST, SS_FIRST, SS_REST, R, W
from softsgx.system import Machine
from tests.linux.building import Building, created, filled, initialized
from tests.linux.world import world

MODIFY = uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES


def machine() -> Machine:
    return Machine(cpus=2, epc="1M", part=Part(cet=True))


def test_an_enclave_without_cet_is_built_and_runs() -> None:
    initialized(machine())
    w = world(machine())
    assert w.machine.processor.lps[0].cr4 & 1 << 23


def test_create_leaves_the_cet_fields_to_ecreate() -> None:
    with_cet = {"ATTRIBUTES": ATTR_MODE64BIT | ATTR_CET, "CET_ATTRIBUTES": SH_STK_EN}
    assert Building(machine()).create(**with_cet) == 0
    assert Building().create(**with_cet) == -EIO
    assert Building(machine()).create(CET_ATTRIBUTES=SH_STK_EN) == -EIO


def test_init_allows_no_enclave_cet() -> None:
    assert filled(machine(), attributes=ATTR_MODE64BIT | ATTR_CET).init() == -EACCES


def test_a_signature_that_asks_for_cet_is_refused_on_every_part() -> None:
    for b in (filled(machine()), filled()):
        sig = b.sigstruct()
        sig.ATTRIBUTES, sig.ATTRIBUTEMASK = ATTR_MODE64BIT | ATTR_CET, MASK64
        assert b.init(sig) == -EINVAL


@pytest.mark.parametrize("flags", [SS_FIRST | R | W, SS_REST | R | W])
def test_no_shadow_stack_page_is_added(flags: int) -> None:
    b = created(machine(), attributes=ATTR_MODE64BIT | ATTR_CET)
    assert b.add(PAGE_SIZE, secinfo=flags) == (-EINVAL, 0)


@pytest.mark.parametrize("page_type", [PT_SS_FIRST, PT_SS_REST])
def test_no_page_becomes_a_shadow_stack(page_type: int) -> None:
    w = world(machine())
    block = uapi.SgxEnclaveModifyTypes(length=PAGE_SIZE, page_type=page_type)
    assert w.do(w.enclave.ioctl(w.host, MODIFY, block))[0] == -EINVAL
