"""`python -m bench`: measure everything and print Markdown."""

from __future__ import annotations

import platform
import sys

from bench import cpu, driver, engine, explore, lab, linux, run


def main() -> None:
    """Print all sections to standard output."""

    def show(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    show("# Benchmarks\n")
    show("Written by `make bench`; medians of several rounds of processor time, shared machine.")
    show("Targets are for a quiet machine; the yardstick in the first row shows how busy it was.")
    show("The rows of `softsgx run` begin with floors: what a round trip takes here without it.")
    show(f"Python {platform.python_version()}, {platform.machine()}.\n")
    cpu.main(show)
    linux.main(show)
    driver.main(show)
    explore.main(show)
    lab.main(show)
    engine.main(show)
    run.main(show)


if __name__ == "__main__":
    main()
