"""Images and SIGSTRUCTs as text: tables of pages, and fields with the names of their bits."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from softsgx.image.errors import Finding
from softsgx.image.image import ALL_CHUNKS, EnclaveImage, Segment
from softsgx.image.sigstruct import mrsigner
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_MASK, PT_NAMES, PT_SHIFT, rwx_text
from softsgx.spec.flags import flags_text, has_flags
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.tcs import TCS as TCS_PAGE

_SHOWN_BYTES: Final = 32  # of a field with uninterpreted bytes
_TCS_FIELDS: Final = "FLAGS OSSA NSSA OENTRY OFSBASGX OGSBASGX FSLIMIT GSLIMIT".split()
_TCS_CET_FIELDS: Final = ("OCETSSA",)  # shown where they are set


class _Row(NamedTuple):
    """Adjacent segments that look alike."""

    offset: int
    end: int
    what: tuple[str, str, str]


def image_text(kind: str, image: EnclaveImage) -> str:
    """The enclave: its range, its pages with the holes between them, its TCS pages."""
    base = "any" if image.baseaddr is None else f"{image.baseaddr:#x}"
    order = "" if image.ascending else ", not canonical: offsets do not ascend"
    lines = [
        f"enclave from {kind}{order}",
        f"SIZE {image.size:#x}, BASEADDR {base}, SSAFRAMESIZE {image.ssaframesize}",
        f"{image.page_count()} pages, {len(image.tcs)} TCS",
        "",
        f"{'offset':>12} {'end':>12} {'pages':>8}  {'SECINFO':<8}  measured",
        *(_row_text(row) for row in _with_holes(_rows(image))),
        *_tcs_lines(image),
    ]
    return "\n".join(lines) + "\n"


def _row_text(row: _Row) -> str:
    flags, measured, label = row.what
    pages = (row.end - row.offset) // PAGE_SIZE
    line = f"{row.offset:>#12x} {row.end:>#12x} {pages:>8}  {flags:<8}  {measured:<8}  {label}"
    return line.rstrip()


def _rows(image: EnclaveImage) -> list[_Row]:
    rows: list[_Row] = []
    for segment in image.segments:
        what = _what(segment)
        if rows and (rows[-1].end, rows[-1].what) == (segment.offset, what):
            rows[-1] = rows[-1]._replace(end=segment.end)
        else:
            rows.append(_Row(segment.offset, segment.end, what))
    return rows


def _what(segment: Segment) -> tuple[str, str, str]:
    name = PT_NAMES[(segment.flags & PT_MASK) >> PT_SHIFT]
    count = len(segment.chunks)
    measured = {0: "no", len(ALL_CHUNKS): "yes"}.get(count, f"{count} of {len(ALL_CHUNKS)}")
    return f"{rwx_text(segment.flags)} {name}", measured, segment.label


def _with_holes(rows: list[_Row]) -> Iterator[_Row]:
    """The rows, and the holes between them; the unused end of ELRANGE has no line."""
    yield from rows[:1]
    for before, row in pairwise(rows):
        if row.offset > before.end:
            yield _Row(before.end, row.offset, ("hole", "", ""))
        yield row


def _tcs_lines(image: EnclaveImage) -> Iterator[str]:
    for segment in image.segments:
        for page in segment.pages() if segment.is_tcs else ():
            tcs = TCS_PAGE.unpack(page.content or bytes(PAGE_SIZE))
            names = [*_TCS_FIELDS, *(name for name in _TCS_CET_FIELDS if getattr(tcs, name))]
            values = {name: f"{getattr(tcs, name):#x}" for name in names}
            values["FLAGS"] = flags_text("TCS.FLAGS", tcs.FLAGS)
            fields = (f"{name} {value}" for name, value in values.items())
            yield f"TCS at {page.offset:#x}: {', '.join(fields)}"


def sigstruct_text(sig: SIGSTRUCT, findings: Sequence[Finding]) -> str:
    """All fields with their byte offsets, MRSIGNER, and why EINIT would refuse the SIGSTRUCT."""
    lines = [f"SIGSTRUCT, {SIGSTRUCT.SIZE} bytes"]
    for field in SIGSTRUCT.FIELDS:
        value = field_text(field.name, getattr(sig, field.name))
        lines.append(f"{field.offset:>6}  {field.name:<20} {value}")
    lines.append(f"MRSIGNER {mrsigner(sig).hex()}")
    lines += [f"INVALID: {finding}" for finding in findings]
    if not findings:
        lines.append("valid: header, vendor, exponent, reserved bytes, signature, Q1 and Q2")
    return "\n".join(lines) + "\n"


def field_text(name: str, value: int | bytes) -> str:
    """A field of SIGSTRUCT: a date, flags with their names, bytes up to 32."""
    if isinstance(value, bytes):
        more = f"... ({len(value)} bytes)" if len(value) > _SHOWN_BYTES else ""
        return value[:_SHOWN_BYTES].hex() + more
    if name == "DATE":
        digits = f"{value:08x}"
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    return flags_text(name, value) if has_flags(name) else f"{value:#x}"
