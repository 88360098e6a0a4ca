"""The report as one self-contained HTML file: conclusions, plots, failures, all rows."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from softsgx import __version__
from softsgx.lab.compare import Comparison, Conclusion
from softsgx.lab.designs import design_named
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.matrix import verdicts
from softsgx.lab.failures.outcome import Outcome
from softsgx.lab.plots import Plot
from softsgx.lab.table import table
from softsgx.lab.workloads import workload

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em;
  color: #111; background: #fff }
h1 { font-size: 1.5em } h2 { margin-top: 2em; font-size: 1.2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 13px } th, td { padding: .3em .6em; text-align: left;
  vertical-align: top; border: 1px solid #ddd } th { background: #f4f4f4 }
th:first-child { min-width: 11em } td.none { color: #777 }
td.bad { background: #fdecea } td.good { background: #eef7ee }
figure { margin: 1em 0 } figure img { max-width: 100% } figcaption { color: #444; font-size: 13px }
pre { font-size: 12px; overflow-x: auto; background: #f7f7f7; padding: .6em }
summary { cursor: pointer; color: #0055aa } .scroll { overflow-x: auto } code { font-size: 12px }
.no { color: #a00 } .yes { color: #070 }
"""


def page(
    comparison: Comparison, outcomes: Sequence[Outcome], drawn: Iterable[Plot], command: str
) -> str:
    """The whole file. `command` is the command line that made it."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<title>Restricting enclave page permissions</title>",
        f"<style>{_STYLE}</style></head><body>",
        *_head(comparison, command),
        *_conclusions(comparison),
        *_plots(drawn),
        *_failures(outcomes),
        *_cannot(comparison),
        *_rows(comparison),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(comparison: Comparison, command: str) -> list[str]:
    plan = comparison.plan
    profiles = ", ".join(profile.name for profile in plan.profiles)
    part = "" if comparison.finished == comparison.wanted else " (interrupted)"
    lines = [
        "<h1>Restricting enclave page permissions: the designs compared</h1>",
        f"<p>softsgx {escape(__version__)}; prices <b>{escape(profiles)}</b>, of which the first "
        f"is shown and all are corners; seed {plan.seed}; {comparison.finished} of "
        f"{comparison.wanted} runs{part}. Times are virtual: they follow from the prices, and "
        "from what the driver and the processor do.</p>",
        f"<p>Made by: <code>{escape(command)}</code></p>",
        "<h2>Designs and workloads</h2><ul>",
    ]
    lines += [
        f"<li><b>{escape(name)}</b>: {escape(design_named(name).about)}</li>"
        for name in plan.designs
    ]
    lines += [
        f"<li><i>{escape(name)}</i>: {escape(workload(name).about)}</li>" for name in plan.workloads
    ]
    return [*lines, "</ul>"]


def _conclusions(comparison: Comparison) -> list[str]:
    found = comparison.conclusions()
    lines = [
        "<h2>Conclusions</h2>",
        "<p>The left design is never worse than the right one, over all combinations in which "
        "both work. A conclusion holds at all corners if it is true with every profile.</p>",
    ]
    for metric in dict.fromkeys(c.metric for c in found):
        mine = sorted((c for c in found if c.metric == metric), key=lambda c: not c.holds)
        lines += [
            f"<details{' open' if metric == found[0].metric else ''}>"
            f"<summary>by {escape(metric)}</summary><table>",
            "<tr><th>never worse<th>than<th>better<th>equal<th>of<th>at all corners</tr>",
            *(_conclusion(c) for c in mine),
            "</table></details>",
        ]
    return lines


def _conclusion(c: Conclusion) -> str:
    mark = f'<span class="{"yes" if c.holds else "no"}">{escape(c.mark())}</span>'
    return (
        f"<tr><td>{escape(c.better)}<td>{escape(c.worse)}<td>{c.wins}<td>{c.ties}<td>{c.rows}"
        f"<td>{mark}</tr>"
    )


def _plots(drawn: Iterable[Plot]) -> list[str]:
    lines = ["<h2>What it costs</h2>"]
    for plot in drawn:
        data = b64encode(plot.svg).decode("ascii")
        caption = escape(plot.caption)
        lines.append(
            f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return lines


def _failures(outcomes: Sequence[Outcome]) -> list[str]:
    if not outcomes:
        return []
    designs = list(dict.fromkeys(outcome.design for outcome in outcomes))
    lines = [
        "<h2>What breaks</h2>",
        "<p>The same failure in each design: the caller restricts four RW pages to "
        "<code>r--</code> (or to nothing). Every verdict is what a checker found after the run; "
        "open a cell for its evidence and its schedule.</p>",
        '<div class="scroll"><table>',
        "<tr><th>failure" + "".join(f"<th>{escape(design)}" for design in designs) + "</tr>",
    ]
    for failure in dict.fromkeys(outcome.failure for outcome in outcomes):
        cells = [_cell(o, outcomes) for o in outcomes if o.failure == failure]
        lines.append(f"<tr><th>{escape(FAILURES[failure].about)}{''.join(cells)}</tr>")
    return [*lines, "</table></div>"]


def _cell(outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    kind = "none" if not outcome.arises else "bad" if outcome.bad else "good"
    words = "<br>".join(escape(word) for word in verdicts(outcome, outcomes))
    again = (
        f"softsgx compare --failure {outcome.design}/{outcome.failure} "
        f"--schedule {outcome.schedule}"
    )
    return (
        f'<td class="{kind}">{words}<details><summary>evidence</summary>'
        f"{escape(outcome.evidence())}<br><code>{escape(again)}</code></details>"
    )


def _cannot(comparison: Comparison) -> list[str]:
    """Combinations that cannot work; a row for all N with the same reason."""
    seen: dict[tuple[str, str, str, str], list[int]] = {}
    for row in comparison.rows():
        if row.reason:
            c = row.combination
            seen.setdefault((c.workload, c.runtime, c.design, row.reason), []).append(c.n)
    if not seen:
        return []
    lines = [
        "<h2>What cannot work</h2><p>Each with the reason that its run met.</p>",
        "<details><summary>show</summary><table>",
        "<tr><th>workload<th>runtime<th>design<th>processors<th>reason</tr>",
    ]
    for (name, runtime, design, reason), ns in seen.items():
        cells = (name, runtime, design, ", ".join(map(str, ns)), reason)
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells) + "</tr>")
    return [*lines, "</table></details>"]


def _rows(comparison: Comparison) -> list[str]:
    text = escape(table(comparison, comparison.plan.ns))
    return [f"<h2>All rows</h2><details><summary>show</summary><pre>{text}</pre></details>"]
