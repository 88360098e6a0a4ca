"""Bugs of ours in copies of Linux's driver, and what finds them: make driver-plants.

Each is text that is put into a function. A plant is found by exploring, in scenarios in which the
driver as it is has no finding in as many executions; or by a story, which then is another one than
that of the driver in Python.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from softsgx.cdriver import debian
from softsgx.cdriver.tree import find
from softsgx.explore import Plan, explore
from softsgx.linux.bug import KernelBug
from softsgx.linux.sgx.encl import SGX_VA_SLOT_COUNT
from softsgx.system.scenarios.fork_share import ForkShare
from softsgx.system.scenarios.pcmd_sharing import PcmdSharing
from softsgx.system.scenarios.protect import ProtectAccess, ProtectReclaim, TwoProtects
from softsgx.system.scenarios.restrict_refused import RestrictRefused
from softsgx.system.scenarios.scenario import MachineScenario
from softsgx.system.scenarios.secs_eviction import SecsEviction
from tests.cdriver.patches import Patch, patched_object
from tests.cdriver.stories import STORIES, Stage, tell

NOT: Final = "if (0)\n\t\t"

PLANTS: Final[dict[str, Patch]] = {
    "a fault does not take encl->lock": Patch(
        "encl.c", "sgx_vma_fault", r"mutex_lock\(&encl->lock\);", NOT
    ),
    "the reclaimer does not take encl->lock": Patch(
        "main.c", "sgx_reclaimer_write", r"mutex_lock\(&encl->lock\);", NOT
    ),
    "RESTRICT does not ETRACK": Patch(
        "ioctl.c", "sgx_enclave_restrict_permissions", r"ret = sgx_enclave_etrack", NOT
    ),
    "ETRACK without interrupts": Patch(
        "ioctl.c", "sgx_enclave_etrack", r"on_each_cpu_mask\((?=[^;]*;\n\n)", NOT
    ),
    "EWB without ETRACK": Patch("main.c", "sgx_encl_ewb", r"ret = __etrack", NOT),
    "the reclaimer leaves PTEs": Patch(
        "main.c", "sgx_reclaimer_block", r"sgx_zap_enclave_ptes", NOT
    ),
    "REMOVE leaves the EPC page": Patch(
        "ioctl.c", "sgx_encl_remove_pages", r"sgx_encl_free_epc_page", NOT
    ),
    "EAUG does not count a child": Patch(
        "encl.c", "sgx_encl_eaug_page", r"encl->secs_child_cnt\+\+", NOT
    ),
    "a reclaimed page stays busy": Patch(
        "main.c", "sgx_encl_ewb", r"encl_page->desc &= ~SGX_ENCL_PAGE_BEING_RECLAIMED", NOT
    ),
    "ELDU does not give its VA slot back": Patch(
        "encl.c", "__sgx_encl_eldu", r"sgx_free_va_slot", NOT
    ),
    "a reference to the enclave too many": Patch(
        "main.c", "sgx_reclaim_pages", r"kref_put\(&encl_page", NOT
    ),
    "a section of SRCU that does not end": Patch(
        "encl.c", "sgx_encl_cpumask", r"srcu_read_unlock", NOT
    ),
    "an area may have any right": Patch(
        "encl.c", "sgx_encl_may_map", r"ret = -EACCES", NOT
    ),
    "a record is freed twice": Patch(
        "ioctl.c", "sgx_encl_remove_pages", r"kfree\(entry\);", "kfree(entry);\n\t\t"
    ),
    "the wrong errno": Patch(
        "ioctl.c", "sgx_ioc_enclave_restrict_permissions", r"if \(copy_to_user",
        "if (ret == -EFAULT)\n\t\tret = -EIO;\n\n\t",
    ),
    "the SECS is evicted with its children": Patch(
        "main.c", "sgx_reclaimer_write", r"encl->secs_child_cnt--;", "encl->secs_child_cnt = 1;\n\t"
    ),
}  # fmt: skip

CLEAN: Final[tuple[type[MachineScenario], ...]] = (
    SecsEviction,
    PcmdSharing,
    ProtectAccess,
    ProtectReclaim,
    TwoProtects,
    RestrictRefused,
    ForkShare,
)
EXECUTIONS: Final = 60


def explored(driver: Path) -> str:
    """What exploring finds first; "" if nothing."""
    for kind in CLEAN:
        failure = explore(kind().on(driver), Plan(executions=EXECUTIONS)).failure
        if failure is not None:
            text = failure.text.splitlines()[0]
            return f"{kind.__name__}: {failure.kind.value} {failure.rule}: {text}"
    return ""


def told(driver: Path) -> str:
    """The first story that is another one; "" if there is none."""
    for story in STORIES:
        try:
            theirs = tell(story, driver, "6.12")
        except Exception as error:
            text = next(iter(str(error).splitlines()), "")
            return f"{story}: {type(error).__name__} {text}".rstrip()
        if theirs != tell(story, None, "6.12"):
            return f"{story}: told otherwise"
    return ""


def cycles(driver: Path) -> str:
    """A page goes and comes back more often than a version array has slots."""
    stage = Stage(driver, "6.12", epc="1M")
    enclave, kernel = stage.load(pages=1), stage.machine.kernel
    try:
        for time in range(SGX_VA_SLOT_COUNT + 2):
            stage.do(stage.host.load(enclave.data[0], 1))
            page = stage.encls[0].page(enclave.data[0])
            if page.epc_page is None:
                return f"cycles: the page does not come back, time {time}"
            kernel.driver.offer(kernel, stage.encls[0], enclave.data[0])
            stage.host.thread.mm.space.test_and_clear_accessed(enclave.data[0])
            stage.do(kernel.driver.reclaim(stage.host.thread))
    except KernelBug as bug:
        return f"cycles: {str(bug).splitlines()[0]}"
    return f"cycles: {kernel.warnings[0]}" if kernel.warnings else ""


def main() -> int:
    """A line for each plant; 1 if one is not found, or something in the driver as it is."""
    tree = find(debian.source("6.12"))
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        whole = patched_object(tree, Path(name) / "whole")
        said = explored(whole) or told(whole) or cycles(whole)
        missed += bool(said)
        print(f"the driver as it is: {said or 'nothing'}", flush=True)
        for number, (plant, patch) in enumerate(PLANTS.items()):
            driver = patched_object(tree, Path(name) / str(number), patch)
            by = [explored(driver), told(driver) or cycles(driver)]
            missed += not any(by)
            for said in by:
                print(f"{plant}: {said or '-'}", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
