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
