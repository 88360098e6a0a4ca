"""A driver object from a source tree: the driver's files, unmodified, and the run time of softsgx.

The object is an ELF file linked to a fixed address, without any library. In the compiler's own
assembler output the bytes of ENCLS become a call; or they stay, for the handler of SIGILL.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softsgx.cdriver import manifest as m
from softsgx.cdriver.elf import LINES
from softsgx.cdriver.errors import CompileError, DriverError
from softsgx.cdriver.tree import ARCH, SOURCES, Tree

INCLUDE: Final = m.C / "include"
# entries.c and the others know nothing of the tree; view.c reads its structures.
RUNTIME: Final = (
    "runtime.c",
    "notes.c",
    "changed.c",
    "heap.c",
    "print.c",
    "shim.c",
    "entries.c",
    "view.c",
)

_FLAGS: Final = (
    *("-std=gnu11", "-O1", "-g", "-fPIE", "-ffreestanding", "-nostdinc"),
    *("-fno-strict-aliasing", "-fno-omit-frame-pointer", "-fno-stack-protector"),
    *("-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-builtin"),
    *("-mno-red-zone", "-mgeneral-regs-only", "-fno-delete-null-pointer-checks"),
    # A backtrace names the functions as they are in the source.
    *("-fno-inline-functions-called-once", "-fno-optimize-sibling-calls"),
    *("-fdiagnostics-color=never", "-Wall"),
    *("-Werror=implicit-function-declaration", "-Werror=implicit-int"),
)  # fmt: skip
# A call in every basic block and at each access to memory: c/notes.c.
_TOLD: Final = (
    *("-fsanitize-coverage=trace-pc", "-fsanitize=thread", "-Wno-tsan"),
    *("--param=tsan-distinguish-volatile=1", "--param=tsan-instrument-func-entry-exit=0"),
)  # fmt: skip

ENCLS_BYTES: Final = re.compile(r"\.byte 0x0f, ?0x01, ?0xcf")
ENCLS_CALL: Final = "call k_encls"

_ERROR: Final = r"^(?P<at>[^:\n]+:\d+):\d+: error: "
_UNKNOWN: Final = tuple(
    re.compile(_ERROR + said)
    for said in (
        r"implicit declaration of function '(?P<name>\w+)'",
        r"'(?P<name>\w+)' undeclared",
        r"unknown type name '(?P<name>\w+)'",
        r".*(?:undefined|incomplete) type '(?P<name>[\w ]+)'",
        r"'(?P<name>[\w ]+)' has no member named",
    )
)
_KINDS: Final = (
    "{name}(): a function of the kernel that softsgx does not have",
    "{name}: a name of the kernel that softsgx does not have",
    "{name}: a type of the kernel that softsgx does not have",
    "{name}: a type of the kernel of which softsgx does not have this much",
    "{name}: a type of the kernel of which softsgx does not have this member",
)
_UNDEFINED: Final = re.compile(r"([\w./-]+:\d+): undefined reference to `(\w+)'")
_LINE: Final = re.compile(r"^(\S+\.[chs])\s+(\d+)\s+(0x[0-9a-f]+)\b", re.MULTILINE)


@dataclass(frozen=True)
class Built:
    """The object, and whether it had to be made."""

    data: bytes
    manifest: m.Manifest
    made: bool


def build(tree: Tree, encls: str = m.CALL, former: Path | None = None) -> Built:
    """The driver object of a tree. `former` is used as it is if it was made of the same inputs."""
    wanted = _wanted(tree, encls)
    if former is not None and former.is_file():
        try:
            if m.read(former) == wanted:
                return Built(former.read_bytes(), wanted, False)
        except DriverError:
            pass  # whatever it is, it will be replaced
    with tempfile.TemporaryDirectory(prefix="softsgx-driver-") as name:
        data = _Build(tree, encls, Path(name)).make(wanted)
    return Built(data, wanted, True)


def _wanted(tree: Tree, encls: str) -> m.Manifest:
    inputs = {str(path.relative_to(tree.top)): m.digest(path) for path in tree.files()}
    return m.Manifest(m.headers_digest(), tree.release, encls, inputs, _compiler_version())


def _compiler_version() -> str:
    for program in ("gcc", "objcopy", "objdump"):
        if shutil.which(program) is None:
            raise DriverError(f"{program}: not there: apt-get install gcc binutils")
    done = _call(["gcc", "-dumpfullversion"])
    return f"gcc {done.stdout.strip()}"


def _call(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


class _Build:
    """One build, in a directory of its own."""

    def __init__(self, tree: Tree, encls: str, place: Path) -> None:
        self.tree = tree
        self.encls = encls
        self.place = place
        self.flags = [
            *_FLAGS,
            f"-DK_LINUX={tree.code:#x}",
            f"-I{place}/include",
            f"-I{INCLUDE}",
            f"-I{tree.top.resolve() / ARCH}",
            f"-I{tree.driver.resolve()}",
            *("-include", "kernel.h"),
        ]

    def make(self, wanted: m.Manifest) -> bytes:
        """The bytes of the object."""
        self._forward()
        # The driver first: what it lacks is what the user wants to know.
        for name in SOURCES:
            self._compile_driver(name)
        # One unit: half of the time of a build is the start of compilers.
        unit = self.place / "runtime.c"
        unit.write_text("".join(f'#include "{m.C / name}"\n' for name in RUNTIME))
        self._gcc([*self.flags, f"-I{m.C}", "-c", str(unit), "-o", "runtime.o"], unit.name)
        self._link([*(f"{name}.o" for name in SOURCES), "runtime.o"])
        added = {m.SECTION: wanted.pack(), LINES: self._lines()}
        options = []
        for name, data in added.items():
            file = self.place / name
            file.write_bytes(data)
            options.append(f"--add-section={name}={file}")
        self._run(["objcopy", *options, "driver"], "driver")
        return (self.place / "driver").read_bytes()

    def _lines(self) -> bytes:
        """Which source line each address is of: [address, file, line], ascending."""
        done = _call(["objdump", "--dwarf=decodedline", "driver"], self.place)
        files: dict[str, int] = {}
        lines = sorted(
            [int(at, 16), files.setdefault(file, len(files)), int(line)]
            for file, line, at in _LINE.findall(done.stdout)
        )
        return json.dumps({"files": list(files), "lines": lines}).encode()

    def _forward(self) -> None:
        """A file for each header of the kernel that is included: all of ours."""
        for name in self.tree.includes():
            path = self.place / "include" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#include <kernel.h>\n")

    def _compile_driver(self, name: str) -> None:
        source = str(self.tree.driver.resolve() / name)
        listing = self.place / f"{name}.s"
        self._gcc([*self.flags, *_TOLD, "-S", source, "-o", str(listing)], name)
        text = listing.read_text()
        if self.encls == m.CALL:
            text = ENCLS_BYTES.sub(ENCLS_CALL, text)
            listing.write_text(text)
        self._run(["as", str(listing), "-o", f"{name}.o"], name)

    def _gcc(self, words: Sequence[str], name: str) -> None:
        self._run(["gcc", *words], name)

    def _run(self, command: Sequence[str], name: str) -> None:
        done = _call(command, self.place)
        if done.returncode:
            raise self._refused(done.stderr, name)

    def _refused(self, output: str, name: str) -> CompileError:
        """The first thing that the headers lack, or else that the file does not compile."""
        for line in output.splitlines():
            for pattern, kind in zip(_UNKNOWN, _KINDS, strict=True):
                if found := pattern.match(line):
                    what = kind.format(name=found["name"])
                    return CompileError(f"{self._shown(found['at'])}: {what}{self._of()}", output)
        return CompileError(f"{name}: does not compile{self._of()}", output)

    def _link(self, objects: Sequence[str]) -> None:
        script = m.C / "link.ld"
        options = [
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--no-relax,--build-id=none",
            f"-Wl,-T,{script}",
        ]
        done = _call(["gcc", *options, *objects, "-o", "driver"], self.place)
        if done.returncode == 0:
            return
        for at, name in _UNDEFINED.findall(done.stderr):
            what = f"{name}(): a function of the kernel that softsgx does not have"
            raise CompileError(f"{self._shown(at)}: {what}{self._of()}", done.stderr)
        raise CompileError(f"driver: cannot be linked{self._of()}", done.stderr)

    def _of(self) -> str:
        return f" (Linux {self.tree.release})"

    def _shown(self, at: str) -> str:
        """A place as it is called in the tree."""
        path, _, line = at.rpartition(":")
        top = self.tree.top.resolve()
        resolved = (self.place / path).resolve()
        name = resolved.relative_to(top) if resolved.is_relative_to(top) else Path(path).name
        return f"{name}:{line}"
