"""How long known searches take: `make expected`, python -m tools.expected.

Searches the shipped scenarios and the known races with one process, and writes the tables of
src/softsgx/cli/explore/expected_table.py, by which a search tells how much of it is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Final

from softsgx.cli.explore.expected import Expected, key
from softsgx.cli.explore.known_races import PREEMPTIONS
from softsgx.explore import Plan, Scenario, explore
from softsgx.explore.plan import STATES
from softsgx.system.scenarios.catalogue import KNOWN_RACES
from softsgx.system.scenarios.names import all_shipped
from tools.documents import ROOT

TABLE: Final = ROOT / "src" / "softsgx" / "cli" / "explore" / "expected_table.py"

HEAD: Final = '''"""Executions and seconds of known searches, by one process: by make expected."""

from __future__ import annotations

from typing import Final
'''


def measured(scenarios: Iterable[Scenario], plan: Plan) -> dict[str, Expected]:
    """What a search of each takes."""
    found = {}
    for scenario in scenarios:
        began = time.process_time()
        outcome = explore(scenario, plan)
        seconds = time.process_time() - began
        found[key(scenario.name)] = Expected(outcome.executions, seconds)
    return found


def module(tables: Mapping[str, Mapping[str, Expected]]) -> str:
    """The text of the module with these tables."""
    lines = [HEAD]
    for name, rows in tables.items():
        lines.append(f"{name}: Final[dict[str, tuple[int, float]]] = {{")
        lines += [
            f'    "{scenario}": ({each.executions}, {each.seconds:.2g}),'
            for scenario, each in rows.items()
        ]
        lines.append("}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Search and write."""
    alone = [race.alone(on) for race in KNOWN_RACES for on in (True, False)]
    tables = {
        "BY_BOUND": measured(alone, Plan(preemptions=PREEMPTIONS)),
        "BY_STATES": measured(all_shipped(), Plan(strategy=STATES)),
    }
    TABLE.write_text(module(tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
