"""IA32_FEATURE_CONTROL and IA32_SGXLEPUBKEYHASH: who may write them when.

SDM 3D, 37.7.1 "Intel SGX Opt-In Configuration", 42.2 "IA32_FEATURE_CONTROL".
"""

from functools import partial

import pytest

from softsgx.cpu import Bare, Fault, LogicalProcessor, Part, Processor
from softsgx.cpu.part import DEFAULT_PART
from softsgx.spec import faults
from softsgx.spec.bits import MASK64
from softsgx.spec.leaves import ECREATE, EENTER
from softsgx.spec.msr import IA32_FEATURE_CONTROL, IA32_SGXLEPUBKEYHASH
from tests.cpu.table import Attempt, Row, gp, row_id

LOCK, SGX_LC, SGX_ENABLE = 1 << 0, 1 << 17, 1 << 18
RESET = (0xA6053E051270B7AC, 0x6CFBE8BA8B3B413D, 0xC4916D99F2B3735D, 0xD4F8C05909F9BB3B)
NO_LC = Part(launch_control=False)
CET = Part(cet=True)


def attempt(
    msr: int, value: int, *, control: int | None = None, part: Part = DEFAULT_PART
) -> Attempt:
    """WRMSR of `value`, on a processor whose IA32_FEATURE_CONTROL is `control`."""
    processor = Processor(8, part=part)
    lp = processor.lps[0]
    if control is not None:
        lp.feature_control = control
    return Attempt(lp, "wrmsr", msr, value)


ROWS = [
    Row("WRMSR.01", lambda: attempt(0x3A, 0), gp(), "0"),
    Row("WRMSR.01", lambda: attempt(0x3A, LOCK | SGX_LC | SGX_ENABLE), gp(), "same value"),
    Row("WRMSR.01", lambda: attempt(0x3A, 0, control=LOCK), gp(), "only locked"),
    Row("WRMSR.02", lambda: attempt(0x8C, 1, control=SGX_LC | SGX_ENABLE), gp(), "not locked"),
    Row("WRMSR.02", lambda: attempt(0x8C, 1, control=LOCK | SGX_ENABLE), gp(), "not enabled"),
    Row("WRMSR.02", lambda: attempt(0x8F, 1, control=0), gp(), "neither"),
    Row("WRMSR.02", lambda: attempt(0x8C, 1, part=NO_LC), gp(), "part without"),
    *(
        Row("WRMSR.04", lambda value=value: attempt(0x6A0, value, part=CET), gp(), note)  # type: ignore[misc]
        for note, value in (
            ("bit 6", 1 << 6),
            ("bit 9", 1 << 9),
            ("TRACKER and SUPPRESS", 3 << 10),
            ("bitmap not canonical", 1 << 47),
        )
    ),
    Row("WRMSR.03", lambda: attempt(0x6A0, 0), gp()),
    Row("RDMSR.01", lambda: attempt(0x8C, 0, part=NO_LC)._replace(instruction="rdmsr"), gp()),
    Row("RDMSR.02", lambda: attempt(0x6A0, 0)._replace(instruction="rdmsr"), gp()),
]


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_wrmsr_refuses(row: Row) -> None:
    lp, instruction, msr, value, *_ = row.build()
    before = lp.processor.fingerprint()
    access = partial(lp.rdmsr, msr) if instruction == "rdmsr" else partial(lp.wrmsr, msr, value)
    with pytest.raises(Fault) as caught:
        access()
    fault = caught.value
    assert (fault.vector, fault.code, fault.rule) == (faults.GP, 0, row.rule)
    assert lp.processor.fingerprint() == before


def hashes(lp: LogicalProcessor) -> tuple[int, ...]:
    return tuple(lp.rdmsr(msr) for msr in IA32_SGXLEPUBKEYHASH)


def test_reset_values() -> None:
    for lp in Processor(8).lps:
        assert lp.rdmsr(IA32_FEATURE_CONTROL) == LOCK | SGX_LC | SGX_ENABLE
        assert hashes(lp) == RESET


def test_the_hash_can_be_read_where_it_cannot_be_written() -> None:
    lp = Processor(8).lps[0]
    lp.feature_control = LOCK | SGX_ENABLE
    assert hashes(lp) == RESET


@pytest.mark.parametrize("number", range(4))
def test_wrmsr_of_one_quadword_leaves_the_others(number: int) -> None:
    lp, other = Processor(8).lps
    value = 0x0123_4567_89AB_CDEF
    lp.wrmsr(0x8C + number, value)
    expected = [*RESET]
    expected[number] = value
    assert hashes(lp) == tuple(expected)
    # Little endian: 8CH is the first quadword of the digest.
    assert lp.lepubkeyhash[8 * number :][:8] == value.to_bytes(8, "little")
    assert hashes(other) == RESET


@pytest.mark.parametrize("control", [LOCK | SGX_LC, LOCK | SGX_LC | SGX_ENABLE])
def test_the_hash_needs_lock_and_sgx_lc_only(control: int) -> None:
    lp = Processor(8).lps[0]
    lp.feature_control = control
    lp.wrmsr(0x8C, MASK64)
    assert lp.rdmsr(0x8C) == MASK64


def test_feature_control_is_written_once_until_reset() -> None:
    lp = Processor(8).lps[0]
    lp.feature_control = 0
    for value in (SGX_ENABLE, SGX_ENABLE | SGX_LC, SGX_ENABLE | LOCK):
        lp.wrmsr(IA32_FEATURE_CONTROL, value)
        assert lp.rdmsr(IA32_FEATURE_CONTROL) == value
    with pytest.raises(Fault, match=r"WRMSR\.01"):
        lp.wrmsr(IA32_FEATURE_CONTROL, value)


@pytest.mark.parametrize("control", [0, LOCK, SGX_ENABLE, SGX_ENABLE | SGX_LC])
def test_without_opt_in_every_leaf_faults(control: int) -> None:
    # Present but not enabled, or not locked: #GP, not #UD.
    lp = Processor(8).lps[0]
    lp.feature_control = control
    for run, leaf, rule in (
        (lp.encls, ECREATE, "ENCLS.03"),
        (lp.enclu, EENTER, "ENCLU.04"),
        (lp.encls, 0x7F, "ENCLS.03"),
    ):
        with pytest.raises(Fault) as caught:
            run(leaf)
        assert (caught.value.vector, caught.value.rule) == (faults.GP, rule)


def test_cpuid_does_not_reflect_the_opt_in() -> None:
    processor = Processor(8)
    before = [processor.cpuid(7), processor.cpuid(0x12), processor.cpuid(0x12, 1)]
    for lp in processor.lps:
        lp.feature_control = 0
    assert [processor.cpuid(7), processor.cpuid(0x12), processor.cpuid(0x12, 1)] == before


@pytest.mark.parametrize("msr", [0, 0x3B, 0x8B, 0x90, 0x500, -1])
def test_other_msrs_are_refused_by_name(msr: int) -> None:
    lp = Processor(8).lps[0]
    with pytest.raises(ValueError, match=rf"^MSR {msr:#x} is not one of SGX"):
        lp.rdmsr(msr)
    with pytest.raises(ValueError, match=rf"^MSR {msr:#x} is not one of SGX"):
        lp.wrmsr(msr, 0)


@pytest.mark.parametrize("msr", [IA32_FEATURE_CONTROL, *IA32_SGXLEPUBKEYHASH])
@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_wrmsr_takes_a_64_bit_value(msr: int, value: int) -> None:
    lp = Processor(8).lps[0]
    lp.feature_control = 0 if msr == IA32_FEATURE_CONTROL else LOCK | SGX_LC
    before = lp.processor.fingerprint()
    with pytest.raises(ValueError, match=rf"^value: {value:#x} is not a 64-bit register value"):
        lp.wrmsr(msr, value)
    assert lp.processor.fingerprint() == before


@pytest.mark.parametrize("value", ["1", None, b"\x01", 1.0])
def test_wrmsr_takes_an_integer(value: object) -> None:
    lp = Processor(8).lps[0]
    with pytest.raises(TypeError, match=r"^value: .* is not an integer"):
        lp.wrmsr(0x8C, value)  # type: ignore[arg-type]


def test_u_cet_holds_what_the_kernel_wrote() -> None:
    lp = Processor(8, part=CET).lps[0]
    assert lp.rdmsr(0x6A0) == 0
    value = 0x7F00_0000_0000 | 0x3F | 1 << 11
    lp.wrmsr(0x6A0, value)
    assert lp.rdmsr(0x6A0) == lp.u_cet == value


def test_u_cet_is_not_written_from_inside() -> None:
    enclave = Bare(16, part=CET).enclave()
    enclave.enter()
    with pytest.raises(RuntimeError, match="CPL is 3"):
        enclave.bare.lp.wrmsr(0x6A0, 0)
