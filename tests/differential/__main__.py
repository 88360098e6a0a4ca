"""The same random stream of operations for the kernel's own driver and for ours.

    python -m tests.differential --linux 6.12 --operations 100000 --seed 1

System calls, faults, leaves, injected failures, interrupts and reclaim, with several threads in
flight; results and the whole state are compared after each operation. Exit code 1 if they differ;
the shortest stream that differs is printed as a test.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Final

from softsgx.cdriver import debian
from softsgx.cdriver.build import build
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.tree import find
from tests.differential.campaign import LENGTH, Found, campaign, shrunk
from tests.differential.shrink import story

_EVERY_S: Final = 60.0


def main() -> int:
    """The command."""
    options = _options()
    try:
        tree = find(options.source or debian.source(options.linux))
        data = build(tree, "call").data
    except DriverError as error:
        print(f"softsgx: differential: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        driver = Path(directory) / "sgx.drv"
        driver.write_bytes(data)
        return _run(options, driver)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--linux", default="6.12", choices=debian.VERSIONS)
    parser.add_argument("--source", type=Path, help="a kernel's tree instead of Debian's")
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first stream")
    parser.add_argument("--length", type=int, default=LENGTH, help="operations of a stream")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    if options.operations < 1 or options.length < 10 or options.jobs < 1 or options.first < 0:
        parser.error("--operations and --jobs: at least 1; --length: at least 10; --first: from 0")
    return options


def _run(options: argparse.Namespace, driver: Path) -> int:
    begun = shown = perf_counter()
    streams = -(-options.operations // options.length)
    parts = campaign(
        driver,
        options.linux,
        seed=options.seed,
        first=options.first,
        streams=streams,
        length=options.length,
        jobs=options.jobs,
    )
    counts: Counter[str] = Counter()
    operations = 0
    for part in parts:
        operations += part.operations
        counts += part.counts
        if part.found:
            _show(options, driver, part.found[0])
            return 1
        if perf_counter() - shown > _EVERY_S:
            shown = perf_counter()
            print(f"{operations} operations, {operations / (shown - begun):.0f}/s", flush=True)
    for what, count in sorted(counts.items()):
        print(f"{count:9} {what}")
    print(
        f"Linux {options.linux}, seed {options.seed}, streams {options.first} to "
        f"{options.first + streams - 1}: {operations} operations, 0 differences, "
        f"{operations / (perf_counter() - begun):.0f} operations/s"
    )
    return 0


def _show(options: argparse.Namespace, driver: Path, found: Found) -> None:
    print(f"Linux {options.linux}, seed {options.seed}, stream {found.number} differs at")
    print(found.difference, flush=True)
    ops, difference = shrunk(driver, options.linux, found)
    print(f"\nThe shortest that differs so, {len(ops)} operations, at\n{difference}\n")
    print(story(options.linux, found.setting, ops))


if __name__ == "__main__":
    sys.exit(main())
