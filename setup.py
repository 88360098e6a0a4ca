"""What pyproject.toml cannot say: README's links, as they lead somewhere from an index page."""

import re
from pathlib import Path

from setuptools import setup  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent


def absolute(text: str, home: str) -> str:
    """A Markdown text with relative links made absolute below `home`; pictures are raw files."""
    raw = home.replace("/blob/", "/raw/")
    text = re.sub(r"(!\[[^\]]*\]\()(?!\w+:)([^)\s]+)", rf"\g<1>{raw}/\2", text)
    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", rf"]({home}/\1)", text)


if __name__ == "__main__":
    config = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    source = re.search(r'^Source = "(.*)"$', config, re.MULTILINE)
    assert source is not None
    setup(
        long_description=absolute(
            (HERE / "README.md").read_text(encoding="utf-8"), f"{source[1]}/blob/main"
        ),
        long_description_content_type="text/markdown",
    )
