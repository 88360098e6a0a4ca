"""/proc/cpuinfo must say what CPUID says."""

from __future__ import annotations

from pathlib import Path

import pytest

from softsgx.runner.cpuid.cpuid import CpuidPolicy, Engine, part_for
from softsgx.runner.cpuid.cpuinfo import cpuinfo_text
from softsgx.spec.cpuid import Registers

REAL = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model name\t: AMD: a processor
cpuid level\t: 13
wp\t\t: yes
flags\t\t: fpu sse2 pclmulqdq fma avx f16c rdrand avx2 bmi2 avx512_later xsaveopt xsavec rdpid
bugs\t\t: sysret_ss_attrs avx_in_a_bug
power management:

processor\t: 1
flags\t\t: fpu avx sgx
"""


def policy(engine: Engine, vendor: bytes | None = None) -> CpuidPolicy:
    part = part_for(engine, native=lambda leaf, subleaf: Registers(0, 0, 0, 0))
    return CpuidPolicy(
        part, (), engine, vendor, native=lambda leaf, subleaf: Registers(13, 0, 0, 0)
    )


def test_reference_engine() -> None:
    assert cpuinfo_text(REAL, policy("unicorn", b"GenuineIntel")) == (
        "processor\t: 0\n"
        "vendor_id\t: GenuineIntel\n"
        "cpu family\t: 25\n"
        "model name\t: AMD: a processor\n"
        "cpuid level\t: 18\n"
        "wp\t\t: yes\n"
        "flags\t\t: fpu sse2 pclmulqdq rdrand bmi2 xsaveopt sgx sgx_lc\n"
        "bugs\t\t: sysret_ss_attrs avx_in_a_bug\n"
        "power management:\n"
        "\n"
        "processor\t: 1\n"
        "flags\t\t: fpu sgx sgx_lc\n"
    )


def test_native_engine_adds_only() -> None:
    expected = REAL.replace("xsavec rdpid", "xsavec rdpid sgx sgx_lc")
    expected = expected.replace("avx sgx\n", "avx sgx sgx_lc\n").replace(": 13", ": 18")
    assert cpuinfo_text(REAL, policy("native")) == expected


@pytest.mark.parametrize("engine", ["unicorn", "native"])
def test_text_of_this_machine_twice_is_the_same(engine: Engine) -> None:
    real = Path("/proc/cpuinfo").read_text()
    once = cpuinfo_text(real, policy(engine))
    assert cpuinfo_text(once, policy(engine)) == once
    assert once.count(" sgx sgx_lc\n") == real.count("processor\t:")
    assert len(once.splitlines()) == len(real.splitlines())


def test_text_without_a_last_newline() -> None:
    assert cpuinfo_text("flags\t: fpu avx", policy("unicorn")) == "flags\t: fpu sgx sgx_lc"
    assert cpuinfo_text("", policy("unicorn")) == ""
