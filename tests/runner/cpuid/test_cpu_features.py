"""The emulator executes what CPUID announces; what it lacks is hidden."""

from __future__ import annotations

from itertools import combinations

import pytest

from softsgx.runner.cpuid.cpu_features import (
    HIDDEN,
    HIDDEN_FLAGS,
    REGISTERS,
    SHOWN,
    Rule,
    flag_is_hidden,
    visible,
)
from tests.runner.instructions import CODE, EXECUTED, REFUSED, WRONG, execute, unicorn, x86


def name_of(rule: Rule) -> str:
    leaf, subleaf, register = rule.word
    return f"{leaf:x}.{subleaf}.{REGISTERS[register]}-{'-'.join(rule.bits.values())}"


SHOWN_FLAGS = {flag for rule in SHOWN for flag in rule.bits.values()}


@pytest.mark.parametrize("flag", EXECUTED)
def test_shown_feature_is_executed(flag: str) -> None:
    taken = execute(EXECUTED[flag])
    # An unfinished REP leaves RIP where it is.
    assert taken in (0, len(EXECUTED[flag]) // 2)
    assert flag in SHOWN_FLAGS


@pytest.mark.parametrize("flag", REFUSED)
def test_feature_that_the_emulator_refuses_is_hidden(flag: str) -> None:
    assert execute(REFUSED[flag]) is None
    assert flag_is_hidden(flag)


@pytest.mark.parametrize("flag", WRONG)
def test_feature_that_the_emulator_mistakes_is_hidden(flag: str) -> None:
    """No fault would warn the program. If this fails, see whether the emulator has become right."""
    assert execute(WRONG[flag]) is not None
    assert flag_is_hidden(flag)


def test_every_feature_said_to_be_executed_has_an_instruction_here() -> None:
    said = {flag for rule in SHOWN if "executes" in rule.why for flag in rule.bits.values()}
    assert said == set(EXECUTED)


def test_vex_128_computes_wrongly() -> None:
    """Why AVX is hidden: 1 + 2 in the target's old value. VPADDD xmm2, xmm1, xmm0."""
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    engine.mem_map(CODE, 0x1000)
    engine.mem_write(CODE, bytes.fromhex(WRONG["avx"]))
    engine.reg_write(x86.UC_X86_REG_CR4, 1 << 9 | 1 << 18)
    for register, value in ((0, 1), (1, 2), (2, 0x100)):
        engine.reg_write(x86.UC_X86_REG_XMM0 + register, value)
    engine.emu_start(CODE, CODE + len(WRONG["avx"]) // 2)
    assert engine.reg_read(x86.UC_X86_REG_XMM2) != 3


def test_no_bit_is_in_two_rows() -> None:
    for one, other in combinations((*HIDDEN, *SHOWN), 2):
        if one.word == other.word:
            assert not one.bits.keys() & other.bits.keys(), one.word
    assert not HIDDEN_FLAGS & SHOWN_FLAGS


def test_every_bit_has_a_name_and_every_row_a_reason() -> None:
    for rule in (*HIDDEN, *SHOWN):
        assert rule.why
        assert all(0 <= bit < 32 and flag.islower() for bit, flag in rule.bits.items())


@pytest.mark.parametrize("rule", HIDDEN, ids=name_of)
def test_hidden_row(rule: Rule) -> None:
    assert rule.bits
    for bit in rule.bits:
        assert visible(rule.word, 1 << bit) == 0


@pytest.mark.parametrize("rule", SHOWN, ids=name_of)
def test_shown_row(rule: Rule) -> None:
    mask = sum(1 << bit for bit in rule.bits)
    assert visible(rule.word, mask) == mask


def test_a_bit_of_a_later_processor_is_hidden() -> None:
    assert visible((7, 1, 0), 1 << 31) == 0
    assert visible((7, 1, 2), 0xFFFF_FFFF) == 0


def test_a_word_without_rows_is_shown() -> None:
    assert visible((1, 0, 3), 0xFFFF_FFFF) == 0xFFFF_FFFF
    assert visible((0x8000_0001, 0, 2), 1 << 5 | 1 << 6 | 1 << 16) == 1 << 5 | 1 << 6


@pytest.mark.parametrize("flag", ["avx", "avx512_later", "amx_later", "sha_ni", "xsavec"])
def test_flags_of_hidden_features(flag: str) -> None:
    assert flag_is_hidden(flag)


@pytest.mark.parametrize("flag", ["sse4_2", "aes", "bmi2", "xsave", "xsaveopt", "syscall", "sgx"])
def test_other_flags(flag: str) -> None:
    assert not flag_is_hidden(flag)
