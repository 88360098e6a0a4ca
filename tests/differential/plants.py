"""Bugs of ours, planted in a copy of the kernel's driver: is each found, and how soon?

python -m tests.differential.plants --linux 6.12
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cdriver import debian
from softsgx.cdriver.errors import DriverError
from softsgx.cdriver.tree import Tree, find
from tests.cdriver.patches import UNFIXED, Patch, patched_object
from tests.differential.campaign import LENGTH, Found, campaign, shrunk

OPERATIONS_MAX: Final = 100_000


class Plant(NamedTuple):
    """A bug: what it is, and the changes that make it."""

    what: str
    patches: tuple[Patch, ...]


def _cut(file: str, function: str, pattern: str, text: str = "") -> Patch:
    """Leave out what the pattern finds, or put something in its place."""
    return Patch(file, function, pattern, text, instead=True)


_ENCL, _IOCTL, _MAIN, _DRIVER = "encl.c", "ioctl.c", "main.c", "driver.c"
_LOCK, _UNLOCK = r"mutex_lock\(&encl->lock\);", r"mutex_unlock\(&encl->lock\);"
_RESTRICT: Final = "sgx_enclave_restrict_permissions"

PLANTS: Final[dict[str, Plant]] = {
    "lock dropped": Plant(
        "EBLOCK without the enclave's mutex",
        (
            _cut(_MAIN, "sgx_reclaimer_block", _LOCK),
            _cut(_MAIN, "sgx_reclaimer_block", _UNLOCK),
        ),
    ),
    "no ETRACK": Plant(
        "RESTRICT does not track",
        (_cut(_IOCTL, _RESTRICT, r"ret = sgx_enclave_etrack\(encl\);", "ret = 0;"),),
    ),
    "no interrupts": Plant(
        "ETRACK without interrupting the processors",
        (_cut(_IOCTL, "sgx_enclave_etrack", r"on_each_cpu_mask[^;]*;(?=\s+return 0)"),),
    ),
    "wrong errno": Plant(
        "REMOVE of a page that was not accepted is -EACCES",
        (
            _cut(
                _IOCTL,
                "sgx_encl_remove_pages",
                r"(?<=X86_TRAP_PF\) \{\n)\s+ret = -EPERM",
                "ret = -13",
            ),
        ),
    ),
    "wrong retry": Plant(
        "MODIFY_TYPES of a page that the reclaimer holds is -EBUSY",
        (_cut(_IOCTL, "sgx_enclave_modify_types", r"-EBUSY \? -EAGAIN", "-EBUSY ? -EBUSY"),),
    ),
    "put forgotten": Plant(
        "the reclaimer keeps its reference to an enclave whose page is young",
        (_cut(_MAIN, "sgx_reclaim_pages", r"kref_put\([^;]*;"),),
    ),
    "no zap": Plant(
        "REMOVE leaves the PTEs",
        (_cut(_IOCTL, "sgx_encl_remove_pages", r"sgx_zap_enclave_ptes\(encl, addr\);"),),
    ),
    "wrong mask": Plant(
        "RESTRICT passes on R and W alone",
        (_cut(_IOCTL, _RESTRICT, r"SGX_SECINFO_PERMISSION_MASK", "3"),),
    ),
    "goto missed": Plant(
        "MODIFY_TYPES goes on when tracking fails",
        (
            _cut(
                _IOCTL, "sgx_enclave_modify_types", r"(?<=etrack\(encl\);\n)\s+if \(ret\) \{[^}]*\}"
            ),
        ),
    ),
    "count off by one": Plant(
        "RESTRICT counts the page that failed",
        (_cut(_IOCTL, _RESTRICT, r"modp->count = c;", "modp->count = c + (ret ? PAGE_SIZE : 0);"),),
    ),
    "page lost": Plant(
        "a failed EAUG does not free its EPC page",
        (_cut(_ENCL, "sgx_encl_eaug_page", r"sgx_encl_free_epc_page\(epc_page\);"),),
    ),
    "slot stale": Plant(
        "ELDU does not free the VA slot",
        (_cut(_ENCL, "sgx_encl_eldu", r"sgx_free_va_slot\([^;]*;"),),
    ),
    "cap kept": Plant(
        "MODIFY_TYPES does not restore the cap when EMODT fails",
        (_cut(_IOCTL, "sgx_enclave_modify_types", r"entry->vm_max_prot_bits = max_prot_restore;"),),
    ),
    "age kept": Plant(
        "a fault leaves the page young",
        (_cut(_ENCL, "sgx_vma_fault", r"sgx_encl_test_and_clear_young\([^;]*;"),),
    ),
    "child miscounted": Plant(
        "eviction does not count the child, so the SECS is never evicted",
        (_cut(_MAIN, "sgx_reclaimer_write", r"encl->secs_child_cnt--;"),),
    ),
    "PCMD page kept": Plant(
        "an empty PCMD page stays in the file",
        (_cut(_ENCL, "__sgx_encl_eldu", r"pcmd_page_empty &&", "0 &&"),),
    ),
    "busy for ever": Plant(
        "an unknown ioctl leaves the enclave busy",
        (_cut(_IOCTL, "sgx_ioctl", r"ret = -ENOIOCTLCMD;\s+break;", "return -ENOIOCTLCMD;"),),
    ),
    "end off by one": Plant(
        "mmap compares the rights of the page after the range, too",
        (_cut(_ENCL, "sgx_encl_may_map", r"PFN_DOWN\(end - 1\)", "PFN_DOWN(end)"),),
    ),
    "signal unseen": Plant(
        "ADD_PAGES does not stop for a signal",
        (_cut(_IOCTL, "sgx_ioc_enclave_add_pages", r"signal_pending\(current\)", "0"),),
    ),
    "slot list stuck": Plant(
        "a full VA page stays at the head of the list",
        (_cut(_MAIN, "sgx_encl_ewb", r"list_move_tail\([^;]*;", ";"),),
    ),
    "memory kept": Plant(
        "REMOVE does not free the record of the page",
        (_cut(_IOCTL, "sgx_encl_remove_pages", r"kfree\(entry\);"),),
    ),
    "freed too early": Plant(
        "REMOVE frees the record of the page, and then reads it",
        (
            _cut(_IOCTL, "sgx_encl_remove_pages", r"kfree\(entry\);"),
            Patch(_IOCTL, "sgx_encl_remove_pages", r"encl->secs_child_cnt--;", "kfree(entry);"),
        ),
    ),
    "marked too early": Plant(
        "the reclaimer marks a page before it has the mutex",
        (
            _cut(
                _MAIN,
                "sgx_reclaim_pages",
                r"mutex_lock\(&encl_page->encl->lock\);",
                "encl_page->desc |= SGX_ENCL_PAGE_BEING_RECLAIMED;"
                " mutex_lock(&encl_page->encl->lock);",
            ),
        ),
    ),
    "K11": Plant("offset + length may wrap around 64 bits", UNFIXED["K11"]),
}


def plant(tree: Tree, place: Path, name: str) -> Path:
    """The driver object of a copy of the tree with this bug."""
    return patched_object(tree, place, *PLANTS[name].patches)


def hunt(
    driver: Path, linux: str, *, seed: int = 1, operations: int = OPERATIONS_MAX
) -> tuple[Found | None, int]:
    """The first stream that differs, and after how many operations."""
    done = 0
    streams = -(-operations // LENGTH)
    parts = campaign(driver, linux, seed=seed, first=0, streams=streams, length=LENGTH, jobs=1)
    for part in parts:
        done += part.operations
        if part.found:
            found = part.found[0]
            return found, done - len(found.ops) + found.difference.at + 1
    return None, done


def main() -> int:
    """The command: 1 if a bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential.plants")
    parser.add_argument("--linux", default="6.12", choices=debian.VERSIONS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shrink", action="store_true", help="how short a stream finds it")
    options = parser.parse_args()
    try:
        tree = find(debian.source(options.linux))
    except DriverError as error:
        print(f"softsgx: plants: {error}", file=sys.stderr)
        return 2
    missed = 0
    for name, (what, _patches) in PLANTS.items():
        with tempfile.TemporaryDirectory() as directory:
            driver = plant(tree, Path(directory) / "linux", name)
            found, operations = hunt(driver, options.linux, seed=options.seed)
            if found is None:
                missed += 1
                print(f"{name:18} NOT FOUND in {operations} operations: {what}", flush=True)
                continue
            text = f"{name:18} {operations:7} operations, by {found.difference.what}: {what}"
            if options.shrink:
                ops, _difference = shrunk(driver, options.linux, found)
                text += f"; {len(ops)} operations are enough"
            print(text, flush=True)
    print(f"{len(PLANTS) - missed} of {len(PLANTS)} found")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
