"""A small part of the campaign; `make fuzz-explain` is the long one."""

from __future__ import annotations

from tests.explained.fuzz import Campaign, run_machines

# What has to be met in any campaign; otherwise it misses what it is for.
SITUATIONS = (
    *("EACCEPT SGX_PAGE_ATTRIBUTES_MISMATCH EACCEPT.20", "vDSO #PF 0x8007 ACCESS.12"),
    *("vDSO #PF 0x4 PAGING.01", "SIGSEGV SEGV_MAPERR PAGING.01", "vDSO #GP ENCLU.08"),
    *("SGX_IOC_ENCLAVE_CREATE -EIO", "SGX_IOC_ENCLAVE_INIT -EPERM", "mprotect -EACCES"),
    *("SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS -ENOTTY", "SGX_IOC_ENCLAVE_MODIFY_TYPES -ENODEV"),
)


def test_random_machines_find_nothing_unexplained() -> None:
    campaign = Campaign()
    run_machines(campaign, seed=2, count=60)
    assert not campaign.bad, campaign.report(scripts=False)
    assert [what for what in SITUATIONS if not campaign.met[what]] == []
