"""`softsgx explore --list`: the scenarios of TARGET, or those shipped."""

from __future__ import annotations

import argparse
import json

from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_OK
from softsgx.cli.scenarios import find, split
from softsgx.system.scenarios.catalogue import SCENARIOS


def run(args: argparse.Namespace) -> int:
    """Print a line for each scenario, with the first line of its docstring."""
    if args.target is not None:
        file, kind = split(args.target)
        found = [(made.name, type(made)) for made in find(file, kind=kind)]
    else:
        found = [(kind.__name__, kind) for kind in SCENARIOS]
    # Only its own docstring: an inherited one is about another scenario.
    about = {name: (vars(kind).get("__doc__") or "").strip() for name, kind in found}
    first = {name: (text.splitlines() or [""])[0] for name, text in about.items()}
    if args.json:
        rows = [{"scenario": name, "about": text} for name, text in first.items()]
        print_stdout(json.dumps(rows, indent=2) + "\n")
    else:
        print_stdout("".join(f"{f'{name:<18} {text}'.rstrip()}\n" for name, text in first.items()))
    return EXIT_OK
