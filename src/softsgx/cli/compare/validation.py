"""`softsgx compare --validate`: the model against published figures."""

from __future__ import annotations

import argparse
import json

from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK
from softsgx.lab import validate


def run(args: argparse.Namespace) -> int:
    """Print target, model and ratio at each of the prices; a missed target is a finding."""
    found = {prices.name: validate.targets(prices) for prices in args.prices}
    if args.json:
        print_stdout(json.dumps(validate.as_json(found), indent=1) + "\n")
    else:
        tables = [validate.text(found[prices.name], prices) for prices in args.prices]
        print_stdout("\n".join(tables))
    missed = any(target.missed for targets in found.values() for target in targets)
    return EXIT_FINDING if missed else EXIT_OK
