"""The picture of README shows what `softsgx explore FirstTouch --html` would show now."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tools import picture


def test_the_picture_is_of_the_schedule_that_is_found(tmp_path: Path) -> None:
    with Image.open(picture.PICTURE) as drawn:
        said = drawn.info[picture.KEY]
        assert drawn.width >= 1000
        assert len(drawn.convert("L").getcolors() or ()) > 10, "an empty picture"
    assert said == picture.shown(picture.page(tmp_path)), "python -m tools.picture"
    assert "gets SIGBUS" in said
