"""Random machines and random programs, whose every refusal must be explained.

    python -m tests.explained.fuzz --examples 10000 --seed 1

Of a hundred examples, 86 are scripts of tests.explained.machines; 4 are sessions of
tests/runner/fuzz_program.c, of 300 operations each, on both engines and several kernels (they need
gcc); 10 are histories of a page (tests.explained.advice), of which the advice is taken.
Prints what was met and how often, and each finding with a short script. Exit code 1 if there is a
finding that unexplained.py does not excuse.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from tests.explained import machines, programs
from tests.explained.advice import random_story, taken
from tests.explained.judge import Finding
from tests.explained.unexplained import excused

SHRUNK_MAX: Final = 5  # findings whose script is shortened
SESSION: Final = 300  # operations of a program, after which it is restarted
TOGETHER: Final = 10  # sessions of one program


class Campaign:
    """What was met, and the findings by their kinds: how often, the first, and its script."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()
        self.times: Counter[tuple[str, str]] = Counter()
        self.first: dict[tuple[str, str], tuple[Finding, Callable[[], str]]] = {}

    def add(
        self, met: Counter[str], findings: list[Finding], script: Callable[[Finding], str]
    ) -> None:
        """One more example; `script` reproduces its findings."""
        self.met.update(met)
        for finding in findings:
            self.times[finding.kind] += 1
            self.first.setdefault(finding.kind, (finding, partial(script, finding)))

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Kinds of findings that nothing excuses."""
        return [kind for kind, (finding, _) in self.first.items() if not excused(finding)]

    def report(self, *, scripts: bool = True) -> str:
        """Counts, and the findings."""
        lines = [f"{count:8} {what}" for what, count in sorted(self.met.items())]
        lines.append(f"{sum(self.met.values()):8} refusals of {len(self.met)} kinds")
        known = [kind for kind in self.first if kind not in self.bad]
        lines += [f"{self.times[kind]:8} excused: {': '.join(kind)}" for kind in sorted(known)]
        for number, kind in enumerate(self.bad):
            finding, script = self.first[kind]
            lines += [f"{self.times[kind]:8} FOUND {finding}"]
            if scripts and number < SHRUNK_MAX:
                lines.append(script())
        return "\n".join(lines)


def run_machines(campaign: Campaign, seed: int, count: int) -> None:
    """Run that many random machines."""
    for script in machines.scripts(seed, count):
        judge = machines.play(script)
        campaign.add(judge.counts, judge.findings, partial(_short, script))


def _short(script: machines.Script, finding: Finding) -> str:
    return str(machines.shrunk(script, finding.kind))


def run_programs(campaign: Campaign, seed: int, sessions: int) -> None:
    """Run that many sessions of random programs."""
    with tempfile.TemporaryDirectory() as directory:
        files = programs.built(Path(directory))
        for number, setting in enumerate(programs.settings(-(-sessions // TOGETHER))):
            count = min(TOGETHER, sessions - number * TOGETHER) * SESSION
            met, findings = programs.in_a_process(files, seed + number, count, setting)
            again = f"seed {seed + number}, {count} operations: {setting}"
            campaign.add(met, findings, partial(_again, again))


def _again(how: str, _finding: Finding) -> str:
    return how


def run_advice(campaign: Campaign, seed: int, count: int) -> None:
    """Run that many histories of pages, with an operation in each: the advice must help."""
    for number in range(count):
        story = random_story(Random(f"{seed}:{number}"))
        wrong, what = taken(story), f"advice for {story.operation}"
        findings = [Finding(what, wrong, "")] if wrong else []
        campaign.add(Counter([what]), findings, partial(_again, str(story)))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    campaign = Campaign()
    sessions = options.examples * 4 // 100 if shutil.which("gcc") else 0
    advice = options.examples // 10
    run_advice(campaign, options.seed, advice)
    run_machines(campaign, options.seed, options.examples - sessions - advice)
    run_programs(campaign, options.seed, sessions)
    if not sessions:
        print("no programs: gcc is not installed")
    print(campaign.report())
    return int(bool(campaign.bad))


if __name__ == "__main__":
    sys.exit(main())
