"""A process with the vDSO and the stub mapped (harness.c), and this test as its supervisor."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from select import select
from struct import Struct, pack
from typing import IO, Final, NamedTuple

from softsgx.runner.inserted.layout import STUB, VDSO
from softsgx.runner.inserted.mailboxes import Mailboxes
from softsgx.runner.inserted.stub import stub_image
from softsgx.runner.inserted.vdso import vdso_image
from softsgx.spec.registers import RFLAGS, RIP, RSP
from tests.patience import until

HERE: Final = Path(__file__).parent
STATE: Final = Struct("18Q16x512s")
STACK: Final = 0x2000_0000
STACK_SIZE: Final = 8192
VDSO_IMAGE: Final = vdso_image(b"", 0, VDSO, STUB)
FUNCTION, AEP = VDSO_IMAGE.function, VDSO_IMAGE.enclu

CALL: Final = Struct("6Q9Q256s")
RUN: Final = Struct("QIHHQQQ216s")
SEEN: Final = Struct("9Q")
ANSWER: Final = Struct("q3Q256sQ")
LOOP: Final = Struct("4Qd")


class State(NamedTuple):
    """Registers in the order of `spec.registers`, and an FXSAVE64 image."""

    registers: tuple[int, ...]
    fx: bytes


class Run(NamedTuple):
    """struct sgx_enclave_run."""

    tcs: int = 0x1000
    function: int = 0
    vector: int = 0
    error_code: int = 0
    addr: int = 0
    user_handler: int = 0
    user_data: int = 0
    reserved: bytes = bytes(216)


class Seen(NamedTuple):
    """What a handler got, and how."""

    rdi: int
    rsi: int
    rdx: int
    rsp: int
    r8: int
    r9: int
    run_matches: int
    frame: int
    rflags: int


class Answer(NamedTuple):
    """What a call of the vDSO function came to."""

    result: int
    rbx: int
    rbp: int
    run_address: int
    run: Run
    seen: tuple[Seen, ...]


def random_state(random: Random, rsp: int, rip: int = 0, flags: int = 0x202) -> State:
    """Registers and a floating-point state that are different everywhere."""
    registers = [random.getrandbits(64) for _ in range(18)]
    registers[RSP], registers[RFLAGS], registers[RIP] = rsp, flags, rip
    fx = bytearray(random.randbytes(416) + bytes(96))
    # FCW rounds up, FSW 0, no register in use, MXCSR rounds down; stack registers of 80 bits.
    fx[0:24] = pack("<HHBBHQQ", 0x0B7F, 0, 0xFF, 0, 0, 0, 0)
    fx[24:32] = pack("<II", 0x3FBF, 0xFFFF)
    for i in range(8):
        fx[32 + 16 * i + 10 : 32 + 16 * i + 16] = bytes(6)
    return State(tuple(registers), bytes(fx))


def same_fx(one: bytes, other: bytes) -> bool:
    """Whether control words, tags, MXCSR and all registers are the same."""
    return one[0:5] == other[0:5] and one[24:28] == other[24:28] and one[32:416] == other[32:416]


class Harness:
    """The running program."""

    def __init__(self, process: subprocess.Popen[bytes], mailboxes: Mailboxes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.mailboxes = process, mailboxes
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout
        (self.landing,) = Struct("Q").unpack(self.read(8))

    def read(self, size: int) -> bytes:
        """Exactly so many bytes of its answer, which must come within 20 seconds."""
        data = b""
        while len(data) < size:
            assert select([self._output], [], [], 20)[0], "the harness hangs"
            part = self._output.read(size - len(data))
            if not part:
                break
            data += part
        assert len(data) == size, f"the harness ended with {self.process.wait()}"
        return data

    def write(self, *parts: bytes) -> None:
        """A command."""
        self._input.write(b"".join(parts))
        self._input.flush()

    def insert(self) -> int:
        """Give its first thread a mailbox."""
        mailbox = self.mailboxes.control.insert(self.process.pid)
        assert mailbox is not None
        return mailbox

    def request(self) -> int:
        """Wait for one request; its mailbox."""
        (mailbox,) = self.requests()
        return mailbox

    def requests(self) -> list[int]:
        """Wait for requests."""
        taken: list[int] = []

        def came() -> bool:
            taken.extend(self.mailboxes.wait(0.1))
            assert taken or self.process.poll() is None, f"ended with {self.process.returncode}"
            return bool(taken)

        until(came, "a request")
        return taken

    def enter(self, state: State, command: bytes = b"r") -> None:
        """Jump to STUB with this state."""
        self.write(command, STATE.pack(*state.registers, state.fx))

    def landed(self) -> tuple[State, bytes]:
        """The state at its landing place, and the memory that its stack pointer pointed into."""
        *registers, fx = STATE.unpack(self.read(STATE.size))
        return State(tuple(registers), fx), self.read(STACK_SIZE)

    def filter(self) -> None:
        """From now on int 0x80 leads to the landing place."""
        self.write(b"f")
        assert self.read(1) == b"f"

    def call(
        self, arguments: Sequence[int], run: Run, answers: Sequence[int] | None = None
    ) -> Callable[[], Answer]:
        """Call the vDSO function with RDI, RSI, RDX, leaf, R8, R9; a function that collects.

        With `answers`, a handler is called, which answers these.
        """
        script = [int(answers is not None), *(a & (1 << 64) - 1 for a in answers or ())]
        script += [0] * (9 - len(script))
        self.write(b"c", CALL.pack(*arguments, *script, RUN.pack(*run)))
        return self._answer

    def _answer(self) -> Answer:
        result, rbx, rbp, address, run, calls = ANSWER.unpack(self.read(ANSWER.size))
        seen = [Seen(*SEEN.unpack(self.read(SEEN.size))) for _ in range(8)]
        return Answer(result, rbx, rbp, address, Run(*RUN.unpack(run)), tuple(seen[:calls]))


def compile_c(directory: Path, *sources: str, name: str, compiler: str = "gcc") -> Path:
    """Compile a program of this directory; options among its sources begin with -."""
    program = directory / name
    options = (
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        "-mno-red-zone",
        "-o",
        str(program),
    )
    subprocess.run(
        [compiler, *options, *(s if s.startswith("-") else str(HERE / s) for s in sources)],
        check=True,
    )
    return program


@contextmanager
def start(program: Path) -> Iterator[Harness]:
    """Run the harness for one test."""
    mailboxes = Mailboxes()
    mailboxes.control.aep = AEP
    images = (("vdso.so", VDSO_IMAGE.image), ("stub.bin", stub_image()))
    for name, image in images:
        (program.parent / name).write_bytes(image)
    files = [str(program.parent / name) for name, _ in images]
    fd = os.dup(mailboxes.fd)
    command = [str(program), *files, str(fd), str(FUNCTION), str(STUB)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd], bufsize=0
    )
    os.close(fd)
    with process:
        try:
            yield Harness(process, mailboxes)
        finally:
            process.kill()
            mailboxes.close()
