"""`python -m softsgx` is the command `softsgx`."""

import sys

from softsgx.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
