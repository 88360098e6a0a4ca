"""One run of `softsgx run`, from its options to its exit status."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from softsgx import __version__
from softsgx.cpu import Readings
from softsgx.cpu.part import Part
from softsgx.linux.failures import Failures, Rule
from softsgx.linux.version import VERSIONS
from softsgx.runner.cpuid.cpu_options import chosen
from softsgx.runner.cpuid.cpuid import CpuidPolicy
from softsgx.runner.cpuid.faulting import CpuidTraps, choose
from softsgx.runner.doctor.needs import meet, systrap_refusal
from softsgx.runner.errors import RunnerError
from softsgx.runner.host.front import ToFront
from softsgx.runner.host.inherited import Inherited
from softsgx.runner.inserted.doorbell import ENDING, Doorbell
from softsgx.runner.native.load import announce
from softsgx.runner.options import AUTO, ENGINES, HZ_MAX, NATIVE, PTRACE, SUPERVISORS, Options
from softsgx.runner.process.exec_chain import ProgramFacts, check_program
from softsgx.runner.process.world import World
from softsgx.runner.session.inject import asked
from softsgx.runner.session.listeners import Listeners
from softsgx.runner.supervisor.engines import hardware
from softsgx.runner.supervisor.loading import Loader
from softsgx.runner.supervisor.supervisor import Supervisor
from softsgx.runner.ways import WAYS
from softsgx.system.machine import epc_bytes


def part_of(options: Options) -> tuple[Part, Readings]:
    """The part and the readings that the options choose. RunnerError if an option is not valid."""
    if options.engine not in ENGINES:
        raise RunnerError("--engine", f"{options.engine!r}: known are {', '.join(ENGINES)}")
    if options.supervisor not in (AUTO, *SUPERVISORS):
        known = ", ".join((AUTO, *SUPERVISORS))
        raise RunnerError("--supervisor", f"{options.supervisor!r}: known are {known}")
    if options.linux not in VERSIONS:
        raise RunnerError("--linux", f"{options.linux!r}: known are {', '.join(VERSIONS)}")
    try:
        epc_bytes(options.epc)
    except ValueError as error:
        raise RunnerError("--epc", str(error)) from None
    if not 0 <= options.tick_hz <= HZ_MAX:
        raise RunnerError("--tick", f"{options.tick_hz}: 0 to {HZ_MAX} in a second")
    engine: Any = options.engine
    return chosen(engine, sgx1=options.sgx1, xfrm=options.xfrm, cpu_options=options.cpu_options)


def kernel_of(options: Options) -> str:
    """The kernel of all code but the driver. RunnerError if the driver object cannot be used."""
    if options.driver is None:
        return options.linux
    # Not at the top: few runs have one, and every run would wait for it.
    from softsgx.cdriver.errors import DriverError
    from softsgx.cdriver.manifest import fitting

    try:
        return fitting(Path(options.driver)).kernel
    except DriverError as error:
        raise RunnerError("--driver", str(error)) from None


def failures_of(options: Options) -> list[Rule]:
    """The failures that the options ask for. RunnerError if one of them is not valid."""
    return asked(options.inject, object_driver=options.driver is not None)


def _world(options: Options, part: Part, readings: Readings) -> World:
    from softsgx.cdriver.errors import DriverError

    linux = kernel_of(options)
    try:
        return World(
            hardware=hardware(options.engine),
            tick_hz=options.tick_hz,
            epc=options.epc,
            linux=linux,
            driver=options.driver,
            seed=options.seed,
            part=part,
            readings=readings,
        )
    except DriverError as error:
        raise RunnerError("--driver", str(error)) from None
    except OSError as error:
        why = f"memory for an EPC of {options.epc} cannot be mapped: {error.strerror}"
        raise RunnerError("--epc", f"{why}: a smaller one, or ulimit -v unlimited") from None


def _trace_header(argv: Sequence[str], options: Options) -> dict[str, Any]:
    """What the first line of a trace says about the run."""
    asked = {f.name: getattr(options, f.name) for f in fields(options)}
    asked["cpu_options"], asked["inject"] = list(options.cpu_options), list(options.inject)
    for name in ("stats", "trace", "explain", "sgxs_out", "junit", "coverage"):
        del asked[name]
    return {"version": __version__, "program": list(argv), **asked}


def find_program(argv: Sequence[str], inherited: Inherited) -> ProgramFacts:
    """The program that the first word names. Raises ProgramError."""
    path = inherited.path()
    return check_program(argv[0], {} if path is None else {"PATH": path})


def run_program(
    argv: Sequence[str],
    options: Options,
    inherited: Inherited,
    facts: ProgramFacts,
    front: ToFront,
    explanations: list[str] | None = None,
) -> int:
    """Run a program to its end. Returns its exit code, or 128 + the signal that killed it.

    `explanations` gets those that were printed.

    After the end of the first process SIGTERM and SIGHUP kill the others; what was recorded is
    still written. RunnerError if the program cannot be started. When an exception is raised, it
    has ended.
    """
    part, readings = part_of(options)
    native = options.engine == NATIVE
    meet(native)
    WAYS.traced = _traced(options.supervisor, front.place is not None)
    traps = choose(options.cpuid)
    if native:
        announce(traps is CpuidTraps.ALWAYS)
    world = _world(options, part, readings)
    failures = Failures(failures_of(options), world.log)
    if options.inject:
        world.kernel.inject = failures
    vendor = None if options.vendor is None else options.vendor.encode("ascii", "replace")
    engine: Any = options.engine
    sections = world.machine.processor.epc.cpuid_sections()
    try:
        policy = CpuidPolicy(part, sections, engine, vendor)
    except ValueError as error:
        raise RunnerError("--vendor", str(error)) from None
    supervisor = Supervisor(world, Loader(policy, traps), options.engine)
    inputs = [*facts.files(argv), *([] if options.trace is None else [options.trace])]
    listeners = Listeners(world, supervisor, _trace_header(argv, options), options, inputs)
    doorbell = supervisor.doorbell
    supervisor.front = front
    supervisor.left_behind = partial(_into_background, front, doorbell, listeners.on)
    try:
        supervisor.start(facts.file, argv, inherited)
        status = supervisor.run()
    except BaseException:
        supervisor.end()
        raise
    finally:
        listeners.close(failures.in_vain() if supervisor.started else ())
        supervisor.calls.cpu_time.timers.close()
        doorbell.close()
    if explanations is not None:
        explanations += listeners.explanations
    return _exit_code(status)


def _traced(supervisor: str, placed: bool) -> bool:
    """Whether programs are to be traced. RunnerError if they must not be and this cannot be done.

    `placed`: the process that becomes the program is there already, and another one traces it.
    """
    if supervisor == PTRACE:
        return True
    why = systrap_refusal()
    if why is None:
        return False
    if supervisor == AUTO and not placed:
        return True
    raise RunnerError("--supervisor systrap", f"{why}; use --supervisor ptrace")


def _into_background(front: ToFront, doorbell: Doorbell, reports: bool, status: int) -> None:
    """The first process has ended with a wait status, and others live on: serve those alone."""
    front.ended(_exit_code(status), reports)
    for number in ENDING:
        doorbell.install(number)


def _exit_code(status: int) -> int:
    """The exit code for a wait status, as a shell has it."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)
