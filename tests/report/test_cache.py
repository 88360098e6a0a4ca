"""Where softsgx keeps what it can make again."""

from pathlib import Path

from softsgx.report.cache import directory


def test_where_results_are_kept() -> None:
    assert directory({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/softsgx")
    assert directory({"XDG_CACHE_HOME": "", "HOME": "/h"}) == Path("/h/.cache/softsgx")
    assert directory({"XDG_CACHE_HOME": "x", "HOME": "/h"}) == Path("/h/.cache/softsgx")
    assert directory({}) is None
