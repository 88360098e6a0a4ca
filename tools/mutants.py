"""Would the tests notice? `make mutants` changes the package in one place at a time and runs them.

Each mutant is run against the tests that reach its line, the nearest first, until one fails. Those
that nothing notices are the survivors; a survivor that no test can tell from the original has its
reason in tools/mutants-accepted.toml. Exit code 0: all were noticed or are listed; 1: a survivor
is not listed; 2: the tool could not do its work.
"""

import argparse
import ast
import re
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Lock
from typing import Final, NamedTuple

from tools.mutant_tree import (
    BUILD,
    FAILED,
    PASSED,
    ROOT,
    TIMEOUT,
    Tree,
    alone,
    end_all,
    tree,
)
from tools.mutations import Mutant, Span, is_change, mutants_of, sample
from tools.reaching import Reaching, Test, chunks, record, sources

ROOMS: Final = "cpu linux explore system cli".split()
NAMED: Final = ROOT / "tools" / "mutants-named.toml"
ACCEPTED: Final = ROOT / "tools" / "mutants-accepted.toml"
# The first run of a mutant, which is enough for most: so many tests of so many files and seconds.
FIRST_TESTS, FIRST_FILES, FIRST_SECONDS = 40, 4, 2.0


class Verdict(NamedTuple):
    """The outcome of a mutant; `by` is the first test that failed, `ran` how many were tried."""

    mutant: Mutant
    killed: bool
    by: str
    ran: int
    reaching: int
    reason: str = ""

    def text(self) -> str:
        """The entry of the list of survivors."""
        tests = f"  {self.ran} of the {self.reaching} tests that reach it ran"
        return "\n".join(
            filter(None, (self.mutant.describe(), tests, self.reason and f"  {self.reason}"))
        )


class Campaign:
    """Runs mutants, each in the copy of a process that is free."""

    def __init__(self, reaching: Reaching, jobs: int, seconds: float, *, stale: bool) -> None:
        self._reaching = reaching
        self._seconds = seconds
        self._stale = stale
        self._gone: set[str] = set()
        self._trees: Queue[Tree] = Queue()
        for number in range(jobs):
            self._trees.put(tree(number))
        # Seconds since 1970 that no file of a checkout has: see Tree.write.
        self._serial = int(time.time()) % 10**8
        self._lock = Lock()

    def run(self, mutant: Mutant) -> Verdict:
        """Try the tests that reach a mutant."""
        tests = self._reaching.of(mutant)
        copy = self._trees.get()
        copy.write(mutant.path, mutant.changed, self._next())
        ran = 0
        try:
            for batch in batches(tests, self._seconds):
                killed, by = self._try(copy, mutant, batch)
                ran += len(batch)
                if killed:
                    return Verdict(mutant, True, by, ran, len(tests))
            return Verdict(mutant, False, "", ran, len(tests))
        finally:
            copy.write(mutant.path, mutant.text, self._next())
            self._trees.put(copy)

    def _next(self) -> int:
        with self._lock:
            self._serial += 1
            return self._serial

    def _try(self, copy: Tree, mutant: Mutant, batch: list[Test]) -> tuple[bool, str]:
        batch = [test for test in batch if test.id not in self._gone]
        if not batch:
            return False, ""
        ids = copy.root.with_suffix(".tests")
        ids.write_text("".join(f"{test.id}\n" for test in batch), encoding="utf-8")
        arguments = ["-x", "--tb=line", "--no-header", "-p", "tools.reach_plugin"]
        arguments += ["--hypothesis-profile=mutants", f"@{ids}"]
        # The seconds of the record may be of a busy machine; an endless loop exceeds any limit.
        limit = 10 * sum(test.seconds for test in batch)
        code, text = copy.pytest(arguments, {}, limit)
        if code == PASSED:
            return False, ""
        if code == TIMEOUT:
            return True, "timeout"
        named = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if code == FAILED and named:
            return True, named[0].split(" - ")[0].split(" ", 1)[1]
        # pytest could not start or collect. The mutant is to blame if it can without it.
        copy.write(mutant.path, mutant.text, self._next())
        without, told = copy.pytest([*arguments, "--collect-only"], {}, None)
        if without == PASSED:
            return True, text.strip().rpartition("\n")[2] or f"exit code {code}"
        gone = set(re.findall(r"^ERROR: (?:not found|found no collectors for): (\S.*)", told, re.M))
        gone = {str(Path(path).relative_to(copy.root)) for path in gone}
        if self._stale and gone:
            # Tests of an old record that were renamed since.
            self._gone |= {t.id for t in batch if t.id in gone or t.function in gone}
            copy.write(mutant.path, mutant.changed, self._next())
            return self._try(copy, mutant, batch)
        raise SystemExit(
            f"softsgx: mutants: without any mutant: exit code {without}:\n{told[-1000:]}"
        )


def batches(tests: list[Test], seconds: float) -> Iterator[list[Test]]:
    """A small first run, and a second with the rest up to `seconds`; by files, in their order."""
    first: list[Test] = []
    rest: list[Test] = []
    files: set[str] = set()
    spent = 0.0
    for test in tests:
        fits = len(first) < FIRST_TESTS and spent + test.seconds <= FIRST_SECONDS
        if fits and (test.file in files or len(files) < FIRST_FILES):
            files.add(test.file)
            spent += test.seconds
            first.append(test)
        else:
            rest.append(test)
    more: list[Test] = []
    for test in rest:
        if spent + test.seconds <= seconds or not (first or more):
            spent += test.seconds
            more.append(test)
    for batch in (first, more):
        if batch:
            place = {
                file: number for number, file in enumerate(dict.fromkeys(t.file for t in batch))
            }
            yield sorted(batch, key=lambda test: place[test.file])


def named() -> list[Mutant]:
    """The mutants of tools/mutants-named.toml, which survived once and must not again."""
    return [_named(entry) for entry in tomllib.loads(NAMED.read_text("utf-8"))["mutant"]]


def _named(entry: dict[str, str]) -> Mutant:
    text = (ROOT / entry["file"]).read_text("utf-8")
    if text.count(entry["old"]) != 1:
        raise SystemExit(
            f"softsgx: mutants: {entry['file']}: not there exactly once: {entry['old']}"
        )
    start = text.index(entry["old"])
    span = Span(start, start + len(entry["old"]))
    node, function = _statement_at(text, start + len(entry["old"]) - len(entry["old"].lstrip()))
    return Mutant(entry["file"], function, text, span, entry["new"], node)


def _statement_at(text: str, offset: int) -> tuple[ast.AST, str]:
    """The innermost statement around a place of a text, and the function that has it."""
    line = text.count("\n", 0, offset) + 1
    found: tuple[ast.AST, str] = (ast.Module([], []), "")

    def visit(node: ast.AST, function: str) -> None:
        nonlocal found
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.stmt | ast.excepthandler | ast.match_case):
                if getattr(part, "lineno", line) <= line <= getattr(part, "end_lineno", line):
                    inner = function
                    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                        inner = f"{function}.{part.name}".lstrip(".")
                    if isinstance(part, ast.stmt):
                        found = part, function
                    visit(part, inner)

    visit(ast.parse(text), "")
    return found


def accepted() -> dict[tuple[str, str, str, str], str]:
    """Reasons by file, function, and the line before and after."""
    entries = tomllib.loads(ACCEPTED.read_text("utf-8")).get("mutant", [])
    return {
        (entry["file"], entry["function"], entry["old"], entry["new"]): entry["reason"]
        for entry in entries
    }


def reason_of(mutant: Mutant, reasons: dict[tuple[str, str, str, str], str]) -> str:
    """Why a survivor is listed; nothing if it is not."""
    return reasons.get((mutant.path, mutant.function, *mutant.diff), "")


def all_of(rooms: list[str], at: str) -> list[Mutant]:
    """Every mutant of the rooms, or only those at a place: FILE, FILE:LINE, FILE:FIRST-LAST."""
    path, _, lines = at.partition(":")
    first, _, last = lines.partition("-")
    found = []
    for source in sources(rooms):
        if not at or source == path:
            found += mutants_of(source, (ROOT / source).read_text("utf-8"))
    if lines:
        found = [m for m in found if int(first) <= m.line <= int(last or first)]
    return [mutant for mutant in found if is_change(mutant)] if at else found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rooms", nargs="+", default=ROOMS, metavar="ROOM")
    parser.add_argument("--mutants", choices=("all", "named", "sample"), default="all")
    parser.add_argument("--at", default="", metavar="FILE[:LINE]", help="all at one place")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=120, help="of tests for each mutant")
    parser.add_argument("--stale", action="store_true", help="be content with an old record")
    parser.add_argument("--tests", nargs="+", default=[], help="directories; all if not given")
    parser.add_argument("--out", type=Path, default=BUILD / "survivors.txt")
    return parser


def main(argv: list[str]) -> int:
    """Run a campaign; returns the exit code."""
    args = _parser().parse_args(argv)
    first = [] if args.at or args.mutants == "sample" else named()
    drawn: list[Mutant] = []
    if args.mutants != "named":
        found = all_of(args.rooms, args.at)
        drawn = found if args.at else sample(found, args.seed, args.sample)
    wanted = args.tests or chunks()
    lock = alone()
    record(tuple(ROOMS), wanted, stale=args.stale)
    campaign = Campaign(Reaching(wanted), args.jobs, args.seconds, stale=args.stale)
    reasons = accepted()
    survivors: list[Verdict] = []
    args.out.write_text("", encoding="utf-8")
    signal.signal(signal.SIGTERM, lambda *_: end_all())
    with ThreadPoolExecutor(args.jobs) as pool:
        for number, verdict in enumerate(pool.map(campaign.run, [*first, *drawn]), 1):
            place = f"{verdict.mutant.path}:{verdict.mutant.line}"
            fate = f"killed by {verdict.by}" if verdict.killed else "SURVIVED"
            print(f"{number}/{len(first) + len(drawn)} {place} {fate}", flush=True)
            if not verdict.killed:
                verdict = verdict._replace(reason=reason_of(verdict.mutant, reasons))
                survivors.append(verdict)
                with args.out.open("a", encoding="utf-8") as out:
                    out.write(verdict.text() + "\n")
    unlisted = [verdict for verdict in survivors if not verdict.reason]
    tried = len(first) + len(drawn)
    print(f"{tried} mutants, {len(survivors)} survivors, {len(unlisted)} of them not listed")
    print("".join(f"{verdict.text()}\n" for verdict in survivors), end="")
    lock.close()
    return 1 if unlisted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
