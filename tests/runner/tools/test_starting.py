"""gdb and strace start a program inside a run, `softsgx run -- gdb --args ./app`, or a run.

The story: the supervisor traces a thread from exec to the first instruction of the new program. One
that is traced already was refused its exec, and gdb, which makes its child by vfork, waited for
ever: the child had called PTRACE_TRACEME, and the stub's first signal stopped it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.runner.programs import ENGINES, ROOT, Program, Workshop
from tests.runner.tools.running import GDB, HERE, needs, run, supervised

HOST = Program.read(HERE / "sanitized.c")
LINKED = {"dynamic": (), "static": ("-static",), "static-pie": ("-static-pie",)}
CASES = [pytest.param(e, k, id=f"{e}-{k}") for e in ENGINES for k in LINKED]
SCRIPT = str(ROOT / "docs" / "softsgx.gdb")


def host(workshop: Workshop, linked: str) -> list[str]:
    """A program with a function `leak`, and its arguments."""
    directory = workshop.directory / linked
    directory.mkdir(exist_ok=True)
    program = replace(HOST, cc=("-g", *LINKED[linked]))
    return [*Workshop(directory).command(program), "leak"]


class TestStrace:
    pytestmark = needs("strace")

    @pytest.mark.parametrize(("engine", "linked"), CASES)
    def test_starts_a_program(self, engine: str, linked: str, workshop: Workshop) -> None:
        command = ["strace", "-f", *host(workshop, linked)]
        done = run(*supervised(*command, engine=engine))
        assert done.returncode == 0, done.stdout
        assert "ok leak" in done.stdout, done.stdout
        assert "+++ exited with 0 +++" in done.stdout, done.stdout

    @pytest.mark.parametrize("options", [(), ("-f",)], ids=["alone", "follow"])
    def test_starts_softsgx(self, options: tuple[str, ...], workshop: Workshop) -> None:
        """It sees the program, and not the supervisor."""
        softsgx = supervised(*host(workshop, "dynamic"), engine="unicorn")
        done = run("strace", *options, *softsgx)
        assert done.returncode == 0, done.stdout
        assert "ok leak" in done.stdout, done.stdout
        assert "PTRACE_SEIZE" not in done.stdout, done.stdout
        assert done.stdout.endswith("+++ exited with 0 +++\n"), done.stdout

    def test_follows_what_a_shell_starts(self, workshop: Workshop) -> None:
        script = 'true; "$@" | cat; exit 3'
        command = ["strace", "-f", "sh", "-c", script, "sh", *host(workshop, "dynamic")]
        done = run(*supervised(*command, engine="unicorn"))
        assert done.returncode == 3, done.stdout
        assert done.stdout.count("+++ exited with 0 +++") == 2, done.stdout
        assert "ok leak" in done.stdout, done.stdout


class TestGdb:
    pytestmark = needs("gdb")

    @pytest.mark.parametrize(("engine", "linked"), CASES)
    def test_starts_a_program(self, engine: str, linked: str, workshop: Workshop) -> None:
        """Its breakpoint is its own: the SIGTRAP goes to it, not to the stub."""
        words = ("-ex", "break leak", "-ex", "run", "-ex", "backtrace", "-ex", "continue")
        command = [*GDB, "-x", SCRIPT, *words, "--args", *host(workshop, linked)]
        done = run(*supervised(*command, engine=engine))
        assert "Breakpoint 1, leak" in done.stdout, done.stdout
        assert "in main (" in done.stdout, done.stdout
        assert "ok leak" in done.stdout, done.stdout
        assert "exited normally]" in done.stdout, done.stdout
        assert "SIGSYS" not in done.stdout.split("Breakpoint 1, ")[1], done.stdout

    @pytest.mark.parametrize("follow", ["parent", "child"])
    @pytest.mark.parametrize("engine", ENGINES)
    def test_starts_softsgx(self, engine: str, follow: str, workshop: Workshop) -> None:
        """What gdb started becomes the program. Else gdb lost it, or traced the supervisor."""
        before = ("-ex", f"set follow-fork-mode {follow}", "-ex", "set breakpoint pending on")
        words = ("-ex", "break leak", "-ex", "run", "-ex", "backtrace", "-ex", "continue")
        softsgx = supervised(*host(workshop, "dynamic"), engine=engine)
        done = run(*GDB, "-x", SCRIPT, *before, *words, "--args", *softsgx)
        assert "Breakpoint 1, leak" in done.stdout, done.stdout
        assert "in main (" in done.stdout, done.stdout
        assert "ok leak" in done.stdout, done.stdout
        assert "exited normally]" in done.stdout, done.stdout

    def test_starts_softsgx_with_a_program_that_is_not_there(self) -> None:
        softsgx = supervised("/nonexistent", engine="unicorn")
        done = run(*GDB, "-ex", "run", "--args", *softsgx)
        assert "/nonexistent: no such file or directory" in done.stdout, done.stdout
        assert "exited with code 0177]" in done.stdout, done.stdout


class TestValgrind:
    pytestmark = needs("valgrind")

    def test_says_plainly_that_it_cannot(self, workshop: Workshop) -> None:
        done = run(*supervised("valgrind", "-q", *host(workshop, "dynamic"), engine="unicorn"))
        assert done.returncode == 1, done.stdout
        line = "valgrind executes a translation of its program, which cannot be supervised"
        assert done.stdout.count(line) == 1, done.stdout
        assert "open /dev/sgx_enclave: Bad address" in done.stdout, done.stdout

    def test_runs_a_program_without_enclaves(self) -> None:
        done = run(*supervised("valgrind", "-q", "/bin/echo", "hi", engine="unicorn"))
        assert done.returncode == 0, done.stdout
        assert done.stdout.endswith("\nhi\n"), done.stdout
