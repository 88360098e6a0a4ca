"""The report as one self-contained HTML file: verdict, failures, plots, conclusions, all rows."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from softsgx import __version__
from softsgx.lab.compare import MARKS, Comparison, Conclusion
from softsgx.lab.designs import design_named
from softsgx.lab.failures.catalogue import FAILURES
from softsgx.lab.failures.matrix import verdicts
from softsgx.lab.failures.outcome import Outcome
from softsgx.lab.failures.table import legend, marks
from softsgx.lab.plots import Plot, look
from softsgx.lab.table import table
from softsgx.lab.verdict import capital, corners_text, verdict
from softsgx.lab.workloads import workload

_STYLE: Final = """
:root { color-scheme: light dark; --text: #111; --back: #fff; --soft: #555; --line: #ccc;
  --head: #f2f2f2; --bad: #fde0dc; --good: #e3f3e3; --link: #0055aa; --yes: #06660a }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --back: #16181b; --soft: #a8a8a8;
  --line: #444; --head: #24272b; --bad: #5a2320; --good: #1e3d22; --link: #7db8ff;
  --yes: #7fd48a } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5em auto; max-width: 76em; padding: 0 1em;
  color: var(--text); background: var(--back); overflow-wrap: break-word }
h1 { font-size: 1.5em; line-height: 1.2 }
h2 { margin-top: 2em; font-size: 1.2em; border-bottom: 1px solid var(--line) }
.verdict { font-size: 1.15em; padding: .6em .8em; border-left: 4px solid var(--link);
  background: var(--head) }
table { border-collapse: collapse; font-size: 13px } th, td { padding: .3em .5em; text-align: left;
  vertical-align: top; border: 1px solid var(--line) } th { background: var(--head) }
td.number { text-align: right } .soft { color: var(--soft) }
td.bad { background: var(--bad) } td.good { background: var(--good) } td.none { color: var(--soft) }
.marks td { text-align: center; font-weight: 600 } .marks th { white-space: nowrap }
dl.legend { display: grid; grid-template-columns: max-content 1fr; gap: .15em .8em; margin: .8em 0;
  font-size: 13px } dl.legend dt { font-weight: 600 } dl.legend dd { margin: 0 }
ul.legend { list-style: none; padding: .4em 0; margin: 0; display: flex; flex-wrap: wrap;
  gap: .2em 1.2em; position: sticky; top: 0; background: var(--back); font-size: 13px }
ul.legend svg { background: #fff; vertical-align: middle; margin-right: .4em; border-radius: 2px }
figure { margin: 1em 0; overflow-x: auto } figure img { min-width: 44em; width: 100%;
  max-width: 68em; background: #fff; border-radius: 4px; display: block }
figcaption { color: var(--soft); font-size: 13px; position: sticky; left: 0 }
pre { font-size: 12px; overflow-x: auto; background: var(--head); padding: .6em }
summary { cursor: pointer; color: var(--link) } .scroll { overflow-x: auto }
code { font-size: 12px } .yes { color: var(--yes); font-weight: 600 }
@media (max-width: 860px) { .marks thead th:not(:first-child) { writing-mode: vertical-rl;
  padding: .4em .1em } }
@media (max-width: 700px) { body { padding: 0 .7em; margin: .7em auto } table { font-size: 12px }
  th, td { padding: .25em .3em } }
"""


def page(
    comparison: Comparison, outcomes: Sequence[Outcome], drawn: Iterable[Plot], command: str
) -> str:
    """The whole file. `command` is the command line that made it."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>Restricting enclave page permissions</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Restricting enclave page permissions: the designs compared</h1>",
        f'<p class="verdict">{escape(capital(verdict(comparison, outcomes)))}</p>',
        *_failures(outcomes),
        *_plots(comparison, drawn),
        *_conclusions(comparison),
        *_cannot(comparison),
        *_rows(comparison),
        *_made(comparison, command),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _made(comparison: Comparison, command: str) -> list[str]:
    plan = comparison.plan
    profiles = ", ".join(profile.name for profile in plan.profiles)
    part = "" if comparison.finished == comparison.wanted else " (interrupted)"
    lines = [
        "<h2>How it was made</h2>",
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
    names = ", ".join(profile.name for profile in comparison.plan.profiles)
    corners = corners_text(len(comparison.plan.profiles))
    lines = [
        "<h2>Conclusions</h2>",
        "<p>The left design is never worse than the right one, over all combinations in which "
        f"both work. The mark is what holds {escape(corners)} ({escape(names)}): "
        f"{escape(MARKS)}.</p>",
    ]
    for metric in dict.fromkeys(c.metric for c in found):
        mine = sorted((c for c in found if c.metric == metric), key=lambda c: not c.holds)
        lines += [
            f"<details{' open' if metric == found[0].metric else ''}>"
            f'<summary>by {escape(metric)}</summary><div class="scroll"><table>',
            "<tr><th>never worse<th>than<th>better<th>equal<th>of<th>mark</tr>",
            *(_conclusion(c) for c in mine),
            "</table></div></details>",
        ]
    return lines


def _conclusion(c: Conclusion) -> str:
    mark = f'<span class="{"yes" if c.holds else "soft"}">{escape(c.mark())}</span>'
    numbers = "".join(f'<td class="number">{number}' for number in (c.wins, c.ties, c.rows))
    return f"<tr><td>{escape(c.better)}<td>{escape(c.worse)}{numbers}<td>{mark}</tr>"


def _plots(comparison: Comparison, drawn: Iterable[Plot]) -> list[str]:
    lines = ["<h2>What it costs</h2>", '<ul class="legend">']
    lines += [
        f'<li><svg width="34" height="12"><line x1="2" y1="6" x2="32" y2="6" stroke="{colour}" '
        f'stroke-width="2.5"{dashes}/></svg>{escape(design)}</li>'
        for design, colour, dashes in _lines_of(comparison)
    ]
    lines.append("</ul>")
    for plot in drawn:
        data = b64encode(plot.svg).decode("ascii")
        caption = escape(plot.caption)
        lines.append(
            f'<figure><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return lines


def _lines_of(comparison: Comparison) -> Iterable[tuple[str, str, str]]:
    """For each design its name, its colour, and an attribute if its line is dashed."""
    for design in comparison.plan.designs:
        colour, dashed = look(comparison, design)
        yield design, colour, ' stroke-dasharray="6 4"' if dashed else ""


def _failures(outcomes: Sequence[Outcome]) -> list[str]:
    """The matrix of marks, its legend, and the evidence of each failure to open."""
    if not outcomes:
        return []
    designs = list(dict.fromkeys(outcome.design for outcome in outcomes))
    failures = list(dict.fromkeys(outcome.failure for outcome in outcomes))
    lines = [
        "<h2>What breaks</h2>",
        "<p>The same failure in each design: the caller restricts four RW pages to "
        "<code>r--</code> (or to nothing). Every mark is what a checker found after the run.</p>",
        '<div class="scroll"><table class="marks"><thead>',
        "<tr><th>failure" + "".join(f"<th>{escape(design)}" for design in designs) + "</tr>",
        "</thead><tbody>",
    ]
    for failure in failures:
        mine = [outcome for outcome in outcomes if outcome.failure == failure]
        cells = "".join(_cell(outcome, outcomes) for outcome in mine)
        lines.append(f"<tr><th>{escape(failure)}{cells}</tr>")
    lines += ["</tbody></table></div>", '<dl class="legend">']
    found = legend([marks(outcome, outcomes) for outcome in outcomes])
    lines += [f"<dt>{escape(mark)}<dd>{escape(text)}" for mark, text in found.items()]
    lines.append("</dl>")
    for failure in failures:
        lines += [
            f"<details><summary>{escape(failure)}: {escape(FAILURES[failure].about)}</summary>"
            '<div class="scroll"><table>',
            *(_evidence(o, outcomes) for o in outcomes if o.failure == failure),
            "</table></div></details>",
        ]
    return lines


def _kind(outcome: Outcome) -> str:
    if outcome.bad:
        return "bad"
    return "good" if outcome.arises and not outcome.unmodelled else "none"


def _cell(outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    words = "; ".join(verdicts(outcome, outcomes))
    return (
        f'<td class="{_kind(outcome)}" title="{escape(words)}">{escape(marks(outcome, outcomes))}'
    )


def _evidence(outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    words = "<br>".join(escape(word) for word in verdicts(outcome, outcomes))
    again = (
        f"softsgx compare --failure {outcome.design}/{outcome.failure} "
        f"--schedule {outcome.schedule}"
    )
    return (
        f'<tr><th>{escape(outcome.design)}<td class="{_kind(outcome)}">{words}'
        f"<td>{escape(outcome.evidence())}<br><code>{escape(again)}</code></tr>"
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
        '<details><summary>show</summary><div class="scroll"><table>',
        "<tr><th>workload<th>runtime<th>design<th>processors<th>reason</tr>",
    ]
    for (name, runtime, design, reason), ns in seen.items():
        cells = (name, runtime, design, ", ".join(map(str, ns)), reason)
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells) + "</tr>")
    return [*lines, "</table></div></details>"]


def _rows(comparison: Comparison) -> list[str]:
    text = escape(table(comparison, comparison.plan.ns))
    return [f"<h2>All rows</h2><details><summary>show</summary><pre>{text}</pre></details>"]
