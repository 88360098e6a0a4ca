"""Every program of tests/programs under `softsgx run`, with the engines that its comment names."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from softsgx.cpu.bare import ENCLAVE_BASE
from softsgx.image import sgxs
from softsgx.image.sigstruct import mrsigner, parse
from softsgx.runner.host.probes import enclu_answer
from softsgx.runner.options import PTRACE, SUPERVISORS
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_MODE64BIT, XFRM_LEGACY
from tests.image.builders import load
from tests.patience import LIMIT_S
from tests.runner.programs import ENGINES, ROOT, Program, Workshop, programs

# Programs whose own instructions stop, or are patched.
BOTH_WAYS = (
    *("trapped_enclu", "trapped_cpuid", "own_stub", "own_stub_blocked", "static_cpuid"),
    *("illegal_native", "cpuid_avx", "filters_shapes", "filters_enclave"),
)
# The kind of processor, as to ENCLU, that this one is not.
OTHER_KIND = "with-sgx" if enclu_answer() == signal.SIGILL else "without-sgx"

# A driver object in the place of the driver in Python: make driver-programs.
DRIVER = "SOFTSGX_TESTED_DRIVER"
# Without CPUID faulting; with it, always and until an entry.
CPUID_KINDS = ["no-faulting"] + ["trap", "until-entry"] * (
    " cpuid_fault" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
)

CASES = [
    pytest.param(program, engine, supervisor, id=f"{program.name}-{engine}-{supervisor}")
    for program in programs()
    for engine in program.engines
    for supervisor in program.supervisors
]
# ENCLU is #UD or #GP: natively every call depends on it. Another kind can be played to a tracer
# only. CPUID faulting is there, or not.
PLAYED = [
    pytest.param(
        *(program, engine, supervisor, kind), id=f"{program.name}-{engine}-{supervisor}-{kind}"
    )
    for program in programs()
    for engine in program.engines
    for supervisor in program.supervisors
    for kind in (OTHER_KIND, *CPUID_KINDS)
    if (kind != OTHER_KIND or supervisor == PTRACE)
    and ((engine == "native" and kind == OTHER_KIND) or program.name in BOTH_WAYS)
]
# A program that hangs is a failure; the slowest takes a few seconds.

needs_run = pytest.mark.skipif(
    importlib.util.find_spec("softsgx.cli.run") is None, reason="`softsgx run` is not there yet"
)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One directory for all programs."""
    return Workshop(tmp_path_factory.mktemp("programs"))


def run(command: list[str], *options: str, processor: str = "") -> subprocess.CompletedProcess[str]:
    """`softsgx run`, on this processor or on one that is played (`other_processor`)."""
    softsgx = ["tests.runner.other_processor", processor] if processor else ["softsgx"]
    environ = dict(os.environ)
    if DRIVER in environ:
        options = ("--driver", environ[DRIVER], *options)
    if processor in ("trap", "until-entry"):
        softsgx, options = ["softsgx"], ("--cpuid", processor, *options)
    if processor == "trap":
        environ["CPUID_TRAPS"] = "1"
    return subprocess.run(
        [sys.executable, "-m", *softsgx, "run", *options, "--", *command],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@needs_run
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("supervisor", SUPERVISORS)
def test_example_tells_its_story(workshop: Workshop, engine: str, supervisor: str) -> None:
    done = run(workshop.example(), "--engine", engine, "--supervisor", supervisor)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line.split()[0] for line in done.stdout.splitlines() if line[:2].strip().isdigit()]
    assert steps == [str(number) for number in range(1, 11)]
    assert done.stdout.endswith("edmm: 10 steps, as the manual and the kernel say\n")


@needs_run
@pytest.mark.parametrize(("program", "engine", "supervisor"), CASES)
def test_program(workshop: Workshop, program: Program, engine: str, supervisor: str) -> None:
    how = ("--engine", engine, "--supervisor", supervisor)
    _right(program, run(workshop.command(program), *how, *program.options))


@needs_run
@pytest.mark.parametrize(("program", "engine", "supervisor", "processor"), PLAYED)
def test_program_on_another_processor(
    workshop: Workshop, program: Program, engine: str, supervisor: str, processor: str
) -> None:
    """What depends on the processor, on the kinds that this one is not."""
    how = ("--engine", engine, "--supervisor", supervisor)
    _right(program, run(workshop.command(program), *how, *program.options, processor=processor))


def _right(program: Program, done: subprocess.CompletedProcess[str]) -> None:
    said = f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    # A signal may be passed on as such, or as a shell does it.
    accepted = {program.exit, 128 - program.exit} if program.exit < 0 else {program.exit}
    assert done.returncode in accepted, said
    lines = done.stdout.splitlines()
    assert lines, said
    assert all(line.startswith("ok ") for line in lines), said
    assert "FAIL" not in done.stderr, said


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.name)
def test_program_builds_and_its_enclave_can_be_initialised(
    workshop: Workshop, program: Program
) -> None:
    """With all warnings; what the program is given is what EINIT accepts."""
    assert set(program.engines) <= set(ENGINES)
    _, *files = workshop.command(program)
    if not files:
        return
    stream, signature, signer = (Path(file).read_bytes() for file in files)
    sig = parse(signature)
    words = dict(program.words)
    # MISCSELECT and XFRM are not in the stream; the program sets them as its comment says.
    miscselect, xfrm = words.get("miscselect", 0), words.get("xfrm", XFRM_LEGACY)
    attributes = ATTR_MODE64BIT | (ATTR_AEXNOTIFY if words.get("aexnotify") else 0)
    image = replace(sgxs.read(stream), miscselect=miscselect, xfrm=xfrm, attributes=attributes)
    enclave, status = load(image, sig, base=0 if "text" in words else ENCLAVE_BASE)
    assert status == 0
    assert len(enclave.tcs) == words.get("threads", 1)
    assert mrsigner(sig) == signer
