"""Copies of the checkout in which mutants live, each with an environment of its own.

The environment has the packages of the checkout's, but `softsgx` from the copy: so a test that
starts `python -m softsgx` or the command `softsgx`, in any environment, runs the mutant.
"""

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build" / "mutants"
SCRIPT: Final = """#!{python}
import sys
from softsgx.cli.main import main
sys.exit(main())
"""
# What pytest itself needs until the first test starts, in seconds of processor time.
START: Final = 20.0
# pytest's exit codes: all passed; a test failed.
PASSED, FAILED = 0, 1
TIMEOUT: Final = -1000
RUNNING: Final[dict[int, subprocess.Popen[bytes]]] = {}


@dataclass(frozen=True)
class Tree:
    """One copy. Only one process of pytest at a time."""

    root: Path

    @property
    def python(self) -> Path:
        """The interpreter of the copy's environment."""
        return self.root / ".venv" / "bin" / "python"

    def refresh(self) -> None:
        """Make the copy equal to the checkout, uncommitted and new files included."""
        command = ["git", "-C", str(ROOT), "ls-files", "-coz", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True).stdout
        paths = {os.fsdecode(path) for path in listed.split(b"\0") if path}
        paths = {path for path in paths if (ROOT / path).is_file()}
        for path in sorted(paths):
            self._copy(path)
        for directory, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name not in (".venv", "__pycache__")]
            for name in files:
                file = Path(directory, name)
                if file.relative_to(self.root).as_posix() not in paths:
                    file.unlink()
        self._environment()

    def _copy(self, path: str) -> None:
        source, target = ROOT / path, self.root / path
        was, now = source.stat(), target.stat() if target.exists() else None
        if now is None or (was.st_mtime_ns, was.st_size) != (now.st_mtime_ns, now.st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)

    def _environment(self) -> None:
        if not self.python.exists():
            venv.create(self.root / ".venv", symlinks=True)
        packages = next((self.root / ".venv" / "lib").iterdir()) / "site-packages"
        outer = sysconfig.get_path("purelib")
        lines = f"{self.root / 'src'}\nimport site; site.addsitedir({outer!r})\n"
        (packages / "mutants.pth").write_text(lines, encoding="utf-8")
        script = self.python.with_name("softsgx")
        script.write_text(SCRIPT.format(python=self.python), encoding="utf-8")
        script.chmod(0o755)

    def write(self, path: str, text: str, serial: int) -> None:
        """Put another text of a file there; `serial` differs from call to call.

        Python reuses compiled files by time and size of the source, which two mutants may share.
        """
        (self.root / path).write_text(text, encoding="utf-8")
        os.utime(self.root / path, (serial, serial))

    def pytest(
        self, arguments: list[str], environment: dict[str, str], seconds: float | None
    ) -> tuple[int, str]:
        """Run pytest; its exit code and output, or TIMEOUT after more than `seconds` of work.

        The limit is of processor time, and ten times as much by the clock for a test that waits for
        ever: a loaded machine must not kill mutants.
        """
        command = [str(self.python), "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "-q"]
        path = f"{self.python.parent}:{os.environ['PATH']}"
        # Keep compiled files even if the environment says not to: there are thousands of starts.
        compiled = {"PYTHONDONTWRITEBYTECODE": ""}
        env = {**os.environ, **compiled, **environment, "PATH": path}
        log = self.root.with_suffix(".log")

        def limit() -> None:
            if seconds is not None:
                most = int(seconds + START)
                resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))

        with log.open("w+", encoding="utf-8", errors="replace") as out:
            process = subprocess.Popen(
                command + arguments,
                cwd=self.root,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=limit,
            )
            RUNNING[process.pid] = process
            try:
                code = process.wait(None if seconds is None else 10 * (seconds + START))
            except subprocess.TimeoutExpired:
                code = TIMEOUT
            finally:
                _end(process)
                del RUNNING[process.pid]
            out.seek(0)
            text = out.read()
        return (TIMEOUT if code in (-signal.SIGXCPU, -signal.SIGKILL) else code), text


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of a session: the tests of a mutant may leave processes running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_all() -> None:
    """End every session, and this program: nothing that it started may outlive it."""
    for process in list(RUNNING.values()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    os._exit(2)


def alone(directory: Path = BUILD) -> IO[str]:
    """Lock the copies of a directory for this process, as long as the result is kept open."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise SystemExit(f"softsgx: mutants: {directory}: another campaign runs there") from None
    return lock


def tree(number: int) -> Tree:
    """The copy of one of several processes, as the checkout is now."""
    copy = Tree(BUILD / f"tree-{number}")
    copy.refresh()
    return copy
