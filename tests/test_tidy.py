"""The repository's rules. Each is run over the tree, and over examples that it must refuse."""

from collections.abc import Callable, Iterator

import pytest

from tests.tidy import circles, citations, form, purity, repository, rooms, waiting
from tests.tidy.source import ROOT, Source, sources

Rule = Callable[[Source], Iterator[str]]

RULES: list[Rule] = [
    rooms.room_order,
    rooms.inner_order,
    rooms.live_short_cut,
    form.dead_private_names,
    purity.no_clock_no_entropy,
    purity.no_set_order,
    form.no_hiding,
    form.lengths,
    form.docstrings,
    form.dead_assignments,
    form.system_call_numbers,
    form.masks_have_a_name,
]


def name_of(rule: object) -> str:
    return getattr(rule, "__name__", "")


def report(findings: Iterator[str]) -> None:
    found = list(findings)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_sources_obey(rule: Rule) -> None:
    report(finding for source in sources() for finding in rule(source))


def test_tests_wait_for_facts() -> None:
    """A test that waited for a second failed on a machine where that was too short."""
    report(found for source in waiting.sources_of_tests() for found in waiting.no_seconds(source))
    assert {path for path in waiting.ALLOWED if not (ROOT / path).is_file()} == set()


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.sleep(1)",
        "import time as t\nassert t.monotonic() < 3",
        "from time import sleep",
        "subprocess.run(command, timeout=60)",
        "process.wait(20)",
        "LIMIT_S = 300\nsubprocess.run(command, timeout=LIMIT_S)",
        "LIMIT_S: Final = 300\nprocess.wait(LIMIT_S)",
        "import time\nclock = time.perf_counter",
    ],
)
def test_seconds_in_tests_are_found(text: str) -> None:
    assert list(waiting.no_seconds(Source("tests/cli/test_a.py", text)))
    assert not list(waiting.no_seconds(Source("tests/a.py", "run(timeout=LIMIT_S)\nx.wait()")))


def test_a_constant_stands_once() -> None:
    report(form.repeated_constants(sources()))
    twice = [Source(f"src/softsgx/cpu/{name}.py", "A_B: int = 1 << 3") for name in "ab"]
    assert len(list(form.repeated_constants(twice))) == 1
    assert not list(form.repeated_constants(twice, {"A_B": "one each"}))
    assert not list(form.repeated_constants([twice[0], Source(twice[1].path, "A_B = 9")]))
    for text in ("_A_B = 0x8", "SYS_A_B: Final = 8", "NR_A, NR_A_B = 7, 8"):
        calls = [Source("src/softsgx/cpu/a.py", "A_B = 8"), Source("src/softsgx/cpu/b.py", text)]
        assert len(list(form.repeated_constants(calls))) == 1, text


def test_modules_do_not_import_in_a_circle() -> None:
    report(circles.circles(sources()))
    assert len(list(circles.circles(sources(), {}))) == len(circles.KEPT)
    a = Source("src/softsgx/cpu/a.py", "from softsgx.cpu import b")
    b = Source("src/softsgx/cpu/b.py", "def f():\n    from softsgx.cpu.c import x")
    c = Source("src/softsgx/cpu/c.py", "import softsgx.cpu.a")
    assert len(list(circles.circles([a, b, c]))) == 1
    assert not list(circles.circles([a, b, c], {tuple(f"softsgx.cpu.{x}" for x in "abc"): "why"}))
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import softsgx.cpu.a"
    assert not list(circles.circles([a, b, Source(c.path, typed)]))
    assert len(list(circles.circles([a, b, Source(c.path, typed)], typed_too=True))) == 1


def test_some_rooms_have_no_circle_of_types_either() -> None:
    files = [source for source in sources() if source.room in circles.ROOMS_TYPED_TOO]
    report(circles.circles(files, typed_too=True))


def test_no_file_names_this_workplace_or_a_registry() -> None:
    report(
        finding
        for path, text in repository.text_files()
        for finding in repository.banned_words(path, text)
    )


def test_citations_are_listed() -> None:
    report(
        finding
        for path, text in citations.cited_files()
        for finding in citations.unknown(path, text)
    )


def test_every_listed_source_is_cited() -> None:
    """What nothing cites any more leaves the page."""
    used = {name for _, text in citations.cited_files() for name, _, _ in citations.citations(text)}
    listed = citations.sources()
    sections = {f"{document}, {n}, {title}" for document, n, title in listed.sections}
    assert (listed.documents - {"man"} | listed.kernels | sections) - used == set()
    assert {path for path in citations.EXEMPT if not (ROOT / path).is_file()} == set()


@pytest.mark.parametrize(
    "text",
    [
        "SDM 3D, 38.7",
        "SDM 3D 38.7",
        "SDM 3D: 38.7",
        "SDM 3D (38.7)",
        "SDM 3D, 38.7 and 38.8",
        'SDM 3D, 38.7 "Thread Control Structure (TCS)"',
        'SDM 3D, "Enclave Code Execution"',
        'SDM 3A, "Keys"',
        "SDM 3D, EMODPE, EMOD",
        "SDM 3D, abort page semantics",
        "SDM 3E",
        "the SDM says so",
        'SDM 3A, 4.6 "Access Rights" and 4.7',
        "DWARF 5",
        "DWARF 4, 6.4",
        "LSB Desktop",
        "FIPS 140",
        "Linux 6.14, mm/mmap.c",
        "Linux 6.12, asm/sgx.h",
    ],
)
def test_citations_that_do_not_last_are_found(text: str) -> None:
    assert list(citations.unknown("src/softsgx/cpu/a.py", f'"""A.\n\n{text}.\n"""'))


@pytest.mark.parametrize(
    "text",
    [
        'SDM 3D, 38.7 "SGX Enclave Control\n# Structure (SECS)", 39.4.3 "Keys"',
        "SDM 3D, ELDB/ELDU/ELDBC/ELDUC, EWB and EINIT",
        'SDM 3A, "Access Rights"; SDM 4',
        "as SDM 3D says",
        'DWARF 4, 6.4 "Call Frame Information"',
        "DWARF pointer encodings",
        "Linux 6.12, sgx/main.c, sgx_encl_ewb",
        "Linux 6.18.44, on a Xeon",
    ],
)
def test_citations_that_last_are_not(text: str) -> None:
    report(citations.unknown("src/softsgx/cpu/a.py", f"# {text}\n"))


def test_the_changelog_is_wrapped() -> None:
    changelog, width = (ROOT / "CHANGELOG.md").read_text("utf-8"), repository.CHANGELOG_WIDTH
    report(repository.wide_lines("CHANGELOG.md", changelog, width))
    assert len(list(repository.wide_lines("a", f"{'x' * width}\n{'y' * (width + 1)}", width))) == 1


def test_ranges_have_reasons_and_are_locked() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lock = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    report(repository.reasoned_ranges(pyproject))
    report(repository.stale_lock(pyproject, lock))


def test_lists_of_exceptions_are_needed() -> None:
    """An entry goes with its file or function, or when that is no longer too long."""
    long = {
        f"{source.path}:{name}" if not name[0].isdigit() else source.path
        for source in sources()
        for finding in form.lengths(source, {})
        for name in [finding.split(": ")[1]]
    }
    assert set(form.LONG) <= long
    for name in form.OWN:
        fewer = {own: why for own, why in form.OWN.items() if own != name}
        assert list(form.repeated_constants(sources(), fewer)), f"{name} stands once by now"
    assert all(form.LONG.values()), "an entry without a reason"
    assert list(purity.EXEMPT.values()).count("random") == 1, "one seeded source, and one only"
    for path, module in purity.EXEMPT.items():
        assert f"import {module}" in (ROOT / path).read_text(encoding="utf-8") or module == "random"


# Every rule can fail: (rule, file, text). The file decides what its text may do.
REFUSED: list[tuple[Rule, str, str]] = [
    (rooms.room_order, "spec/a.py", "import softsgx.sim"),
    (rooms.room_order, "spec/a.py", "import softsgx.sim.tasks as tasks"),
    (rooms.room_order, "sim/a.py", "from softsgx.cpu import leaf"),
    (rooms.room_order, "sim/a.py", "from softsgx.events import kernel"),
    (rooms.room_order, "sim/a.py", "import softsgx.spec"),
    (rooms.room_order, "sim/a.py", "from softsgx import cpu"),
    (rooms.room_order, "sim/a.py", "from softsgx import Machine"),
    (rooms.room_order, "sim/a.py", "import softsgx"),
    (rooms.room_order, "mem/__init__.py", "from ..cpu import leaf"),
    (rooms.room_order, "mem/__init__.py", "from .. import cpu"),
    (rooms.room_order, "cpu/leaf/a.py", "from ...linux import main"),
    (rooms.room_order, "cpu/leaf/__init__.py", "from ...linux import main"),
    (rooms.room_order, "cpu/a.py", "def f():\n    from softsgx.system import Machine"),
    (
        rooms.room_order,
        "cpu/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import softsgx.linux",
    ),
    (rooms.room_order, "cpu/a.py", "import importlib\nimportlib.import_module('softsgx.linux')"),
    (rooms.room_order, "linux/a.py", "import softsgx.image"),
    (rooms.room_order, "image/a.py", "import softsgx.linux"),
    (rooms.room_order, "explore/a.py", "import softsgx.spec"),
    (rooms.room_order, "explore/a.py", "import softsgx.events"),
    (rooms.room_order, "report/a.py", "import softsgx.mem"),
    (rooms.room_order, "lab/a.py", "import softsgx.runner"),
    (rooms.room_order, "runner/a.py", "import softsgx.lab"),
    (rooms.room_order, "runner/a.py", "import softsgx.cli"),
    (rooms.room_order, "cli/a.py", "import softsgx.attic"),
    (rooms.room_order, "__init__.py", "from softsgx.cli import main"),
    (rooms.room_order, "attic/a.py", ""),
    (rooms.inner_order, "runner/host/a.py", "from softsgx.runner.code import sites"),
    (rooms.inner_order, "runner/host/a.py", "from softsgx.runner import process"),
    (rooms.inner_order, "runner/host/a.py", "import softsgx.runner.process.world"),
    (rooms.inner_order, "runner/host/a.py", "from ..process import world"),
    (rooms.inner_order, "runner/host/__init__.py", "from .. import process"),
    (rooms.inner_order, "runner/a.py", ""),
    (rooms.inner_order, "runner/attic/a.py", ""),
    (rooms.inner_order, "runner/options.py", "from softsgx.runner.host import ptrace"),
    (rooms.inner_order, "runner/options.py", "from softsgx.runner.ways import WAYS"),
    (rooms.inner_order, "runner/native/a.py", "from softsgx.runner.emulator import engine"),
    (
        rooms.inner_order,
        "runner/calls/a.py",
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from softsgx.runner.supervisor.supervisor import Supervisor",
    ),
    (rooms.inner_order, "runner/calls/a.py", "def f():\n    from softsgx.runner import session"),
    (rooms.inner_order, "system/host.py", "from softsgx.system.machine import Machine"),
    (rooms.inner_order, "system/checkers/a.py", "from softsgx.system.scenarios import words"),
    (rooms.inner_order, "system/explain/a.py", ""),
    (rooms.inner_order, "system/explain/calls/a.py", "from ...machine import Machine"),
    (rooms.inner_order, "system/explain/facts.py", "from softsgx.system.explain import plans"),
    (form.dead_private_names, "cpu/a.py", "_A: Final = 1"),
    (form.dead_private_names, "cpu/a.py", "_A, _B = 1, 2\nprint_ = _A"),
    (rooms.live_short_cut, "linux/sgx/a.py", "from softsgx.sim.live import LIVE"),
    (rooms.live_short_cut, "system/a.py", "from softsgx.sim import live"),
    (rooms.live_short_cut, "cpu/a.py", "def f():\n    import softsgx.sim.live"),
    (rooms.live_short_cut, "cpu/leaf/a.py", "from ...sim.live import LIVE"),
    *(
        (purity.no_clock_no_entropy, f"{room}/a.py", f"import {module}")
        for room in ("spec", "sim", "system", "lab", "explore")
        for module in sorted(purity.FORBIDDEN_MODULES)
    ),
    (purity.no_clock_no_entropy, "__init__.py", "import time"),
    (purity.no_clock_no_entropy, "sim/rng.py", "import secrets"),
    (purity.no_clock_no_entropy, "sim/other.py", "from random import Random"),
    (purity.no_clock_no_entropy, "sim/a.py", "from concurrent.futures import Future"),
    (purity.no_clock_no_entropy, "sim/a.py", "import os\nos.urandom(8)"),
    (purity.no_clock_no_entropy, "sim/a.py", "from os import urandom as bytes_of"),
    (purity.no_clock_no_entropy, "sim/a.py", "import copy as c\nc.deepcopy([])"),
    (purity.no_clock_no_entropy, "sim/a.py", "from copy import deepcopy"),
    (purity.no_clock_no_entropy, "sim/a.py", "import datetime\ndatetime.datetime.now()"),
    (purity.no_clock_no_entropy, "sim/a.py", "from datetime import date as d\nd.today()"),
    (purity.no_set_order, "cpu/a.py", "for x in {1, 2}: pass"),
    (purity.no_set_order, "cpu/a.py", "for x in set(y): pass"),
    (purity.no_set_order, "cpu/a.py", "a = [x for x in frozenset(y)]"),
    (purity.no_set_order, "cpu/a.py", "a = {x: 1 for x in {y for y in z}}"),
    (purity.no_set_order, "cpu/a.py", "for x in set(y) - z: pass"),
    (purity.no_set_order, "cpu/a.py", "a = list({1, 2})"),
    (purity.no_set_order, "cpu/a.py", "a = [*{1, 2}]"),
    (purity.no_set_order, "cpu/a.py", "a = ' '.join(set(y))"),
    (purity.no_set_order, "cpu/a.py", "def f(y: set[int]):\n    yield from y"),
    (purity.no_set_order, "cpu/a.py", "class A:\n    y: set[int]\n    def f(self): list(self.y)"),
    (purity.no_set_order, "cpu/a.py", "import typing\ny: typing.Final[set[int]] = set()\n[*y]"),
    (form.masks_have_a_name, "runner/a.py", "ALL = (1 << 64) - 1"),
    (form.masks_have_a_name, "report/a.py", "value &= 0xFFFF_FFFF_FFFF_FFFF"),
    (form.no_hiding, "cpu/a.py", "from os import *"),
    (form.no_hiding, "cpu/a.py", "try: pass\nexcept: pass"),
    (form.no_hiding, "cpu/a.py", "raise Exception('no')"),
    (form.no_hiding, "cpu/a.py", "raise BaseException"),
    (form.no_hiding, "runner/a.py", "print('hello')"),
    (form.no_hiding, "cli/progress.py", "print('hello', file=sys.stderr)"),
    (form.lengths, "cpu/a.py", "f()\n" * (form.FILE_LINES_MAX + 1)),
    (form.lengths, "cpu/a.py", "def f():\n" + "    g()\n" * form.FUNCTION_LINES_MAX),
    (
        form.lengths,
        "cpu/a.py",
        "class A:\n    def f():\n" + "        g()\n" * form.FUNCTION_LINES_MAX,
    ),
    (form.dead_assignments, "cpu/a.py", "def f():\n    x = 1\n    g()\n    x = 1\n    return x"),
    (
        form.dead_assignments,
        "cpu/a.py",
        "def f():\n    while g():\n        x: int = 1\n        h()\n        x = 2\n    return x",
    ),
    (form.system_call_numbers, "runner/calls/a.py", "NR_MMAP: Final = 9"),
    (form.system_call_numbers, "runner/calls/a.py", "_SYS_OPEN, _SYS_CLOSE = 2, 3"),
    (form.system_call_numbers, "runner/calls/a.py", "def f(t):\n    t.inject(9, 0, 4096)"),
    (form.system_call_numbers, "runner/calls/a.py", "libc.syscall(186)"),
    (form.docstrings, "cpu/__init__.py", ""),
    (form.docstrings, "cpu/a.py", "x = 1"),
    (form.docstrings, "cpu/a.py", '"""A."""\nclass A: pass'),
    (form.docstrings, "cpu/a.py", '"""A."""\nclass A:\n    """A."""\n    class B: pass'),
]

ACCEPTED: list[tuple[Rule, str, str]] = [
    (rooms.room_order, "cpu/a.py", "from softsgx import __version__, mem, spec"),
    (rooms.room_order, "cpu/leaf/a.py", "from ..access import walk\nfrom ...mem import tlb"),
    (rooms.room_order, "cpu/leaf/a.py", "from . import b\nfrom .. import epcm\nimport os"),
    (rooms.room_order, "explore/a.py", "from softsgx.sim import tasks"),
    (rooms.room_order, "report/a.py", "from softsgx.spec import leaves"),
    (rooms.room_order, "report/a.py", "from softsgx.events.kernel import Fields"),
    (rooms.room_order, "cli/a.py", "import softsgx\nfrom softsgx.runner import ptrace"),
    (rooms.room_order, "__init__.py", "def f():\n    from softsgx.system import Machine"),
    (rooms.inner_order, "runner/process/a.py", "from softsgx.runner.inserted.stub import INT80"),
    (
        rooms.inner_order,
        "runner/process/a.py",
        "from . import world\nfrom softsgx.spec import bits",
    ),
    (rooms.inner_order, "runner/host/a.py", "from softsgx.runner import errors, ways"),
    (rooms.inner_order, "linux/a.py", "from softsgx.runner.host import ptrace"),
    (rooms.inner_order, "system/explain/explainer.py", "from .calls import explain_call"),
    (rooms.inner_order, "system/scenarios/a.py", "from softsgx.system.checkers import CHECKERS"),
    (form.dead_private_names, "cpu/a.py", "_A = 1\ndef f():\n    return _A\nB = 2"),
    (rooms.live_short_cut, "sim/a.py", "from softsgx.sim.live import LIVE"),
    (rooms.live_short_cut, "cpu/execute.py", "from softsgx.sim.live import LIVE"),
    (rooms.live_short_cut, "cpu/a.py", "from softsgx.sim import live_tasks, lives"),
    (purity.no_clock_no_entropy, "sim/rng.py", "from random import Random"),
    (purity.no_clock_no_entropy, "runner/a.py", "import ctypes, time, os\nos.urandom(8)"),
    (purity.no_clock_no_entropy, "sim/a.py", "from .time import Clock\ntime = 1\ncopy = [time]"),
    (purity.no_set_order, "cpu/a.py", "for x in sorted({2, 1}): pass"),
    (purity.no_set_order, "cpu/a.py", "a = any(x for x in {1}) or 1 in {1, 2}"),
    (purity.no_set_order, "cpu/a.py", "a = sorted(x for x in set(y))"),
    (purity.no_set_order, "cpu/a.py", "a: dict[str, set[int]] = {}\nfor x in a: pass"),
    (form.no_hiding, "cli/ends.py", "print('hello')"),
    (form.no_hiding, "cpu/a.py", "try: pass\nexcept ValueError: raise"),
    (form.lengths, "spec/a.py", "x = (\n" + "    1,\n" * form.FILE_LINES_MAX + ")\n"),
    (
        form.dead_assignments,
        "cpu/a.py",
        "def f():\n    x = 1\n    x = x + 1\n    x += 1\n    x = 2",
    ),
    (
        form.dead_assignments,
        "cpu/a.py",
        "def f():\n    try:\n        x = 1\n        x = g()\n    finally:\n        h(x)",
    ),
    (
        form.dead_assignments,
        "cpu/a.py",
        "def f():\n    def g():\n        return x\n    x = 1\n    g()\n    x = 2",
    ),
    (form.system_call_numbers, "runner/host/nr.py", "NR_MMAP = 9"),
    (form.system_call_numbers, "runner/calls/a.py", "def f(t):\n    t.inject(nr.MMAP, 0, 4096)"),
    (form.docstrings, "cpu/_a.py", "x = 1"),
    (form.docstrings, "cpu/a.py", '"""A."""\nclass _A: pass'),
]


def example_id(value: object) -> str | None:
    return name_of(value) if callable(value) else None if isinstance(value, str) else ""


@pytest.mark.parametrize(("rule", "path", "text"), REFUSED, ids=example_id)
def test_rule_refuses(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(f"src/softsgx/{path}", text)))


@pytest.mark.parametrize(("rule", "path", "text"), ACCEPTED, ids=example_id)
def test_rule_accepts(rule: Rule, path: str, text: str) -> None:
    report(rule(Source(f"src/softsgx/{path}", text)))


def test_long_needs_an_entry_of_its_own() -> None:
    source = Source("src/softsgx/cpu/a.py", "def f():\n" + "    g()\n" * form.FUNCTION_LINES_MAX)
    assert list(form.lengths(source, {"src/softsgx/cpu/a.py": "the file only"}))
    assert not list(form.lengths(source, {"src/softsgx/cpu/a.py:f": "one step of the manual"}))


@pytest.mark.parametrize(
    "text",
    [
        "cd /wo" + "rk/main",
        'open("/ro' + 'ot/.cache")',
        "https://py" + "pi.org/simple",
        "files.python" + "hosted.org",
        "deb.deb" + "ian.org",
        "registry.npm" + "js.org",
    ],
)
def test_banned_words_are_found(text: str) -> None:
    assert list(repository.banned_words("README.md", f"first line\n{text}\n"))


@pytest.mark.parametrize("text", ["PyPI", "src/work/a.py", "tree/root/", "the roots of /sys"])
def test_other_words_are_not(text: str) -> None:
    report(repository.banned_words("README.md", text))


PYPROJECT = """
[build-system]
requires = ["a>=1"]  # builds
[project]
dependencies = [
    # reads
    "b>=2",
    {}
]
"""


@pytest.mark.parametrize(
    ("line", "findings"),
    [
        ('"c>=3",  # writes', 0),
        ('"c>=3,<4",  # writes', 0),
        ('"c>=3",', 1),
        ('"c==3",  # writes', 1),
        ('"c",', 2),
    ],
)
def test_requirements_are_ranges_and_have_reasons(line: str, findings: int) -> None:
    assert len(list(repository.reasoned_ranges(PYPROJECT.format(line)))) == findings


def test_the_lock_is_within_the_ranges() -> None:
    pyproject = PYPROJECT.format('"Some_Name>=3,<4",')
    assert list(repository.stale_lock(pyproject, "a==1\nb==2\nsome-name==4\n"))
    report(repository.stale_lock(pyproject, "# lock\na==1\nb==2\nsome-name==3\n"))
