"""The C programs of tests/programs: what their first comment asks for, and building them.

Lines of that comment, all optional:

    enclave: ops threads=2     source in tests/programs/enclave, and how it becomes an image
    run: --epc 4M              options of `softsgx run`
    engines: unicorn           those that enforce what the program looks at (default: both)
    supervisors: ptrace        those that do what the program looks at (default: both)
    cc: -static -no-pie        options of the compiler; enclaves may have this line, too
    exit: 7                    exit code, or minus the signal that ends it (default: 0)

Of the words after the name of the enclave, `isvprodid`, `isvsvn` and `attributemask` go to
SIGSTRUCT, `miscselect`, `size` and `xfrm` to SECS; `text` is the address where it is linked;
the others are fields of ThreadLayout.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from softsgx.cpu.signature import development_key
from softsgx.image import EnclaveImage, sgxs
from softsgx.image.file import load
from softsgx.image.layout import ThreadLayout
from softsgx.image.sigstruct import SignOptions, mrsigner, sign
from softsgx.runner.options import SUPERVISORS
from tests.patience import LIMIT_S

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAMS: Final = ROOT / "tests" / "programs"
ENGINES: Final = ("unicorn", "native")

_GCC: Final = (
    *("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"),
    *("-I", str(PROGRAMS / "lib"), "-I", str(ROOT / "examples" / "edmm")),
)
_HOST: Final = ("-D_GNU_SOURCE", "-pthread")
_ENCLAVE: Final = (
    *("-nostdlib", "-fno-stack-protector", "-fcf-protection=none"),
    "-Wl,-z,max-page-size=4096,-z,noexecstack",
)
_SIGNED: Final = ("isvprodid", "isvsvn", "attributemask")
_SECS: Final = ("miscselect", "size", "xfrm")
_IMAGE: Final = ("text",)


EDMM: Final = ROOT / "examples" / "edmm"


def _asked(source: Path) -> dict[str, str]:
    comment = source.read_text(encoding="utf-8").split("*/")[0]
    return dict(
        re.findall(r"^ \* (enclave|run|engines|supervisors|cc|exit): (.*)$", comment, re.MULTILINE)
    )


@dataclass(frozen=True)
class Program:
    """One program, as its comment describes it."""

    source: Path
    enclave: str = ""
    words: tuple[tuple[str, int], ...] = ()
    options: tuple[str, ...] = ()
    engines: tuple[str, ...] = ENGINES
    supervisors: tuple[str, ...] = SUPERVISORS
    cc: tuple[str, ...] = ()
    exit: int = 0

    @classmethod
    def read(cls, source: Path) -> Program:
        """What the first comment of the source asks for."""
        asked = _asked(source)
        name, *words = asked.get("enclave", "").split() or [""]
        pairs = (word.split("=") for word in words)
        return cls(
            source=source,
            enclave=name,
            words=tuple((key, int(value, 0)) for key, value in pairs),
            options=tuple(asked.get("run", "").split()),
            engines=tuple(asked.get("engines", " ".join(ENGINES)).split()),
            supervisors=tuple(asked.get("supervisors", " ".join(SUPERVISORS)).split()),
            cc=tuple(asked.get("cc", "").split()),
            exit=int(asked.get("exit", "0")),
        )

    @property
    def name(self) -> str:
        """The file's name without .c."""
        return self.source.stem


def programs() -> list[Program]:
    """All programs in the order of their names."""
    return [Program.read(path) for path in sorted(PROGRAMS.glob("*.c"))]


@dataclass
class Workshop:
    """Builds programs and enclaves into a directory, each once."""

    directory: Path
    _made: dict[object, list[str]] = field(default_factory=dict)

    def command(self, program: Program) -> list[str]:
        """The program, and as its arguments the files of its enclave: SGXS, SIGSTRUCT, MRSIGNER."""
        return self._host(program) + (self._files(program) if program.enclave else [])

    def example(self) -> list[str]:
        """The host of examples/edmm, and the files of its enclave."""
        host = Program(source=EDMM / "host.c")
        enclave = Program(source=EDMM / "enclave.c", enclave="edmm", words=(("threads", 2),))
        return self._host(host) + self._files(enclave)[:2]

    def _host(self, program: Program) -> list[str]:
        if program.source not in self._made:
            output = self.directory / program.name
            _compile(program.source, output, *_HOST, *program.cc)
            self._made[program.source] = [str(output)]
        return self._made[program.source]

    def _files(self, program: Program) -> list[str]:
        key = (program.enclave, program.words)
        if key not in self._made:
            words: dict[str, Any] = dict(program.words)
            image = self._image(program.enclave, words)
            signed = SignOptions(**{name: words[name] for name in _SIGNED if name in words})
            sig = sign(image, development_key(), signed)
            stem = self.directory / f"{program.enclave}-{len(self._made)}"
            contents = {".sgxs": sgxs.write(image), ".sig": sig.pack(), ".signer": mrsigner(sig)}
            for suffix, content in contents.items():
                stem.with_suffix(suffix).write_bytes(content)
            self._made[key] = [str(stem.with_suffix(suffix)) for suffix in contents]
        return self._made[key]

    def _image(self, name: str, words: dict[str, Any]) -> EnclaveImage:
        source = EDMM / "enclave.c" if name == "edmm" else PROGRAMS / "enclave" / f"{name}.c"
        link = ["-static-pie", "-fpie"]
        if "text" in words:
            link = ["-static", "-no-pie", f"-Wl,-Ttext-segment={words['text']:#x}"]
        output = self.directory / f"{name}-{'-'.join(map(str, words.values()))}.elf"
        _compile(source, output, *_ENCLAVE, *link, *_asked(source).get("cc", "").split())
        others = {k: v for k, v in words.items() if k not in (*_SIGNED, *_SECS, *_IMAGE)}
        image = load(output.read_bytes(), ThreadLayout(**others))
        return replace(image, **{name: words[name] for name in _SECS if name in words})


def supervised(
    program: Sequence[str], *options: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`softsgx run OPTIONS -- PROGRAM`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "softsgx", "run", *options, "--", *program],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def _compile(source: Path, output: Path, *options: str) -> None:
    subprocess.run([*_GCC, *options, str(source), "-o", str(output)], check=True)
