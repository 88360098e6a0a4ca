"""`softsgx sign`."""

import pytest

from softsgx.cpu.signature import development_key
from softsgx.image import sgxs
from softsgx.image.layout import ThreadLayout
from softsgx.image.sigstruct import SignOptions, mrsigner, parse, sign, verify
from tests.cli import snapshots
from tests.cli.enclave_files import Shell, contents
from tests.image.builders import small_image


def test_output_and_sigstruct(softsgx: Shell) -> None:
    done = softsgx("sign", "app.sgxs", "--key", "key.pem", "-o", "out.sig")
    assert (done.code, done.err) == (0, "")
    snapshots.check("sign.txt", done.out)
    raw = (softsgx.directory / "out.sig").read_bytes()
    assert raw == sign(small_image(), development_key()).pack()
    assert len(raw) == 1808


def test_prints_mrenclave_and_mrsigner(softsgx: Shell) -> None:
    done = softsgx("sign", "app", "--key", "key.pem")
    sig = parse((softsgx.directory / "app.sig").read_bytes())
    assert done.out == (f"MRENCLAVE  {sig.ENCLAVEHASH.hex()}\nMRSIGNER   {mrsigner(sig).hex()}\n")
    assert ThreadLayout().image(contents()["app"]).mrenclave() == sig.ENCLAVEHASH


def test_stream_is_written_beside(softsgx: Shell) -> None:
    argv = ("--threads", "2", "--sgxs", "two.sgxs")
    assert softsgx("sign", "app", "--key", "key.pem", *argv).code == 0
    image = ThreadLayout(threads=2).image(contents()["app"])
    assert (softsgx.directory / "two.sgxs").read_bytes() == sgxs.write(image)


def test_every_field_option_is_handed_on(softsgx: Shell) -> None:
    argv = (
        "--attributes 0x84 --attributemask 0xfd --xfrm 7 --xfrmmask 0x1b --miscselect 1"
        " --miscmask 3 --isvprodid 5 --isvsvn 6 --vendor 0x8086 --swdefined 9"
        " --date 2024-02-29 --debug"
        " --isvfamilyid 000102030405060708090a0b0c0d0e0f"
        " --isvextprodid ff0102030405060708090a0b0c0d0e0f"
    )
    assert softsgx("sign", "app.sgxs", "--key", "key.pem", *argv.split()).code == 0
    raw = (softsgx.directory / "app.sig").read_bytes()
    options = SignOptions(
        vendor=0x8086,
        date="2024-02-29",
        swdefined=9,
        attributemask=0xFD,
        xfrmmask=0x1B,
        miscmask=3,
        isvprodid=5,
        isvsvn=6,
        isvfamilyid=bytes(range(16)),
        isvextprodid=b"\xff" + bytes(range(1, 16)),
    )
    image = small_image(attributes=0x86, xfrm=7, miscselect=1)
    assert raw == sign(image, development_key(), options).pack()
    assert verify(raw) == ()


KEY = ["--key", "key.pem"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["app"], "--key is needed: see softsgx sign --help"),
        (["app", "--key", "nowhere"], "nowhere: No such file or directory"),
        (["app", "--key", "app"], "app: key: no private key in PEM format"),
        (["nowhere", *KEY], "nowhere: No such file or directory"),
        (["app", *KEY, "-o", "no/where"], "no/where: No such file or directory"),
        (["app", *KEY, "-o", "."], ".: Is a directory"),
        (["app", *KEY, "-o", "app"], "app: would be written over: choose another name"),
        (["app", *KEY, "-o", "./key.pem"], "./key.pem: would be written over: choose another name"),
        (
            ["app", *KEY, "--sgxs", "app.sig"],
            "app.sig: would be written over: choose another name",
        ),
        (["app.sig", *KEY], "app.sig: would be written over: choose another name"),
        (
            ["app.sig", *KEY, "-o", "out"],
            "app.sig: content: a SIGSTRUCT, which holds no enclave: give an ELF or SGXS file",
        ),
        (["app", *KEY, "--vendor", "1"], "app: VENDOR: 0x1 is neither 0 nor 0x8086"),
        (
            ["app", *KEY, "--date", "2023-02-29"],
            "app: DATE: 2023-02-29 is not a date of the form YYYY-MM-DD",
        ),
        (["app", *KEY, "--xfrm", "1"], "app: XFRM: 0x1 lacks x87 (bit 0) or SSE (bit 1)"),
        (
            ["app", *KEY, "--isvprodid", "0x10000"],
            "argument --isvprodid: 0x10000: not from 0 to 0xffff: see softsgx sign --help",
        ),
        (
            ["app", *KEY, "--swdefined", "0x100000000"],
            "argument --swdefined: 0x100000000: not from 0 to 0xffffffff: see softsgx sign --help",
        ),
        (
            ["app", *KEY, "--xfrm", "0x10000000000000000"],
            "argument --xfrm: 0x10000000000000000: not from 0 to 0xffffffffffffffff: "
            "see softsgx sign --help",
        ),
        (
            ["app", *KEY, "--isvfamilyid", "00"],
            "argument --isvfamilyid: 00: not 32 hexadecimal digits: see softsgx sign --help",
        ),
        (
            ["app", *KEY, "--isvextprodid", "x" * 32],
            f"argument --isvextprodid: {'x' * 32}: not 32 hexadecimal digits: "
            "see softsgx sign --help",
        ),
        (
            ["app", *KEY, "--isvfamilyid", "01" * 16],
            "app: ISVFAMILYID: needs ATTRIBUTES.KSS (bit 7)",
        ),
    ],
)
def test_refusals(argv: list[str], message: str, softsgx: Shell) -> None:
    before = {path.name: path.read_bytes() for path in softsgx.directory.iterdir()}
    assert softsgx.refusal("sign", *argv) == f"softsgx: sign: {message}\n"
    assert {path.name: path.read_bytes() for path in softsgx.directory.iterdir()} == before


def test_full_disk(softsgx: Shell) -> None:
    line = softsgx.refusal("sign", "app", *KEY, "-o", "/dev/full")
    assert line == "softsgx: sign: /dev/full: No space left on device\n"
