"""Every rule of the processor that a program meets has an explanation: the rows of tests/cpu again.

Each row of tests/cpu is a state in which one rule refuses. Here an explainer listens, on a kernel
that has done nothing. Refusals of ENCLU and of accesses end as a kernel ends them, in an exception
returned by the vDSO function; a refused ENCLS ends the call that executes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from softsgx.cpu import Fault, LogicalProcessor, Processor
from softsgx.events.kernel import (
    CallBegun,
    CallEnded,
    CallRefused,
    PageFaultEnded,
    ThreadSwitchedIn,
    VdsoReturned,
)
from softsgx.linux.errno import EFAULT, EIO, EPERM
from softsgx.linux.kernel import Kernel
from softsgx.linux.process import Thread
from softsgx.spec.faults import PF
from softsgx.spec.rules import RULES
from softsgx.system import Machine
from tests.cpu import test_cet_access, test_execute
from tests.cpu.accesses import AccessRow, perform
from tests.cpu.table import Row, execute
from tests.explained.judge import Judge
from tests.explained.unexplained import excused
from tools.rules import ROOT
from tools.spec_map import TESTS, declares_rows

# Rules that no program can meet under a kernel, and why.
UNSEEN: Final = {
    **dict.fromkeys(
        ("ENCLS.01", "ENCLS.02", "ENCLS.03", "ENCLS.04", "ENCLS.05", "ENCLV.01"),
        "the kernel executes ENCLS: privileged, enabled, and only leaves that exist",
    ),
    **dict.fromkeys(
        ("WRMSR.01", "WRMSR.02", "WRMSR.03", "WRMSR.04", "RDMSR.01", "RDMSR.02"),
        "the kernel reads and writes MSRs, and none of these wrongly",
    ),
    **dict.fromkeys(
        (f"EINIT.{number}" for number in (14, *range(17, 24))),
        "the driver writes the signer's hash to the MSRs, and passes an all-zero token",
    ),
    **dict.fromkeys(
        ("PAGING.05", "PAGING.06"), "accesses of the kernel: to a program an errno, EFAULT"
    ),
}
# Leaves of ENCLS -> the call that executes them, the rule of `linux.refusals`, and the errno.
CALLS: Final = {
    "ECREATE": ("CREATE", "sgx_encl_create.ECREATE", EIO),
    "EADD": ("ADD_PAGES", "__sgx_encl_add_page.EADD", EIO),
    "EEXTEND": ("ADD_PAGES", "__sgx_encl_extend.EEXTEND", EIO),
    "EINIT": ("INIT", "sgx_encl_init.EINIT", EPERM),
    "EMODPR": ("RESTRICT_PERMISSIONS", "sgx_enclave_restrict_permissions.EMODPR", EFAULT),
    "EMODT": ("MODIFY_TYPES", "sgx_enclave_modify_types.EMODT", EFAULT),
    "ETRACK": ("MODIFY_TYPES", "sgx_enclave_etrack.ETRACK", EFAULT),
}
OTHER_LEAVES: Final = {
    **dict.fromkeys(
        ("EAUG", "ELD"), "only page faults execute it: the signal is of ordinary paging"
    ),
    **dict.fromkeys(
        ("EBLOCK", "EWB", "EPA", "EREMOVE"),
        "the kernel executes it for itself; no program sees it fail",
    ),
    **dict.fromkeys(("EDBGRD", "EDBGWR"), "for a debugger: the errno is that of ptrace"),
    **dict.fromkeys(("ERDINFO", "ETRACKC"), "Linux 6.12 does not execute it"),
}
FUZZ: Final = bool(os.environ.get("SOFTSGX_FUZZ"))


class Case:
    """A row of a table, and how to run it; `encls` is the ENCLS leaf that it executes."""

    def __init__(self, row: Any, table: str) -> None:
        self.rule: str = row.rule
        self.row = row
        self.table = table
        self.name = f"{table}: {row.rule} {row.note}".strip()
        family = row.rule.split(".")[0]
        if family == "CET" and isinstance(row, Row):
            family = RULES[row.rule].partition(":")[0]
        if row.note == "ENCLS":
            family = "EBLOCK"
        self.encls = family if family in CALLS or family in OTHER_LEAVES else ""

    def build(self) -> tuple[LogicalProcessor, Callable[[], object]]:
        """The state, and the instruction or access."""
        row = self.row
        if isinstance(row, Row):
            attempt = row.build()
            return attempt.lp, lambda: execute(attempt)
        if isinstance(row, AccessRow):
            access = row.build()
            return access.lp, lambda: perform(access)
        if isinstance(row, test_cet_access.ShadowRow):
            lp, address = row.build()
            return lp, lambda: test_cet_access.access(lp, test_cet_access.KINDS[row.kind], address)
        assert isinstance(row, test_execute.Row), row
        return test_execute.start(row.state)


def cases() -> Iterator[Case]:
    """All rows of tests/cpu."""
    for path in sorted((ROOT / TESTS).rglob("*.py")):
        if declares_rows(path.read_text(encoding="utf-8")):
            name = path.relative_to(ROOT).with_suffix("")
            for row in import_module(".".join(name.parts)).ROWS:
                yield Case(row, name.name)


def witness(lp: LogicalProcessor) -> Judge:
    """A judge of this processor, with a kernel that has done nothing yet."""
    assert isinstance(lp.processor, Processor)
    kernel = Kernel(lp.processor)
    ksgxd = Thread(kernel, None, "ksgxd", -1)
    machine = SimpleNamespace(processor=lp.processor, kernel=kernel, ksgxd=ksgxd)
    judge = Judge(cast(Machine, machine))
    lp.processor.log.emit(ThreadSwitchedIn(lp.id, "main", "host", "host"))
    return judge


def judged(case: Case) -> Judge:
    """Run a row; returns what the judge finds."""
    lp, run = case.build()
    judge, log = witness(lp), lp.processor.log
    call, refusal, errno = CALLS.get(case.encls, ("", "", 0))
    begun = CallBegun(lp.id, "main", f"SGX_IOC_ENCLAVE_{call}", (("enclave", 1),))
    if call:
        log.emit(begun)
    try:
        run()
    except Fault as fault:
        if fault.vector == PF and not call:
            log.emit(PageFaultEnded(lp.id, "main", fault.address, fault.code, "SIGSEGV"))
        if not call:
            log.emit(VdsoReturned(lp.id, "main", fault.vector, fault.code, fault.address or 0))
    if call:
        log.emit(CallRefused(*begun[:2], refusal, errno, ()))
        log.emit(CallEnded(*begun, -errno))
    return judge


def seen(case: Case) -> bool:
    """Whether a program can meet it."""
    return case.rule not in UNSEEN and case.encls not in OTHER_LEAVES


# One row of each rule in each table; all of them in a campaign.
ROWS: Final = {
    (case.table, case.rule, "" if not FUZZ else case.name): case for case in cases() if seen(case)
}
TABLES: Final = sorted({table for table, _, _ in ROWS})


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_is_explained(table: str) -> None:
    for (of, rule, _), case in ROWS.items():
        if of != table:
            continue
        judge = judged(case)
        assert judge.counts, f"{case.name}: the judge saw no refusal"
        bad = [str(finding) for finding in judge.findings if not excused(finding)]
        assert not bad, f"{case.name} ({rule})\n" + "\n".join(bad)


def test_all_rules_are_met() -> None:
    """A new rule needs a row of tests/cpu that a program can meet, or a reason here."""
    met = {rule for _, rule, _ in ROWS}
    for_others = {case.rule for case in cases() if case.encls in OTHER_LEAVES}
    assert sorted(set(RULES) - met - for_others - set(UNSEEN)) == []
    assert sorted(met & set(UNSEEN)) == []
