"""Text: columns of fixed width, and a legend that explains every word in them."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest

from softsgx.report.lines import HEADING, LEGEND, Lines, line
from tests.report.every_event import every_event
from tests.report.story import last_part

SNAPSHOT = Path(__file__).resolve().parents[1] / "snapshots" / "report" / "story.txt"


def written() -> str:
    stream = io.BytesIO()
    writer = Lines(stream, {"seed": 7})
    for entry in last_part():
        writer.event(*entry)
    writer.close()
    return stream.getvalue().decode()


@pytest.mark.parametrize("event", every_event(), ids=lambda event: type(event).__name__)
def test_every_event_has_a_word_of_the_legend(event: Any) -> None:
    text = line(2_500_000, 17, event)
    assert text.startswith("      17       2.5000 ")
    what = text[28:36].strip()
    assert what != "other", text
    assert re.search(rf"^# .*\b{re.escape(what)}", LEGEND, re.MULTILINE), what


def test_columns_stand_under_their_heading() -> None:
    at = HEADING.index("what")
    assert at == HEADING.index("lp") + 4
    text = line(0, 1, every_event()[0])
    assert text[at : at + 3] == "ipi"


def test_the_story_is_told_the_same_way_each_time() -> None:
    """Byte-identical for a fixed seed; SOFTSGX_WRITE_SNAPSHOTS=1 writes it again."""
    if os.environ.get("SOFTSGX_WRITE_SNAPSHOTS"):
        SNAPSHOT.write_text(written(), encoding="utf-8")
    assert written() == SNAPSHOT.read_text(encoding="utf-8"), "SOFTSGX_WRITE_SNAPSHOTS=1 if meant"
