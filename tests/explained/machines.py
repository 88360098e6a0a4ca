"""Random machines in Python, whose every refusal is judged: the moves of tests/property and more.

A script is a machine and a list of moves; the same script always runs the same way. What the moves
of tests/property assert of results does not matter here, and does not hold on all kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from random import Random
from traceback import extract_tb
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from softsgx.cpu import Part
from softsgx.linux import mlock, syscalls
from softsgx.linux.madvise import sys_madvise
from softsgx.linux.uapi import (
    SGX_IOC_ENCLAVE_CREATE,
    SGX_IOC_ENCLAVE_INIT,
    V2_IOC_ENCLAVE_MODIFY_TYPE,
    V2_IOC_ENCLAVE_RELAX_PERMISSIONS,
    V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    SgxEnclaveCreate,
    SgxEnclaveInit,
    SgxEnclaveRelaxPerm,
    SgxEnclaveRestrictPerm,
)
from softsgx.sim import Steps, Unmodelled
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.paging import SECINFO
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.structure import Structure
from softsgx.system import EnclaveThread, HostThread, Machine
from tests.explained.judge import Finding, Judge
from tests.property import driver_stays
from tests.property.driver_machine import PLAYED
from tests.property.driver_watch import Watch
from tests.property.driver_world import CPUS, Enclave, Slot, image, sigstruct
from tests.property.test_driver_states import WEIGHTS, Play
from tests.property.world import pick

STEPS: Final = (0, 1, 2, 3, 5, 8, 13, 21, 34, 60, 100, 300, 300, 300, 300)
SPOILS: Final = (*([0] * 8), 1, 2, 3, 4)
MOVES: Final = (
    *(name for name, weight in WEIGHTS.items() for _ in range(weight)),
    *["wrong_create", "wrong_init", "advise", "lock", "v2_ioctl"] * 3,
    *["descriptor", "cheat"],
)
LENGTH: Final = 40
_EXPLAINING: Final = (
    *(f"/softsgx/system/{name}" for name in ("explain", "history", "facts", "ways", "refused")),
    *("/softsgx/report/", "/tests/explained/judge"),
)
PLAYS_MAX: Final = 150  # to shorten one script
# Operations inside: those of tests/property, and leaves with any operands.
OPERATIONS: Final = (*driver_stays.OPERATIONS, *["leaf", "leaf", "outside", "blind_accept"] * 2)
_SECINFOS: Final = (0x203, 0x20B, 0x223, 0x221, 0x420, 0x120, 0x207, 0x202, 0x20A, 0x603, 0x40, 0)
_ADDRESSES: Final = (0, 8, PAGE_SIZE, 1 << 46, 1 << 47, (1 << 64) - PAGE_SIZE)


class Move(NamedTuple):
    """One move: the processor, its name, three numbers that choose, and for how many steps."""

    cpu: int
    name: str
    number: int
    value: int
    spoil: int
    steps: int


class Script(NamedTuple):
    """A machine, and what happens on it."""

    linux: str
    sgx1: bool
    epc: int
    low: int
    moves: tuple[Move, ...]

    def __str__(self) -> str:
        head = f"{self.linux}{' sgx1' * self.sgx1}, {self.epc} pages of EPC, watermark {self.low}"
        return "\n".join([head, *(f"  {tuple(move)!r}," for move in self.moves)])


class Explained(Play):
    """The driver's state machine, judged by its explanations and not by its state."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script

    def powered(self, epc: int) -> Machine:
        """The machine of the script, with a judge."""
        part = Part(sgx2=False) if self.script.sgx1 else Part()
        machine = Machine(cpus=CPUS, epc=epc, linux=self.script.linux, part=part)
        self.judge = Judge(machine)
        return machine

    def guarded(self, slot: Slot, body: Steps[None]) -> Steps[None]:
        """As there; a failed assertion about results ends the move."""
        return super().guarded(slot, _unasserted(body))

    def look(self) -> None:
        """No invariants."""
        if self.quiet():
            self.forget()

    def page_written(self, enclave: Enclave, address: int, data: bytes) -> None:
        """The contents of pages are checked by tests/property."""

    def watched_ioctl(
        self, host: HostThread, watch: Watch, argument: Any
    ) -> Steps[tuple[int, Any]]:
        """Unwatched."""
        return (yield from self.ioctl(host, watch.enclave, watch.cmd, argument))

    # More moves of hosts

    def wrong_create(self, slot: Slot, number: int, value: int, _spoil: int) -> Steps[None]:
        """CREATE of a SECS with one wrong field; of a new enclave, mostly."""
        host = self.host(slot)
        fd = yield from host.open()
        if fd < 0:
            return
        secs = image().secs(0x50_0000_0000)
        name, wrong = pick(_WRONG_SECS, number)
        _set(secs, name, wrong, value)
        source = yield from self.memory(host, secs.pack())
        block = yield from self.memory(host, SgxEnclaveCreate(src=source).pack())
        yield from host.ioctl(fd, SGX_IOC_ENCLAVE_CREATE, block)
        if value % 5 == 0:
            yield from host.ioctl(fd, SGX_IOC_ENCLAVE_CREATE, block)
        yield from host.close(fd)

    def wrong_init(self, slot: Slot, number: int, value: int, _spoil: int) -> Steps[None]:
        """INIT of an enclave without pages, by a SIGSTRUCT with one wrong field."""
        host = self.host(slot)
        fd = yield from host.open()
        if fd < 0:
            return
        secs = image().secs(0x50_0000_0000)
        source = yield from self.memory(host, secs.pack())
        block = yield from self.memory(host, SgxEnclaveCreate(src=source).pack())
        yield from host.ioctl(fd, SGX_IOC_ENCLAVE_CREATE, block)
        sig = SIGSTRUCT.unpack(sigstruct())
        name, wrong = pick(_WRONG_SIGSTRUCT, number)
        _set(sig, name, wrong, value)
        source = yield from self.memory(host, sig.pack())
        block = yield from self.memory(host, SgxEnclaveInit(sigstruct=source).pack())
        yield from host.ioctl(fd, SGX_IOC_ENCLAVE_INIT, block)
        yield from host.close(fd)

    def advise(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """madvise(2)."""
        start, length = self.span(pick(self.enclaves, number), value, spoil)
        advice = pick((3, 4, 8, 9, 10, 11, 14, 16, 21, 100), value)
        ret = yield from sys_madvise(self.host(slot).thread, start, length, advice)
        self.judge.result("madvise", ret)

    def lock(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """mlock(2), msync(2) and their like."""
        start, length = self.span(pick(self.enclaves, number), value, spoil)
        thread = self.host(slot).thread
        name, body = pick(
            (
                ("mlock", mlock.sys_mlock(thread, start, length)),
                ("mlock2", mlock.sys_mlock2(thread, start, length, value % 4)),
                ("munlock", mlock.sys_munlock(thread, start, length)),
                ("msync", mlock.sys_msync(thread, start, length, value % 8)),
            ),
            number >> 4,
        )
        self.judge.result(name, (yield from body))

    def descriptor(self, slot: Slot, number: int, value: int, _spoil: int) -> Steps[None]:
        """Calls that SGX nodes do not support, and descriptors that are not open."""
        host = self.host(slot)
        fd = pick([*sorted(host.process.files), 77], value)
        name, body = pick(
            (
                ("read", host.read(fd)),
                ("write", host.write(fd)),
                ("open", host.open("/dev/sgx_nothing")),
                ("ioctl", host.ioctl(77, SGX_IOC_ENCLAVE_INIT, 0)),
                ("close", host.close(77)),
                ("dup", syscalls.sys_dup(host.thread, 77)),
            ),
            number,
        )
        self.judge.result(name, (yield from body))

    def v2_ioctl(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """The ioctls of the V2 series, which other kernels do not know."""
        host = self.host(slot)
        enclave = self.known(host, number)
        if enclave is None:
            return
        cmd, kind = pick(
            (
                (V2_IOC_ENCLAVE_RELAX_PERMISSIONS, SgxEnclaveRelaxPerm),
                (V2_IOC_ENCLAVE_RESTRICT_PERMISSIONS, SgxEnclaveRestrictPerm),
                (V2_IOC_ENCLAVE_MODIFY_TYPE, SgxEnclaveRestrictPerm),
            ),
            value,
        )
        flags = pick((1, 3, 7, 0x100, 0x400, 2, 0x200, 0x41, 0), number)
        secinfo = yield from self.memory(host, SECINFO(FLAGS=flags).pack())
        argument: Any = kind(secinfo=secinfo, length=PAGE_SIZE)
        argument.offset = self.address(enclave, value, spoil) - enclave.base
        if spoil:
            name, wrong = pick((("secinfo", 8), ("length", 8), ("count", 1), ("offset", 8)), number)
            setattr(argument, name, wrong)
        yield from self.ioctl(host, enclave, cmd, argument)

    def cheat(self, _slot: Slot, number: int, value: int, _spoil: int) -> Steps[None]:
        """What only a broken or hostile kernel does: a PTE that leads to another page."""
        pages = [entry for host in self.hosts() for entry in host.thread.mm.space.ptes.items()]
        if len(pages) > 1:
            space = pick(self.hosts(), value).thread.mm.space
            (page, _), (_, pte) = pick(pages, number), pick(pages, value)
            space.set(page * PAGE_SIZE, pte)
        return
        yield

    # More operations of enclaves

    def do_load(self, t: EnclaveThread, _x: Enclave, address: int, value: int) -> Steps[None]:
        """A load, whatever it gives."""
        yield from t.load(address + value % 4000, 16)

    def do_outside(self, t: EnclaveThread, _x: Enclave, _address: int, value: int) -> Steps[None]:
        """An access outside the enclave."""
        address = pick(_ADDRESSES, value)
        yield from pick((t.load, t.fetch), value >> 3)(address)

    def do_leaf(self, t: EnclaveThread, x: Enclave, address: int, value: int) -> Steps[Any]:
        """Any leaf of ENCLU with operands that are nearly right."""
        others = (x.scratch, x.scratch + 2048, address, x.data, *_ADDRESSES)
        rbx, rcx, rdx = (pick(others, value >> shift) for shift in (2, 5, 8))
        if value % 3 == 0:
            rbx = yield from self.operand(t, x, value)
        leaf = pick(_LEAVES, value)
        return (yield from t.enclu(leaf, rbx + value % 2 * 8, rcx, rdx))

    def operand(self, t: EnclaveThread, x: Enclave, value: int) -> Steps[int]:
        """A SECINFO in the slot of the thread."""
        at = x.secinfo_slot(t.tcs)
        secinfo = bytearray(SECINFO(FLAGS=pick(_SECINFOS, value)).pack())
        secinfo[-1] = value % 7 == 0
        yield from t.store(at, bytes(secinfo))
        return at

    def do_blind_accept(self, t: EnclaveThread, x: Enclave, address: int, value: int) -> Steps[Any]:
        """EACCEPT or EMODPE by any SECINFO."""
        rbx = yield from self.operand(t, x, value)
        leaf = pick((leaves.EACCEPT, leaves.EMODPE, leaves.EACCEPTCOPY), value)
        return (yield from t.enclu(leaf, rbx, address, x.data))


_LEAVES: Final = (
    *(leaves.EREPORT, leaves.EGETKEY, leaves.EACCEPT, leaves.EMODPE, leaves.EACCEPTCOPY),
    *(leaves.EDECCSSA, leaves.EENTER, leaves.ERESUME, leaves.EVERIFYREPORT2, 0x33),
)
_WRONG_SECS: Final[tuple[tuple[str, int], ...]] = (
    *(("SIZE_", 0x3000), ("SIZE_", 1 << 60), ("SIZE_", PAGE_SIZE), ("BASEADDR", PAGE_SIZE)),
    *(("BASEADDR", 1 << 63), ("SSAFRAMESIZE", 0), ("MISCSELECT", 1 << 7), ("XFRM", 1)),
    *(("XFRM", 0xFFFF), ("XFRM", 1 << 63), ("ATTRIBUTES", 1 << 9), ("ATTRIBUTES", 0)),
    *(("ATTRIBUTES", 0x24), ("ATTRIBUTES", 0x404), ("CONFIGSVN", 1), ("ATTRIBUTES", 0x14)),
)
_WRONG_SIGSTRUCT: Final[tuple[tuple[str, int | bytes], ...]] = (
    *(("VENDOR", 7), ("EXPONENT", 5), ("ATTRIBUTES", 0), ("MISCSELECT", 1), ("XFRM", 1 << 20)),
    *(("ENCLAVEHASH", b"x" * 32), ("SIGNATURE", b"x" * 384), ("Q1", b"y" * 384)),
    *(("ATTRIBUTES", 0x8000), ("XFRM", 7), ("ISVPRODID", 9), ("MODULUS", b"z" * 384)),
)


def _set(structure: Structure, name: str, wrong: int | bytes, value: int) -> None:
    if hasattr(structure, name):
        setattr(structure, name, wrong)
    if name in ("ATTRIBUTES", "XFRM", "MISCSELECT") and value % 2:
        mask = {"ATTRIBUTES": "ATTRIBUTEMASK", "XFRM": "XFRMMASK", "MISCSELECT": "MISCMASK"}[name]
        if hasattr(structure, mask):
            setattr(structure, mask, wrong)


def _unasserted(body: Steps[None]) -> Steps[None]:
    """A move that ends at a failed assertion of tests/property; those of the model pass through."""
    try:
        yield from body
    except Unmodelled:
        return
    except (AssertionError, ValueError) as error:
        # The latter: a thread was left inside when its move ended so.
        surprised = "/tests/property/" in extract_tb(error.__traceback__)[-1].filename
        if not surprised and "another thread is" not in str(error):
            raise


# Scripts


def random_script(random: Random) -> Script:
    """A machine, mostly of the newest kernel with SGX2."""
    linux = random.choice(("6.12", "6.12", "6.12", "6.1", "v2"))
    moves = [
        Move(
            random.randrange(CPUS),
            random.choice(MOVES),
            random.randrange(1 << 12),
            random.randrange(1 << 12),
            random.choice(SPOILS),
            random.choice(STEPS),
        )
        for _ in range(LENGTH)
    ]
    epc, low = random.choice((26, 40, 64)), random.choice((2, 4, 8))
    return Script(linux, random.random() < 0.1, epc, low, tuple(moves))


def play(script: Script) -> Judge:
    """Run a script to its end; what an explainer raises is a finding as well."""
    world = Explained(script)
    with patch.object(driver_stays, "OPERATIONS", OPERATIONS):
        try:
            world.power_on(epc=script.epc, low=script.low)
            for move in script.moves:
                n, name, number, value, spoil, steps = move
                world.step(n=n, move=name, number=number, value=value, spoil=spoil, steps=steps)
            world.armed.clear()
            world.finish()
        except Exception as error:
            # What the model itself raises after moves that ended early is for tests/property.
            where = [frame for frame in extract_tb(error.__traceback__) if explains(frame.filename)]
            if where:
                what = f"{type(error).__name__} in {where[-1].name}"
                world.judge.findings.append(Finding(what, f"raised: {error}"[:200], ""))
        finally:
            _close(world)
    PLAYED.clear()
    return world.judge


def _close(world: Explained) -> None:
    """End what is still in flight."""
    if hasattr(world, "execution"):
        with suppress(AssertionError, RuntimeError):
            world.execution.close()


def explains(path: str) -> bool:
    """Whether a file is part of the explaining code."""
    return any(part in path for part in _EXPLAINING)


def shrunk(script: Script, kind: tuple[str, str]) -> Script:
    """The script with most moves removed that a finding of this kind does not need."""
    left = PLAYS_MAX

    def finds(moves: tuple[Move, ...]) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            return False
        findings = play(script._replace(moves=moves)).findings
        return any(finding.kind == kind for finding in findings)

    moves, size = script.moves, len(script.moves) // 2
    while size:
        at = 0
        while at < len(moves):
            fewer = moves[:at] + moves[at + size :]
            if finds(fewer):
                moves = fewer
            else:
                at += size
        size //= 2
    return script._replace(moves=moves)


def scripts(seed: int, count: int) -> Iterator[Script]:
    """That many, each with a random generator of its own."""
    for number in range(count):
        yield random_script(Random(f"{seed}:{number}"))
