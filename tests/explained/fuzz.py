"""Random machines and random programs, each refusal of them judged: is it explained?

    python -m tests.explained.fuzz --examples 10000 --seed 1

Examples are scripts of tests.explained.machines and sessions of tests/runner/fuzz_program.c, a
few hundred operations each, one in ten. Prints how often what was met, and what was found, each
finding with a short script. Exit code 1 if anything was found that unexplained.py does not excuse.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from tests.explained import machines
from tests.explained.judge import Finding
from tests.explained.unexplained import excused

SHRUNK_MAX: Final = 5  # findings whose script is made short


class Campaign:
    """What was met, and the findings by their kinds: how often, the first, and its script."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()
        self.times: Counter[tuple[str, str]] = Counter()
        self.first: dict[tuple[str, str], tuple[Finding, Callable[[], str]]] = {}

    def add(
        self, met: Counter[str], findings: list[Finding], script: Callable[[Finding], str]
    ) -> None:
        """One example more; `script` says how to come to a finding again."""
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
    """So many random machines."""
    for script in machines.scripts(seed, count):
        judge = machines.play(script)
        campaign.add(judge.counts, judge.findings, partial(_short, script))


def _short(script: machines.Script, finding: Finding) -> str:
    return str(machines.shrunk(script, finding.kind))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    campaign = Campaign()
    run_machines(campaign, options.seed, options.examples)
    print(campaign.report())
    return int(bool(campaign.bad))


if __name__ == "__main__":
    sys.exit(main())
