"""The picture of README: python -m tools.picture, which needs chromium.

It is the page of `softsgx explore FirstTouch --html`, without the lines that change with every
version. What stands in its table is kept in the file as text, so that a test can see whether it is
still what the page shows.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURE: Final = ROOT / "docs" / "first-touch.png"
COMMAND: Final = ("explore", "FirstTouch", "--html")
KEY: Final = "Description"
_SIZE: Final = (1200, 900)
_MARGIN: Final = 16
_HIDDEN: Final = "<style>h1 ~ p { display: none }</style></head>"


def page(directory: Path) -> str:
    """What the command writes. CalledProcessError if it finds nothing."""
    path = directory / "first-touch.html"
    command = [sys.executable, "-m", "softsgx", *COMMAND, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 1:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return path.read_text(encoding="utf-8")


def shown(text: str) -> str:
    """The rows of a page's table as text, without addresses, which depend on the build."""
    table = re.sub(r"(?s)^.*?<tbody>|</table>.*$", "", text)
    rows = [re.sub(r"<[^>]*>", " ", row) for row in table.split("</tr>")]
    words = (" ".join(html.unescape(row).split()) for row in rows)
    return re.sub(r"0x[0-9a-f]{5,}", "ADDRESS", "\n".join(filter(None, words)))


def draw(text: str, place: Path) -> None:
    """Take a picture of a page, in light colours."""
    with tempfile.TemporaryDirectory() as name:
        source, raw = Path(name) / "page.html", Path(name) / "page.png"
        source.write_text(text.replace("</head>", _HIDDEN, 1), encoding="utf-8")
        size = ",".join(map(str, _SIZE))
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={size}")
        command = ["chromium", *options, f"--screenshot={raw}", str(source)]
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        with Image.open(raw) as drawn:
            picture = drawn.convert("RGB")
    ground = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
    box = ImageChops.difference(picture, ground).getbbox()
    assert box is not None, "an empty page"
    cut = picture.crop((0, 0, picture.width, min(box[3] + _MARGIN, picture.height)))
    said = PngInfo()
    said.add_text(KEY, shown(text))
    cut.quantize(64).save(place, optimize=True, pnginfo=said)


def main() -> int:
    """Write the picture; 2 if there is no chromium."""
    if shutil.which("chromium") is None:
        print("softsgx: picture: chromium is not installed", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        draw(page(Path(name)), PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
