"""gdb and native enclaves: symbols of the enclave, and the way in from the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from softsgx.runner.inserted.layout import VDSO
from tests.patience import until
from tests.runner.programs import ENGINES, ROOT, Program, Workshop
from tests.runner.tools.running import GDB, HERE, attached, needs, run, supervised

pytestmark = needs("gdb")

HOST = Program.read(HERE / "sanitized.c")
SCRIPT = str(ROOT / "docs" / "softsgx.gdb")


def elrange(pid: int) -> str:
    """Where the enclave of a process begins."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return "0x" + next(line for line in lines if "/dev/sgx_enclave" in line).split("-")[0]


def test_symbols_and_a_breakpoint_of_the_enclave(workshop: Workshop) -> None:
    """A debug register stops the thread inside, and the SIGTRAP is gdb's."""
    with attached(workshop, "native", "inside") as program:
        elf = workshop.directory / "ops-.elf"
        words = ("-ex", f"add-symbol-file {elf} -o {elrange(program.pid)}")
        stops = ("-ex", "thbreak *$pc", "-ex", "continue", "-ex", "info symbol $pc")
        command = (*GDB, "-p", str(program.pid), "-x", SCRIPT, *words)
        symbol = f" in section .text of {elf}"
        said = [""]

        def stops_inside() -> bool:
            """A tick may just have taken the thread out of the enclave when gdb attaches."""
            said[0] = run(*command, *stops).stdout
            after = said[0].partition("Temporary breakpoint 1, ")[2]
            return symbol in after or "hardware breakpoint" in said[0]

        until(lambda: symbol in run(*command, "-ex", "info symbol $pc").stdout, "a symbol")
        until(stops_inside, "a stop inside")
        if "hardware breakpoint" in said[0]:
            pytest.skip("no debug registers here")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_callers_of_the_vdso_function(engine: str, workshop: Workshop) -> None:
    """The image in memory has symbols and frame descriptions."""
    words = (
        *("-ex", "break leak", "-ex", "run", "-ex", f"add-symbol-file-from-memory {VDSO:#x}"),
        # After endbr64, push rbp, mov rbp, rsp and push rbx.
        *("-ex", "tbreak *(&__vdso_sgx_enter_enclave + 9)", "-ex", "continue", "-ex", "backtrace"),
        *("-ex", "continue"),
    )
    host = workshop.directory / "inside"
    host.mkdir(exist_ok=True)
    command = Workshop(host).command(HOST)
    done = run(
        *supervised(*GDB, "-x", SCRIPT, *words, "--args", *command, "leak", engine=engine)
    ).stdout
    frames = [line for line in done.splitlines() if line.startswith("#")]
    assert "in __vdso_sgx_enter_enclave ()" in frames[0], done
    assert "in enter_saving ()" in frames[1], done
    assert "main (" in frames[-1], done
    assert "exited normally]" in done, done
