"""`softsgx doctor`: examine this machine."""

import argparse
import json

from softsgx.cli.doctor import NOT_READY, READY
from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_FINDING, EXIT_OK
from softsgx.runner.doctor.doctor import Check, examine


def run(args: argparse.Namespace) -> int:
    """Print every check; a required check that fails is a finding."""
    checks = examine()
    ready = all(check.ok or not check.needed for check in checks)
    if args.json:
        found = {"ready": ready, "checks": [_fields(check) for check in checks]}
        print_stdout(json.dumps(found, indent=2) + "\n")
    else:
        print_stdout(text(checks, ready))
    return EXIT_OK if ready else EXIT_FINDING


def text(checks: list[Check], ready: bool) -> str:
    """The table, a remedy below each check that failed, and the verdict."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        word = "ok" if check.ok else "NO" if check.needed else "no"
        lines.append(f"{word:<3} {check.name:<{width}}  {check.detail}")
        if not check.ok:
            lines.append(f"    {'':<{width}}  -> {check.remedy}")
    missing = ", ".join(check.name for check in checks if check.needed and not check.ok)
    verdict = READY if ready else f"{NOT_READY}: {missing}"
    return "\n".join([*lines, verdict, ""])


def _fields(check: Check) -> dict[str, object]:
    fields = check._asdict()
    if check.ok:
        del fields["remedy"]
    return fields
