"""What `softsgx show --diff` prints: one line for each difference, A before B."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from softsgx.cli.enclave_text import field_text
from softsgx.image.difference import Contents, Difference, Field, Moved, Pages
from softsgx.image.entering import not_entered
from softsgx.image.image import ALL_CHUNKS, Chunks, EnclaveImage
from softsgx.image.sigstruct import mrsigner
from softsgx.spec.attributes import ATTR_AEXNOTIFY
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_MASK, PT_NAMES, PT_SHIFT, rwx_text
from softsgx.spec.flags import flags_text, has_flags
from softsgx.spec.sigstruct import SIGSTRUCT

LINES_MAX: Final = 16
"""Lines of one kind that are printed without --all."""

_HEAD: Final = 13
_BYTES: Final = 16  # of a field of bytes, from the first that differs


class Side(NamedTuple):
    """One of the two files: its path, its kind (`image.file`), and its content."""

    path: str
    kind: str
    what: EnclaveImage | SIGSTRUCT

    def text(self, name: str) -> str:
        """The line that describes the file."""
        if isinstance(self.what, SIGSTRUCT):
            return f"{name} {self.path}: {self.kind}, ENCLAVEHASH {self.what.ENCLAVEHASH.hex()}"
        pages, measured = self.what.page_count(), self.what.mrenclave().hex()
        return f"{name} {self.path}: {self.kind}, {pages} pages, MRENCLAVE {measured}"


def images_lines(found: Difference, *, everything: bool) -> list[str]:
    """The lines for two enclaves; empty if they are equal."""
    lines = [_line("SECS", _field(field)) for field in found.secs]
    bound = _Bound(everything)
    lines += bound.cut(_pages(found.pages))
    lines += bound.cut(_line("EADD order", _moved(moved)) for moved in found.moved)
    lines += bound.cut(_tcs(found.contents))
    others = [page for page in found.contents if not page.fields]
    groups = [[page] for page in others] if everything else list(_neighbours(others))
    lines += bound.cut(_line("contents", _contents(group)) for group in groups)
    if lines and found.mrenclave[0] == found.mrenclave[1]:
        lines.append("MRENCLAVE is the same: nothing that differs is measured")
    return lines


class _Bound:
    """Cuts a list of lines to LINES_MAX."""

    def __init__(self, everything: bool) -> None:
        self._everything = everything

    def cut(self, lines: Iterable[str]) -> list[str]:
        found = list(lines)
        more = len(found) - LINES_MAX
        if self._everything or more <= 0:
            return found
        return [*found[:LINES_MAX], _line("", f"and {more} more: --all shows them")]


def _line(head: str, text: str) -> str:
    return f"{head:{_HEAD}}{text}"


def _range(offset: int, end: int) -> str:
    count = (end - offset) // PAGE_SIZE
    return f"{offset:#x}" if count == 1 else f"{offset:#x}-{end:#x} ({count} pages)"


def _field(field: Field, prefix: str = "") -> str:
    name = prefix + field.name
    values = [flags_text(name, v) if has_flags(name) else f"{v:#x}" for v in (field.a, field.b)]
    not_measured = "" if field.measured else "; not measured"
    return f"{field.name} A {values[0]}, B {values[1]}{not_measured}"


def _pages(pages: Iterable[Pages]) -> Iterator[str]:
    """Lines for pages in one file only, for different SECINFOs, and for different chunks."""
    for p in pages:
        where = _range(p.offset, p.end)
        if p.a is None or p.b is None:
            side, how = ("A", p.a) if p.b is None else ("B", p.b)
            assert how is not None
            yield _line("pages", f"{where} only in {side}: {_secinfo(how[0])}, {_extended(how[1])}")
            continue
        if p.a[0] != p.b[0]:
            yield _line("SECINFO", f"{where}: A {_secinfo(p.a[0])}, B {_secinfo(p.b[0])}")
        if p.a[1] != p.b[1]:
            yield _line("EEXTEND", f"{where}: A {_extended(p.a[1])}, B {_extended(p.b[1])}")


def _secinfo(flags: int) -> str:
    return f"{rwx_text(flags)} {PT_NAMES[(flags & PT_MASK) >> PT_SHIFT]}"


def _extended(chunks: Chunks) -> str:
    """Which chunks of 256 bytes are measured, and their order if it is not ascending."""
    if chunks == ALL_CHUNKS:
        return "measured"
    if not chunks:
        return "not measured"
    numbers = " ".join(map(str, chunks))
    if len(chunks) == len(ALL_CHUNKS):
        return f"measured in the order {numbers}"
    return f"measured in {len(chunks)} of {len(ALL_CHUNKS)} chunks: {numbers}"


def _moved(moved: Moved) -> str:
    places = [
        "first" if page is None else f"after {page:#x}" for page in (moved.after_a, moved.after_b)
    ]
    return f"{_range(moved.offset, moved.end)}: A {places[0]}, B {places[1]}"


def _tcs(pages: Iterable[Contents]) -> Iterator[str]:
    for page in pages:
        for field in page.fields:
            measured = "" if page.measured else "; not measured"
            yield _line("TCS", f"{page.page:#x}: {_field(field, 'TCS.')}{measured}")


def _neighbours(pages: Sequence[Contents]) -> Iterator[list[Contents]]:
    """Group adjacent pages that are measured alike."""
    group: list[Contents] = []
    for page in pages:
        if group and (
            page.page != group[-1].page + PAGE_SIZE
            or bool(page.measured) != bool(group[-1].measured)
        ):
            yield group
            group = []
        group.append(page)
    if group:
        yield group


def _contents(group: Sequence[Contents]) -> str:
    first = group[0]
    count = sum(page.bytes_ for page in group)
    measured = sum(page.measured for page in group)
    where = _range(first.page, group[-1].page + PAGE_SIZE)
    text = f"{where}: {count} byte{'s' if count > 1 else ''} from {first.first:#x}"
    text += f", A {first.a.hex()}, B {first.b.hex()}"
    if not measured:
        return f"{text}; not measured"
    return text if measured == count else f"{text}; {count - measured} not measured"


def sigstruct_lines(a: bytes, b: bytes) -> list[str]:
    """The fields in which two SIGSTRUCTs differ, by name, and their reserved bytes."""
    left, right = SIGSTRUCT.unpack(a), SIGSTRUCT.unpack(b)
    lines = []
    for field in SIGSTRUCT.FIELDS:
        x, y = getattr(left, field.name), getattr(right, field.name)
        if x == y:
            continue
        if field.integer:
            text = f"{field.name} A {field_text(field.name, x)}, B {field_text(field.name, y)}"
        else:
            text = _bytes(field.name, x, y)
        lines.append(_line("SIGSTRUCT", text))
    for start, end in SIGSTRUCT.RESERVED:
        if a[start:end] != b[start:end]:
            text = _bytes(f"reserved bytes {start} to {end - 1}", a[start:end], b[start:end])
            lines.append(_line("SIGSTRUCT", text))
    if left.MODULUS != right.MODULUS:
        lines.append(_line("MRSIGNER", f"A {mrsigner(left).hex()}, B {mrsigner(right).hex()}"))
    return lines


def _bytes(name: str, a: bytes, b: bytes) -> str:
    first = next(at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    parts = [side[first : first + _BYTES].hex() for side in (a, b)]
    more = "..." if len(a) > first + _BYTES else ""
    at = f" from byte {first}" if first else ""
    return f"{name}{at} A {parts[0]}{more}, B {parts[1]}{more}"


def signed_lines(image: EnclaveImage, sig: SIGSTRUCT) -> list[str]:
    """Why an enclave cannot be used with a SIGSTRUCT, as far as the two files show."""
    found = []
    if image.mrenclave() != sig.ENCLAVEHASH:
        found.append(_line("SIGSTRUCT", "ENCLAVEHASH is not MRENCLAVE: EINIT refuses the enclave"))
    refused = not_entered(image.segments, sig.ATTRIBUTES)
    if refused and sig.ATTRIBUTEMASK & ATTR_AEXNOTIFY:
        text = "ATTRIBUTES.AEXNOTIFY differs from TCS.FLAGS.AEXNOTIFY: EENTER refuses the TCS at"
        found.append(_line("SIGSTRUCT", f"{text} {refused[0]:#x}"))
    return found
