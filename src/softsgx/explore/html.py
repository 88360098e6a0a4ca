"""A schedule as one self-contained HTML file: the steps, and the state at each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.explore.table import AT, preemption_text

if TYPE_CHECKING:
    from softsgx.explore.record import Recording

_STYLE: Final = """
:root { --text: #16181c; --faint: #5c6470; --line: #d8dce2; --ground: #fff; --panel: #f5f6f8;
  --chosen: #dbe8fb; --changed: #fff0c2; --bad: #a11; color-scheme: light }
@media (prefers-color-scheme: dark) { :root { --text: #e3e6ea; --faint: #9aa3ae; --line: #3a4048;
  --ground: #15171b; --panel: #1e2126; --chosen: #24426b; --changed: #5a4a12; --bad: #ff8a80;
  color-scheme: dark } }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--ground);
  margin: 0 auto; max-width: 110em; padding: 0 1em 2em }
h1 { font-size: 1.25em; margin: 1em 0 .3em; overflow-wrap: anywhere }
h1 em { color: var(--bad); font-style: normal }
code { font-size: 13px; overflow-wrap: anywhere } p { margin: .3em 0; color: var(--faint) }
.both { display: grid; grid-template-columns: minmax(0, 3fr) minmax(20em, 2fr); gap: 1.2em }
.steps { overflow-x: auto } table { border-collapse: collapse; font-size: 13px; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .22em .55em;
  border-bottom: 1px solid var(--line) } th { color: var(--faint); font-weight: 600 }
.steps tbody tr { cursor: pointer } .steps tr.chosen td { background: var(--chosen) }
.steps td:first-child { color: var(--faint); text-align: right; width: 3em }
.steps tr.cut td { color: var(--faint); font-style: italic; cursor: default }
.end td { color: var(--bad); font-weight: 600; overflow-wrap: anywhere }
small { display: block; color: var(--faint) } small.bad { color: var(--bad) }
.now { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: .7em .9em; position: sticky; top: .7em; align-self: start; max-height: 96vh;
  overflow: auto }
.now h2 { font-size: 1em; margin: .8em 0 .2em } .now td, .now th { overflow-wrap: anywhere }
.now td.changed { background: var(--changed) } .bar { display: flex; gap: .5em;
  align-items: center } .bar b { flex: 1 }
button { font: inherit; padding: .25em .8em; border: 1px solid var(--line); border-radius: 5px;
  background: var(--ground); color: var(--text); cursor: pointer }
button:disabled { opacity: .4; cursor: default } ul { margin: .2em 0; padding-left: 1.2em }
li { font-size: 13px; overflow-wrap: anywhere }
@media (max-width: 60em) { .both { grid-template-columns: minmax(0, 1fr) }
  .now { position: sticky; bottom: 0; top: auto; max-height: 55vh; order: 2 }
  .steps { order: 1 } }
"""
_SCRIPT: Final = """
for (const view of document.querySelectorAll('.both')) {
  const data = JSON.parse(view.querySelector('script').textContent);
  const rows = [...view.querySelectorAll('tr[data-step]')];
  const now = view.querySelector('.now'), last = data.length - 1;
  let at = 0;
  const make = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const list = (title, texts, none) => {
    const all = [make('h2', title)];
    if (!texts.length) return [...all, make('p', none)];
    const made = make('ul');
    made.append(...texts.map(text => make('li', text)));
    return [...all, made];
  };
  const pages = (state, before) => {
    const made = make('table');
    for (const [page, parts] of Object.entries(state)) {
      const old = before[page] || {};
      const head = make('tr'), title = make('th', page);
      title.colSpan = 2;
      head.append(title);
      made.append(head);
      for (const part of new Set([...Object.keys(parts), ...Object.keys(old)])) {
        const row = make('tr'), value = parts[part] === undefined ? 'none' : parts[part];
        const changed = parts[part] !== old[part] ? 'changed' : '';
        row.append(make('td', part), make('td', value, changed));
        made.append(row);
      }
    }
    return made;
  };
  const show = (step, scroll) => {
    at = Math.max(0, Math.min(last, step));
    const moment = data[at], before = data[Math.max(0, at - 1)];
    for (const row of rows) row.classList.toggle('chosen', +row.dataset.step === at);
    const chosen = rows.find(row => +row.dataset.step === at);
    if (chosen && scroll) chosen.scrollIntoView({block: 'nearest'});
    const bar = make('div', undefined, 'bar');
    const back = make('button', '\\u2190'), next = make('button', '\\u2192');
    back.title = 'the step before (left arrow)';
    next.title = 'the next step (right arrow)';
    back.disabled = at === 0;
    next.disabled = at === last;
    back.onclick = () => show(at - 1, true);
    next.onclick = () => show(at + 1, true);
    bar.append(make('b', at ? 'after step ' + at + ' of ' + last : 'at the start'), back, next);
    const held = Object.entries(moment.held).map(([who, what]) => who + ': ' + what.join(', '));
    now.replaceChildren(bar,
      ...(at ? [make('p', moment.who + ': ' + moment.what)] : []),
      make('h2', 'State'), pages(moment.state, before.state),
      ...list('Locks held', held, 'none'),
      ...(at ? list('In this step', moment.events, 'nothing was told') : []));
  };
  for (const row of rows) row.onclick = () => show(+row.dataset.step, false);
  view.show = show;
  view.step = by => show(at + by, true);
  show(last, false);
}
document.onkeydown = event => {
  const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const view = document.querySelector('.both:hover') || document.querySelector('.both');
  if (by && view && !event.ctrlKey && !event.metaKey && !event.altKey) {
    view.step(by);
    event.preventDefault();
  }
};
"""


class Story(NamedTuple):
    """What a page tells: an execution that was watched, and lines about it."""

    scenario: str
    recording: Recording
    lines: Sequence[str]


def page(stories: Sequence[Story], others: str = "") -> str:
    """The whole file: stories, then lines about searches that have none."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>softsgx explore</title>",
        f"<style>{_STYLE}</style></head><body>",
        *(part for story in stories for part in _story(story)),
        *(f"<p>{escape(line)}</p>" for line in others.splitlines()),
        f"<script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _story(story: Story) -> list[str]:
    failure = story.recording.failure
    head = "No failure under this schedule"
    if failure is not None:
        kind, rest = failure.kind.value.upper(), f"{failure.rule}: {failure.text}"
        head = f"<em>{escape(kind)}</em> {escape(rest)}"
    return [
        f"<h1>{head}</h1><p>{escape(story.scenario)}</p>",
        *(f"<p><code>{escape(line)}</code></p>" for line in story.lines),
        '<div class="both"><div class="steps"><table>',
        *_rows(story.recording),
        '</table></div><div class="now" aria-live="polite"></div>',
        f'<script type="application/json">{_data(story.recording)}</script></div>',
    ]


def _rows(recording: Recording) -> list[str]:
    recorder = recording.recorder
    assert recorder.watch is not None, "an execution that was not watched"
    steps, moments = recorder.steps, recorder.watch.moments
    names = list(dict.fromkeys(step.name for step in steps))
    width = len(names) + 1
    lines = [
        "<thead><tr><th>" + "".join(f"<th>{escape(name)}" for name in names) + "</tr></thead>",
        '<tbody><tr data-step="0"><td>0' + f'<td colspan="{width - 1}"><small>start',
        *(f"<small>{escape(text)}</small>" for text in recorder.drawn),
        "</tr>",
    ]
    for number, step in enumerate(steps, 1):
        if step.preempted:
            text = escape(preemption_text(step, moments[number - 1]))
            lines.append(f'<tr class="cut"><td><td colspan="{width - 1}">{text}</tr>')
        cell = escape(step.text)
        cell += f"<small>{AT}{escape(step.place)}</small>" if step.place else ""
        cell += "".join(f"<small>{escape(text)}</small>" for text in step.drawn)
        cell += "".join(f"<small>{escape(text)}</small>" for text in moments[number].outcomes)
        cells = "".join(f"<td>{cell if name == step.name else ''}" for name in names)
        lines.append(f'<tr data-step="{number}"><td>{number}{cells}</tr>')
    failure = recording.failure
    if failure is not None:
        lines.append(f'<tr class="end"><td>!<td colspan="{width - 1}">{escape(failure.text)}</tr>')
    return [*lines, "</tbody>"]


def _data(recording: Recording) -> str:
    """The moments as JSON that can stand in a script element."""
    recorder = recording.recorder
    assert recorder.watch is not None
    told: list[dict[str, Any]] = []
    for number, moment in enumerate(recorder.watch.moments):
        step = recorder.steps[number - 1] if number else None
        state = moment.state or ({"state": {"": moment.text}} if moment.text else {})
        told.append(
            {
                "who": step.name if step else "",
                "what": " ".join(filter(None, (step.text, step.place))) if step else "",
                "state": {name: dict(parts) for name, parts in state.items()},
                "held": {name: list(locks) for name, locks in moment.held.items()},
                "events": list(moment.events),
            }
        )
    return json.dumps(told).replace("<", "\\u003c")
