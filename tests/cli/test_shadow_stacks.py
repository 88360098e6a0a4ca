"""measure, sign and show of an enclave with a shadow stack."""

import pytest

from softsgx.image import sgxs
from softsgx.image.image import EnclaveImage, Segment
from softsgx.spec.cet import restore_token
from softsgx.spec.epcm import REG, SS_FIRST, SS_REST, TCS, R, W, X
from softsgx.spec.tcs import TCS as TCS_PAGE
from tests.cli.enclave_files import Shell

BASE = 0x7F00_0000_0000
TOKEN = restore_token(BASE + 0x5000, True).to_bytes(8, "little")
STACKED = EnclaveImage(
    size=0x1_0000,
    segments=(
        Segment(0x0, 0x1000, REG | R | X, b"\x90"),
        Segment(0x1000, 0x1000, TCS, TCS_PAGE(OSSA=0x2000, NSSA=1, OCETSSA=0x4000).pack()),
        Segment(0x2000, 0x1000, REG | R | W),
        Segment(0x4000, 0x1000, SS_REST | R | W),
        Segment(0x5000, 0x1000, SS_FIRST | R | W, bytes(4088) + TOKEN),
    ),
)


@pytest.fixture
def softsgx(softsgx: Shell) -> Shell:
    """With a stream of an enclave that has a shadow stack."""
    (softsgx.directory / "stack.sgxs").write_bytes(sgxs.write(STACKED))
    return softsgx


def test_show_names_the_page_types(softsgx: Shell) -> None:
    done = softsgx("show", "stack.sgxs")
    assert (done.code, done.err) == (0, "")
    assert "BASEADDR 0x7f0000000000" in done.out
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "0x4000 0x5000 1 rw- SS_REST yes" in rows
    assert "0x5000 0x6000 1 rw- SS_FIRST yes" in rows
    assert rows[-1].endswith("GSLIMIT 0x0, OCETSSA 0x4000")


def test_measure_says_where_it_has_to_run(softsgx: Shell) -> None:
    done = softsgx("measure", "stack.sgxs")
    assert "BASEADDR   0x7f0000000000\n" in done.out


def test_sign_and_show_the_attributes(softsgx: Shell) -> None:
    options = ("--attributes", "0x44", "--cet-attributes", "5", "--cetmask", "0xff")
    done = softsgx("sign", "stack.sgxs", "--key", "key.pem", "-o", "out.sig", *options)
    assert (done.code, done.err) == (0, "")
    shown = softsgx("show", "out.sig")
    assert shown.code == 0
    rows = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "928 ATTRIBUTES 0x44 MODE64BIT CET" in rows
    assert "908 CET_ATTRIBUTES 0x5 SH_STK_EN ENDBR_EN" in rows
    assert "909 CET_ATTRIBUTES_MASK 0xff all bits" in rows


def test_cet_attributes_need_the_attribute(softsgx: Shell) -> None:
    said = softsgx.refusal("sign", "stack.sgxs", "--key", "key.pem", "--cet-attributes", "1")
    assert said == "softsgx: sign: stack.sgxs: CET_ATTRIBUTES: needs ATTRIBUTES.CET (bit 6)\n"
