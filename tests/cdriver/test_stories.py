"""The kernel's own driver and ours answer alike: errno, structures, EPCM, page tables, areas."""

from __future__ import annotations

import pytest

from tests.cdriver import sources
from tests.cdriver.stories import STORIES, tell


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("version", sources.VERSIONS)
def test_both_drivers_tell_the_same_story(
    version: str, story: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    driver = sources.driver_object(version, tmp_path_factory)
    seen, state = tell(story, driver, version)
    ours_seen, ours_state = tell(story, None, version)
    assert seen == ours_seen
    assert state == ours_state


@pytest.mark.parametrize("story", ["grow_restrict_trim_remove", "reclaim_and_reload"])
def test_encls_by_call_and_by_sigill_is_the_same(
    story: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    called = tell(story, sources.driver_object("6.12", tmp_path_factory, "call"), "6.12")
    trapped = tell(story, sources.driver_object("6.12", tmp_path_factory, "trap"), "6.12")
    assert called == trapped


# Where the kernel is made to fail, and at which time.
FAILURES = {
    "sgx_open": (0,),
    "create_buffer": (0,),
    "shmem_file_setup": (0,),
    "sgx_encl_grow": (0,),
    "sgx_encl_page_alloc": (0, 3, 8),
    "xa_insert": (0, 4, 8),
    "init_page": (0,),
    "crypto_alloc_shash": (0,),
    "sgx_encl_mm_add": (0,),
    "mmu_notifier_register": (0,),
    "vmf_insert_pfn": (0, 4),
    "EMODPR": (0,),
    "ETRACK": (0,),
    "sgx_encl_get_backing": (0,),  # the C code asks for contents and PCMD one by one
}


@pytest.mark.parametrize(
    ("site", "time"), [(site, time) for site, times in FAILURES.items() for time in times]
)
def test_both_drivers_fail_alike(
    site: str, time: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    driver = sources.driver_object("6.12", tmp_path_factory)
    story = "reclaim_and_reload" if site == "sgx_encl_get_backing" else "grow_restrict_trim_remove"
    seen, state = tell(story, driver, "6.12", (site, time))
    ours_seen, ours_state = tell(story, None, "6.12", (site, time))
    assert seen == ours_seen
    assert state == ours_state
    assert seen[-1] is True, "it never failed"
