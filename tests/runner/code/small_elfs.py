"""Programs for the tests of sites: compiled by the gcc of the machine, checked by its objdump."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PROBE = """
#include <cpuid.h>
#include <stdio.h>
static const unsigned char bytes[] = {0x0f, 0xa2, 0x0f, 0x01, 0xd7};
int main(void)
{
    unsigned a, b, c, d;
    for (int i = 2; i < 4; i++) {
        __cpuid_count(0x12, i, a, b, c, d);
        printf("%x %x %x\\n", a, b, bytes[a % 5]);
    }
    __cpuid(0, a, b, c, d);
    asm volatile("mov $0x0000a20f, %%ecx; .byte 0x0f, 0x01, 0xd7" ::: "rcx");
    return printf("%x\\n", a) == 0;
}
"""


def build(directory: Path, source: str, *options: str, name: str = "program") -> Path:
    """Compile C, or assembly that begins with `#as`."""
    suffix = ".S" if source.startswith("#as") else ".c"
    path, output = directory / f"{name}{suffix}", directory / name
    path.write_text(source.removeprefix("#as"), encoding="utf-8")
    subprocess.run(["gcc", "-O2", *options, str(path), "-o", str(output)], check=True)
    return output


def bare(directory: Path, source: str, *options: str) -> Path:
    """A static program of assembly alone, without any note of where its functions are."""
    return build(directory, "#as" + source, "-nostdlib", "-static", "-no-pie", *options)


def strip(path: Path, *options: str) -> Path:
    """Without symbols."""
    subprocess.run(["strip", *options, str(path)], check=True)
    return path


def disassembled(path: Path | str) -> list[tuple[int, str]]:
    """(address, mnemonic) of the CPUID and ENCLU instructions that objdump prints."""
    done = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^ *([0-9a-f]+):\t(cpuid|enclu)\b", done.stdout, re.MULTILINE)
    return [(int(address, 16), mnemonic) for address, mnemonic in found]


def symbols(path: Path) -> dict[str, int]:
    """Addresses by name."""
    done = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True)
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}
