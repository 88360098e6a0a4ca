"""Which shipped scenarios `states` decides: `make decided`, python -m tools.decided.

Searches all of them with two processes and writes the table of docs/explore.md, between its marks.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from softsgx.linux.version import EXPLORED
from softsgx.system.scenarios.catalogue import SCENARIOS
from tools.documents import ROOT

DOCUMENT: Final = ROOT / "docs" / "explore.md"
BEGIN: Final = "<!-- make decided -->\n"
END: Final = "<!-- end of what make decided wrote -->\n"


def cell(found: Iterable[Mapping[str, Any]]) -> str:
    """What was found in one scenario on one kernel, in every order: rules, or numbers of states."""
    findings: dict[str, None] = {}
    states: list[int] = []
    for each in found:
        if each["failure"] is not None:
            findings[each["failure"]["rule"]] = None
        elif each["complete"]:
            states.append(each["states"])
        else:
            findings[f"open after {each['states']:,} states"] = None
    if states:
        low, high = min(states), max(states)
        findings[f"{low:,} to {high:,} states" if low < high else f"{low:,} states"] = None
    return "; ".join(findings)


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """A row for each scenario, a column for each kernel. `results` are those of --json."""
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for each in results:
        name, linux, *_ = each["scenario"].split(",")
        cells.setdefault((name, linux), []).append(each)
    rows = [["scenario", *EXPLORED], ["---"] * (1 + len(EXPLORED))]
    for scenario in SCENARIOS:
        name = scenario.__name__
        rows.append([name, *[cell(cells.get((name, linux), [])) for linux in EXPLORED]])
    return "".join([f"| {' | '.join(row)} |\n" for row in rows])


def put(text: str, new: str) -> str:
    """The document with another table between the marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{DOCUMENT}: no {BEGIN}"
    assert end, f"{DOCUMENT}: no {END}"
    return f"{before}{begin}{new}{end}{after}"


def main() -> int:
    """Search, write, and say how long it took."""
    command = [sys.executable, "-m", "softsgx", "explore", "--shipped", "--jobs", "2", "--json"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.stderr.write(done.stderr)
        return done.returncode
    results = json.loads(done.stdout)
    DOCUMENT.write_text(put(DOCUMENT.read_text(encoding="utf-8"), table(results)), encoding="utf-8")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    undecided = [x["scenario"] for x in results if not x["complete"] and x["failure"] is None]
    print(
        f"{len(results)} lines in {time.monotonic() - began:.0f} s, with "
        f"{used.ru_utime + used.ru_stime:.0f} s of processor time; {len(undecided)} undecided"
    )
    for name in undecided:
        print(f"  {name}")
    return 1 if undecided else 0


if __name__ == "__main__":
    sys.exit(main())
