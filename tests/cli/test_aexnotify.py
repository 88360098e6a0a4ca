"""AEX-Notify from the command line: --aexnotify.

The bit of TCS.FLAGS is measured, and EENTER requires the one in ATTRIBUTES to be equal.
"""

import pytest

from softsgx.image import sgxs
from softsgx.image.sigstruct import parse
from softsgx.spec.attributes import ATTR_AEXNOTIFY, ATTR_MODE64BIT
from softsgx.spec.tcs import TCS, TCS_AEXNOTIFY, TCS_DBGOPTIN
from tests.cli.enclave_files import Shell, contents
from tests.image.builders import load, tcs_page

SIGN = ["--key", "key.pem", "-o", "out.sig"]


def signed(softsgx: Shell, *argv: str) -> tuple[int, str]:
    """ATTRIBUTES of the SIGSTRUCT, and standard error."""
    done = softsgx("sign", *argv, *SIGN)
    assert done.code == 0
    return parse((softsgx.directory / "out.sig").read_bytes()).ATTRIBUTES, done.err


def test_an_elf_program_gets_both_bits(softsgx: Shell) -> None:
    argv = ["app", "--aexnotify", "--threads", "2", "--sgxs", "out.sgxs"]
    assert signed(softsgx, *argv) == (ATTR_MODE64BIT | ATTR_AEXNOTIFY, "")
    shown = softsgx("show", "out.sgxs").out
    assert shown.count(": FLAGS 0x2 AEXNOTIFY, OSSA ") == 2
    assert "ATTRIBUTES           0x404 MODE64BIT AEXNOTIFY\n" in softsgx("show", "out.sig").out
    assert softsgx("show", "--diff", "out.sgxs", "out.sig").code == 0


def test_a_thread_can_enter(softsgx: Shell) -> None:
    signed(softsgx, "app", "--aexnotify", "--sgxs", "out.sgxs")
    image = sgxs.read((softsgx.directory / "out.sgxs").read_bytes())
    enclave, status = load(image, parse((softsgx.directory / "out.sig").read_bytes()))
    assert status == 0
    enclave.enter()
    assert enclave.bare.lp.secs is not None


def test_it_is_measured(softsgx: Shell) -> None:
    plain, notified = (softsgx("measure", "app", *more).out for more in ([], ["--aexnotify"]))
    assert plain != notified
    assert plain.splitlines()[1:] == notified.splitlines()[1:]


def test_a_stream_that_has_it_is_signed_with_it(softsgx: Shell) -> None:
    signed(softsgx, "app", "--aexnotify", "--sgxs", "out.sgxs")
    assert signed(softsgx, "out.sgxs")[0] == ATTR_MODE64BIT | ATTR_AEXNOTIFY
    ready = contents()["selftest"].replace(
        tcs_page(OSSA=0x3000, OENTRY=0x1000),
        tcs_page(OSSA=0x3000, OENTRY=0x1000, FLAGS=TCS_AEXNOTIFY),
    )
    (softsgx.directory / "ready").write_bytes(ready)
    attributes, _ = signed(softsgx, "ready", "--layout", "selftest")
    assert attributes == ATTR_MODE64BIT | ATTR_AEXNOTIFY


@pytest.mark.parametrize(
    ("argv", "tcs"),
    [
        (["app", "--attributes", "0x404"], "0x25000"),
        (["app", "--attributes", "MODE64BIT,aexnotify", "--threads", "3"], "0x25000 and 2 more"),
        (["app", "--aexnotify", "--attributes", "0x4"], "0x25000"),
    ],
)
def test_what_no_thread_can_enter_is_said(argv: list[str], tcs: str, softsgx: Shell) -> None:
    """It is signed all the same, for tests of EENTER. Where the bit is not signed, the loader
    decides."""
    attributes, said = signed(softsgx, *argv, "--sgxs", "out.sgxs")
    assert bool(attributes & ATTR_AEXNOTIFY) == ("0x4" not in argv)
    assert said == (
        f"softsgx: sign: app: no thread can enter by the TCS at {tcs}: "
        "TCS.FLAGS.AEXNOTIFY differs from ATTRIBUTES.AEXNOTIFY, so EENTER is #GP\n"
    )
    done = softsgx("show", "--diff", "out.sgxs", "out.sig")
    assert done.code == 1
    assert done.out.endswith("EENTER refuses the TCS at 0x25000\n")
    assert signed(softsgx, *argv, "--attributemask", "0xfffffffffffffbff")[1] == ""


def test_names_of_bits_are_values(softsgx: Shell) -> None:
    argv = "--attributes MODE64BIT,KSS --xfrm X87,SSE,AVX --miscselect EXINFO --miscmask 0x1"
    signed(softsgx, "app", *argv.split())
    sig = parse((softsgx.directory / "out.sig").read_bytes())
    assert (sig.ATTRIBUTES, sig.XFRM, sig.MISCSELECT, sig.MISCMASK) == (0x84, 7, 1, 1)
    line = softsgx.refusal("sign", "app", *SIGN, "--miscselect", "EXINFO,KSS")
    assert "argument --miscselect: KSS: none of EXINFO, CPINFO" in line


def test_dbgoptin_is_not_the_builders(softsgx: Shell) -> None:
    """EADD clears it before it is measured, so a file that has it is not what is loaded."""
    data = bytearray(contents()["app.sgxs"])
    at = data.index(TCS(OSSA=0x3000, NSSA=1).pack()[:256])
    data[at + 8] |= TCS_DBGOPTIN
    (softsgx.directory / "optin").write_bytes(data)
    line = softsgx.refusal("measure", "optin")
    assert "TCS.FLAGS.DBGOPTIN at byte " in line
    assert line.endswith(": 0x1: EADD writes 0, so it must be 0\n")


def test_ready_made_tcs_pages_are_not_changed(softsgx: Shell) -> None:
    line = softsgx.refusal("measure", "selftest", "--layout", "selftest", "--aexnotify")
    assert line.startswith("softsgx: measure: --aexnotify: only with --layout threads: see ")
