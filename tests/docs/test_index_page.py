"""README as a package index shows it: its links lead to the sources."""

from __future__ import annotations

import re
import zipfile

from setup import absolute
from tests.docs.test_wheel import wheel  # noqa: F401 - a fixture
from tests.tidy.source import ROOT


def test_relative_links_become_absolute() -> None:
    text = "[a](docs/a.md#x), [b](https://b.org), [c](#c), [d](LICENSE), ![e](docs/e.png)"
    assert absolute(text, "https://h/blob/main") == (
        "[a](https://h/blob/main/docs/a.md#x), [b](https://b.org), [c](#c),"
        " [d](https://h/blob/main/LICENSE), ![e](https://h/raw/main/docs/e.png)"
    )


def test_the_wheel_has_readme_with_links_that_work(wheel: zipfile.ZipFile) -> None:  # noqa: F811
    (metadata,) = (n for n in wheel.namelist() if n.endswith("METADATA"))
    text = wheel.read(metadata).decode()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = [link for link in links if "/blob/main/" in link]
    assert len(inside) > 10
    assert all(re.match(r"https?://|#", link) for link in links)
    for link in inside:
        assert (ROOT / link.partition("/blob/main/")[2].partition("#")[0]).exists(), link
    assert any("/raw/main/docs/first-touch.png" in link for link in links)
