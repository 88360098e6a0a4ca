"""`softsgx doctor --clean`: remove what softsgx keeps between runs."""

import argparse
import json
import os
import shutil
from pathlib import Path

from softsgx.cli.ends import print_stdout
from softsgx.cli.errors import EXIT_OK, UsageError
from softsgx.report.cache import directory


def run(args: argparse.Namespace) -> int:
    """Remove the directory of the cache, and say how much that was."""
    where = directory(os.environ)
    if where is None:
        raise UsageError("--clean: neither XDG_CACHE_HOME nor HOME is an absolute path")
    files, size = _size(where)
    try:
        shutil.rmtree(where)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"{error.filename or where}: {error.strerror or error}") from None
    if args.json:
        print_stdout(json.dumps({"cache": str(where), "files": files, "bytes": size}) + "\n")
    elif files:
        print_stdout(f"{where}: removed: {files} files, {size / 1e6:.1f} MB\n")
    else:
        print_stdout(f"{where}: nothing was there\n")
    return EXIT_OK


def _size(where: Path) -> tuple[int, int]:
    """Files below a directory, and their bytes."""
    found = [Path(top) / name for top, _, names in os.walk(where) for name in names]
    return len(found), sum(path.lstat().st_size for path in found if os.path.lexists(path))
