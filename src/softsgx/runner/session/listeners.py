"""The listeners to the events of a run: `--stats`, `--trace`, `--explain`, `--sgxs-out`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from softsgx.events.kernel import ProcessEnded, ProcessStarted
from softsgx.report.explanation import Explanation
from softsgx.report.stats import Stats
from softsgx.runner.cpuid.cpuid import native_xfrm
from softsgx.runner.options import JSON, NATIVE
from softsgx.runner.say import say
from softsgx.runner.session.sgxs_files import SgxsFiles
from softsgx.runner.session.trace_file import TraceFile
from softsgx.system.explain.explainer import Explainer
from softsgx.system.explain.unfinished import FOLLOWED_MAX, Unfinished

if TYPE_CHECKING:
    from softsgx.runner.options import Options
    from softsgx.runner.process.world import World
    from softsgx.runner.supervisor.supervisor import Supervisor

# At most this many refusals of one kind at one page are printed, and this many by one rule: a
# runtime that polls, or that accepts each page when it is first touched, would print for ever.
SHOWN_MAX: Final = 2
SHOWN_BY_RULE_MAX: Final = 24
# The explanations of this many signals are kept: the last signal of a process may kill it.
SIGNALS_KEPT: Final = 1024
# At most this many lines about unfinished pages and threads at the end.
REMARKS_MAX: Final = 16


class Listeners:
    """The listeners that the options ask for. RunnerError if a file cannot be written.

    `inputs` are files that must not be overwritten: those of the program, and the trace.
    """

    def __init__(
        self,
        world: World,
        supervisor: Supervisor,
        header: dict[str, Any],
        options: Options,
        inputs: Sequence[str] = (),
    ) -> None:
        self._supervisor = supervisor
        self._began = time.perf_counter()
        log = world.log
        self._sgxs: SgxsFiles | None = None
        if options.sgxs_out is not None:
            self._sgxs = SgxsFiles(options.sgxs_out, inputs, world.machine.processor)
        self._trace: TraceFile | None = None
        if options.trace is not None:
            self._trace = trace = TraceFile(options.trace, header, log)
            log.subscribe_to({ProcessStarted: lambda _: trace.started()})
            log.subscribe(trace)
        self._stats: Stats | None = None
        self._as_json = options.stats == JSON
        if options.stats:
            self._stats = Stats()
            log.subscribe_to(self._stats.handlers)
        self._explanations: ExplanationPrinter | None = None
        if options.explain:
            self._explanations = ExplanationPrinter()
            engine = "" if options.engine == NATIVE else "--engine native "
            more = native_xfrm(), engine + "--xfrm {xfrm:#x}"
            Explainer(world.kernel, self._explanations.tell, instructions=True, more_xfrm=more)
            log.subscribe_to({ProcessEnded: self._explanations})

        self._unfinished: Unfinished | None = None
        if options.stats or options.explain:
            self._unfinished = Unfinished(world.machine.processor)

    @property
    def on(self) -> bool:
        """Whether there is anything to print or write at the end."""
        return any((self._trace, self._stats, self._explanations, self._sgxs))

    def close(self, in_vain: Sequence[str] = ()) -> None:
        """Print and write what is due at the end of a run, however it ended.

        `in_vain` tells of failures that were asked for and did not happen.
        """
        for sentence in in_vain:
            say(f"softsgx: run: --inject {sentence}\n")
        if self._trace is not None:
            self._trace.close()
            if self._trace.trouble:
                say(f"softsgx: run: --trace: {self._trace.trouble}: the trace is not complete\n")
        if self._explanations is not None:
            self._explanations.close()
        for line in self._sgxs.close() if self._sgxs is not None else ():
            say(f"softsgx: run: --sgxs-out: {line}\n")
        for line in _unfinished_lines(self._unfinished) if self._unfinished is not None else ():
            say(f"softsgx: unfinished: {line}\n")
        if self._stats is not None and self._as_json:
            found: dict[str, Any] = {"seconds": round(time.perf_counter() - self._began, 3)}
            if in_vain:
                found["in_vain"] = list(in_vain)
            if self._explanations is not None:
                found["explanations"] = self.explanations
            say(json.dumps({"softsgx": "stats", **self._stats.json(), **found}) + "\n")
        elif self._stats is not None:
            say("softsgx: stats\n" + self._stats.text(self._more_stats()))

    @property
    def explanations(self) -> list[str]:
        """The explanations that were printed."""
        return [] if self._explanations is None else self._explanations.told

    def _more_stats(self) -> list[tuple[str, str]]:
        """Lines of the statistics that are not counts of events."""
        files = self._supervisor.loader.files.values()
        patched = sum(len(sites.patch) for sites in files)
        unproven = sum(len(sites.unproven) for sites in files)
        served = self._supervisor.traps.served
        trapped = "".join(f", {kind} trapped {count}" for kind, count in sorted(served.items()))
        wall = time.perf_counter() - self._began
        emulated = self._supervisor.engine.emulated
        return [
            ("CPUID, ENCLU", f"patched {patched}, unproven {unproven}{trapped}"),
            ("seconds", f"{wall:.3f} in all, {emulated:.3f} of them emulating"),
        ]


def _unfinished_lines(unfinished: Unfinished) -> list[str]:
    """Lines about what is unfinished at the end, for at most REMARKS_MAX remarks."""
    remarks = unfinished.remarks()
    lines = [f"enclave {remark.enclave}: {remark.text}" for remark in remarks[:REMARKS_MAX]]
    if len(remarks) > REMARKS_MAX:
        lines.append(f"and {len(remarks) - REMARKS_MAX} more")
    if unfinished.overflowed:
        lines.append(f"more than {FOLLOWED_MAX} pages and threads at a time were not followed")
    return lines


class ExplanationPrinter:
    """Prints explanations, at most SHOWN_MAX of one kind, and again that of a signal that kills."""

    def __init__(self) -> None:
        self._times: Counter[tuple[object, ...]] = Counter()
        self._by_rule: Counter[str] = Counter()
        self._last: Explanation | None = None
        self._by_signal: dict[int, Explanation] = {}  # number of the SignalSent -> its refusal
        self._left_out = 0
        self.told: list[str] = []

    def tell(self, found: Explanation) -> None:
        """Print one, unless enough of its kind have been printed."""
        if found.signal:
            self._by_signal[found.signal] = found
            if len(self._by_signal) > SIGNALS_KEPT:
                del self._by_signal[next(iter(self._by_signal))]
        if self._by_rule[found.rule] < SHOWN_BY_RULE_MAX and self._times[found.key] < SHOWN_MAX:
            self._by_rule[found.rule] += 1
            self._times[found.key] += 1
            self._last = found
            self.told.append(found.text)
            say(found.text)
        else:
            self._left_out += 1

    def __call__(self, event: ProcessEnded) -> None:
        """Explain the signal that killed a process, if it came from a refusal."""
        found = self._by_signal.get(event.cause)
        if found is not None:
            self._died(f"process {event.process} died of {event.outcome}", found)

    def _died(self, what: str, found: Explanation) -> None:
        if found is self._last:
            say(f"{what}: see event {found.event} above\n")
        else:
            say(f"{what}:\n{found.text}")

    def close(self) -> None:
        """Print how many explanations were left out."""
        if self._left_out:
            say(f"softsgx: explain: {self._left_out} more refusals, of kinds shown above\n")
