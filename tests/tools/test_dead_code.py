"""The search for dead code: what it allows, and what it complains about."""

from __future__ import annotations

from tools.dead_code import ALLOWED, Allowed, complaints, exports

FOUND = "src/softsgx/cpu/a.py:3: unused variable 'LEFT' (60% confidence)"


def test_what_is_not_allowed_is_told() -> None:
    assert list(complaints([FOUND], [])) == [FOUND]
    assert (
        list(complaints([FOUND], [Allowed("src/softsgx/cpu/*.py", "LEFT|RIGHT", "a pair")])) == []
    )


def test_a_row_that_allows_nothing_is_told() -> None:
    for row in (Allowed("src/softsgx/mem/*.py", "LEFT", ""), Allowed("*", "LEF", "")):
        left, stale = complaints([FOUND], [row])
        assert left == FOUND
        assert repr(row.names) in stale


def test_every_row_has_a_reason() -> None:
    assert all(row.reason for row in ALLOWED)


def test_exports_that_no_file_imports() -> None:
    """Such a name kept an import alive that nothing used."""
    module = "from a import ONE, TWO\n__all__ = ['ONE', 'TWO']"
    files = {"src/b.py": module, "src/c.py": "from b import ONE"}
    assert list(exports(files)) == ["src/b.py:2: no file imports 'TWO', which __all__ exports"]
    assert not list(exports({"src/b/__init__.py": module}))
    assert not list(exports({**files, "src/d.py": "import b\nb.TWO"}))
