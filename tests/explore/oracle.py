"""Do the strategies say what is true? Each is compared with every schedule of a program.

    python -m tests.explore.oracle --examples 1000000 --seed 1

A strategy that says it is exhausted must have met every end that there is, and only those; depth
first search must have executed every schedule once, up to its bound; random executions are among
those that there are. What explore() says about the same program must follow from the same list.
Prints each program about which a strategy is wrong, as soon as it is found, with the options that
bring it back, and goes on; exit code 1 if there was one. `--first` resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Final

from softsgx.explore import Failure, Kind, Outcome, Plan, explore
from softsgx.explore.execute import execute_next
from softsgx.explore.explorer import strategies
from softsgx.explore.plan import BOUNDED, DEEPENING, SAMPLED, STATES, STRATEGIES
from softsgx.explore.strategies import Bounded, Strategy
from softsgx.sim import Rng
from tests.explore.brute import DEADLOCK, ENDED, LIVELOCK, Ending, endings
from tests.explore.machines import Calls, MachineRun, any_machine
from tests.explore.programs import Program, Run, any_program

SCHEDULES: Final = 150
"""Programs with more schedules are left out, in the suite."""

HOW: Final = {
    Kind.DEADLOCK: DEADLOCK,
    Kind.STEP_BOUND: LIVELOCK,
}
SAMPLES: Final = 3


Subject = Program | Calls


def run_of(subject: Subject) -> Run | MachineRun:
    """The scenario."""
    return Run(subject) if isinstance(subject, Program) else MachineRun(subject)


class Judged:
    """A program with all its schedules; `wrong` are the strategies that are, and why."""

    def __init__(self, subject: Subject, known: list[Ending]) -> None:
        self.subject = subject
        self.known = known
        self.by_choices = {each.choices: each for each in known}
        self.ends = {each.end for each in known}
        self.retried = any(each.retried for each in known)
        self.broken = {how for how, _ in self.ends if how not in (ENDED, DEADLOCK)}
        self.spins = LIVELOCK in self.broken
        self.wrong: list[str] = []

    def claim(self, holds: bool, who: str, what: str) -> None:
        """Note what is wrong, unless it holds."""
        if not holds:
            self.wrong.append(f"{who}: {what}")

    def met(self, who: str, strategy: Strategy, run: Run | MachineRun) -> tuple[list[Ending], bool]:
        """What a strategy executes of a scenario, and whether it went on to its end.

        An execution ended by an exception is the last one of a search: only explore() stops there,
        but what the other tasks would have done is not known to a strategy that reduces.
        """
        found: list[Ending] = []
        while strategy.begin():
            done = execute_next(run, strategy)
            if done is None:
                continue
            how = self._how(done.failure)
            state = run.observed() if how in (ENDED, DEADLOCK) else None
            choices = tuple(done.execution.choices)
            found.append(Ending(choices, 0, how, state))
            if how == LIVELOCK:
                self.claim(self.spins, who, f"a livelock that is none: {choices}")
                return found, False
            known = self.by_choices.get(choices)
            if known is None:
                self.claim(False, who, f"no schedule: {choices}")
                return found, False
            same = (how, state) == known.end
            self.claim(same, who, f"{choices} ends in {how, state}, not {known.end}")
            if how not in (ENDED, DEADLOCK) and not isinstance(strategy, Bounded):
                return found, False
        return found, True

    def _how(self, failure: Failure | None) -> str:
        if failure is None:
            return ENDED
        if failure.kind is Kind.VIOLATION:
            return f"Violation {failure.rule}"
        if failure.kind is Kind.ASSERTION:
            return "AssertionError "
        return HOW.get(failure.kind, failure.headline)

    def bounded(self, bound: int | None) -> None:
        """Depth first search executes each schedule within its bound once."""
        who = f"dfs up to {bound}"
        strategy = Bounded(bound)
        found, over = self.met(who, strategy, run_of(self.subject))
        if not over:
            return
        within = [e for e in self.known if bound is None or e.preemptions <= bound]
        self.claim({e.end for e in found} == {e.end for e in within}, who, "other ends")
        if not self.retried:
            self.claim(len(found) == len(within), who, f"{len(found)} of {len(within)} schedules")
            self.claim(
                {e.choices for e in found} == {e.choices for e in within}, who, "other schedules"
            )
            whole = len(within) == len(self.known)
            self.claim(strategy.exhausted == whole, who, "exhausted or not")
        elif strategy.exhausted:
            self.claim({e.end for e in found} == self.ends, who, "exhausted before all ends")

    def whole(self, name: str) -> None:
        """A strategy that says it is exhausted has met every end."""
        run = run_of(self.subject)
        for _, strategy in strategies(run, Plan(strategy=name)):
            found, over = self.met(name, strategy, run)
            ends = {each.end for each in found}
            if over:
                self.claim(not self.broken, name, f"has not met {sorted(self.broken)}")
                self.claim(strategy.exhausted, name, "has an end, but is not exhausted")
                missed = [how for how, _ in self.ends - ends]
                self.claim(not missed, name, f"has not met all ends: {missed}")
            else:
                self.claim(not strategy.exhausted, name, "is exhausted before its end")

    def sampled(self, name: str, seed: int) -> None:
        """Random executions are some of those that there are, and nothing is claimed."""
        plan = Plan(strategy=name, executions=SAMPLES, seed=seed)
        run = run_of(self.subject)
        for _, strategy in strategies(run, plan):
            found, over = self.met(name, strategy, run)
            self.claim(not over or len(found) == SAMPLES, name, f"{len(found)} executions")
            self.claim(not strategy.exhausted, name, "claims to be exhausted")

    def explored(self, name: str, seed: int) -> None:
        """What explore() says: the failure of fewest preemptions, or that there is none."""
        run = run_of(self.subject)
        # Deepening repeats what has fewer preemptions for each bound.
        executions = SAMPLES if name in SAMPLED else max(2_000, 20 * len(self.known))
        outcome = explore(run, Plan(strategy=name, executions=executions, seed=seed))
        who = f"explore, {name}"
        failing = [each for each in self.known if each.how != ENDED]
        if outcome.failure is None:
            self.claim(name in SAMPLED or not failing, who, "finds nothing")
            self.claim(outcome.complete == (name not in SAMPLED), who, "complete or not")
            return
        self.claim(not outcome.complete, who, "fails, and is complete")
        self.failed(who, outcome, outcome.failure, failing)

    def failed(self, who: str, outcome: Outcome, failure: Failure, failing: list[Ending]) -> None:
        """The failure is one that there is, and is minimal."""
        how = self._how(failure)
        alike = [each.preemptions for each in failing if each.how == how]
        self.claim(bool(alike), who, f"no such failure: {failure.headline}")
        if not alike or how == LIVELOCK:
            return
        if outcome.strategy == DEEPENING and not self.spins:
            least = min(each.preemptions for each in failing)
            self.claim(outcome.bound == least - 1, who, f"bound {outcome.bound} before {least}")
            self.claim(failure.preemptions == least, who, f"{failure.preemptions}, not {least}")
        self.claim(failure.preemptions >= min(alike), who, "fewer preemptions than there are")


def judged(subject: Subject, rng: Rng, limit: int, states: bool) -> Judged | None:
    """Compare the strategies on a program or a machine; None if it has too many schedules.

    Depth first without a bound and those that claim to be whole always, the others now and then,
    and so STATES, which takes longer than all others together, unless `states`.
    """
    known = endings(run_of(subject), limit)
    if known is None:
        return None
    judge = Judged(subject, known)
    seed = rng.below(1 << 30)
    judge.bounded(None)
    if rng.below(2):
        judge.bounded(rng.below(3))
    samples, explored = not rng.below(4), not rng.below(24)
    states = states or not rng.below(8)
    for name in STRATEGIES:
        if name in SAMPLED:
            if samples:
                judge.sampled(name, seed)
        elif name not in BOUNDED and (states or name != STATES):
            judge.whole(name)
        if explored:
            judge.explored(name, seed)
    return judge


def program(
    seed: int, number: int, limit: int = SCHEDULES, *, states: bool = False
) -> Judged | None:
    """The random program of that number; `states` as in `judged`."""
    rng = Rng(seed).stream(f"program {number}")
    return judged(any_program(rng), rng, limit, states)


def machine(seed: int, number: int, limit: int = SCHEDULES) -> Judged | None:
    """The random machine of that number."""
    rng = Rng(seed).stream(f"machine {number}")
    return judged(any_machine(rng), rng, limit, states=True)


class Campaign:
    """What was compared, and what was found."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, what: str, judge: Judged | None) -> None:
        """One more program or machine; `what` brings it back."""
        if judge is None:
            self.counts["left out: too many schedules"] += 1
            return
        self.counts["compared"] += 1
        self.counts["schedules"] += len(judge.known)
        self.counts.update({how for how, _ in judge.ends})
        if judge.wrong:
            self.counts["WRONG"] += 1
            lines = "".join(f"\n    {line}" for line in judge.wrong)
            self.wrong.append(f"{what}: {judge.subject}{lines}")


def main() -> int:
    """Judge programs, and for every 200 of them a machine."""
    parser = argparse.ArgumentParser(
        description="compare the strategies of explore with brute force"
    )
    parser.add_argument("--examples", type=int, default=10_000, help="how many programs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument("--schedules", type=int, default=600, help="leave out what has more")
    args = parser.parse_args()
    campaign = Campaign()
    for number in range(args.first, args.first + args.examples):
        where = f"--seed {args.seed} --first {number} --examples 1"
        campaign.add(where, program(args.seed, number, args.schedules))
        if number % 200 == 0:
            campaign.add(where, machine(args.seed, number, args.schedules))
        while campaign.wrong:
            print(campaign.wrong.pop(), flush=True)
        if number % 10_000 == 9_999:
            print(f"so far: --seed {args.seed}, programs up to {number}", flush=True)
    for what, count in sorted(campaign.counts.items()):
        print(f"{count:10} {what}")
    return 1 if campaign.counts["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
