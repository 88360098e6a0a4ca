"""A small part of the campaign; `make fuzz-explain` is the long one."""

from __future__ import annotations

import pytest

from tests.explained import programs
from tests.explained.advice import Story, taken
from tests.explained.fuzz import SESSION, Campaign, run_advice, run_machines
from tests.explained.programs import Setting
from tests.runner.gcc import needs_gcc

# What every campaign must meet; otherwise it misses its purpose.
SITUATIONS = (
    *("EACCEPT SGX_PAGE_ATTRIBUTES_MISMATCH EACCEPT.20", "vDSO #PF 0x8007 ACCESS.12"),
    *("vDSO #PF 0x4 PAGING.01", "SIGSEGV SEGV_MAPERR PAGING.01", "vDSO #GP ENCLU.08"),
    *("SGX_IOC_ENCLAVE_CREATE -EIO", "SGX_IOC_ENCLAVE_INIT -EPERM", "mprotect -EACCES"),
    *("SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS -ENOTTY", "SGX_IOC_ENCLAVE_MODIFY_TYPES -ENODEV"),
)


MET_BY_PROGRAMS = (
    *("vDSO #GP EENTER.09", "mmap -EACCES", "unknown ioctl -ENOTTY"),
    *("SGX_IOC_ENCLAVE_ADD_PAGES -EINVAL", "SGX_IOC_ENCLAVE_PROVISION -EINVAL"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return programs.built(tmp_path_factory.mktemp("fuzz"))


@needs_gcc
@pytest.mark.parametrize(
    "setting",
    [Setting("unicorn", "6.12", False), Setting("native", "6.1", False)],
    ids=str,
)
def test_a_random_program_meets_nothing_unexplained(files: list[str], setting: Setting) -> None:
    met, findings = programs.in_a_process(files, 5, 2 * SESSION, setting)
    assert not findings, [str(finding) for finding in findings]
    assert [what for what in MET_BY_PROGRAMS if not met[what]] == []


def test_random_machines_find_nothing_unexplained() -> None:
    campaign = Campaign()
    run_machines(campaign, seed=2, count=60)
    assert not campaign.bad, campaign.report(scripts=False)
    assert [what for what in SITUATIONS if not campaign.met[what]] == []


def test_advice_in_random_histories_helps() -> None:
    campaign = Campaign()
    run_advice(campaign, seed=2, count=25)
    assert not campaign.bad, campaign.report(scripts=False)


@pytest.mark.parametrize(
    ("histories", "operation"),
    [(("restricted, evicted", "trimmed"), "EACCEPT r"), (("removed",), "EGETKEY to it")],
)
def test_an_entry_that_an_area_hides_leads_elsewhere(
    histories: tuple[str, ...], operation: str
) -> None:
    """Moved by mremap, then PROT_NONE: mprotect was advised, which exposes the moved page."""
    assert taken(Story("6.12", histories, ("moved", "none"), operation)) == ""
