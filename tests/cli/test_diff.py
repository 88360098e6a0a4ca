"""`softsgx show --diff`: the differences of two enclave files in a few lines; its exit codes."""

import pytest

from softsgx.image import sgxs
from softsgx.image.image import EnclaveImage, Segment
from softsgx.spec.epcm import REG, R, W
from tests.cli.enclave_files import Shell, contents
from tests.image.builders import poke, small_image

PAGE = 0x1000


HELP = "see softsgx show --help"


def differing(softsgx: Shell, *argv: str) -> list[str]:
    """The lines below the two that name the files."""
    done = softsgx("show", "--diff", *argv)
    assert (done.code, done.err) == (1, "")
    a, b, *lines = done.out.splitlines()
    assert (a[:2], b[:2]) == ("A ", "B ")
    return lines


def test_a_program_and_its_own_stream_are_equal(softsgx: Shell) -> None:
    softsgx("sign", "app", "--key", "key.pem", "--threads", "2", "--sgxs", "two.sgxs")
    done = softsgx("show", "--diff", "app", "two.sgxs", "--threads", "2")
    assert (done.code, done.err) == (0, "")
    a, b, last = done.out.splitlines()
    assert a.startswith("A app: ELF, 60 pages, MRENCLAVE ")
    assert b == a.replace("A app: ELF", "B two.sgxs: SGXS")
    assert last == "equal"


def test_what_a_layout_option_changes(softsgx: Shell) -> None:
    softsgx("sign", "app", "--key", "key.pem", "--sgxs", "one.sgxs")
    lines = differing(softsgx, "one.sgxs", "app", "--nssa", "3", "--measure-heap")
    assert lines == [
        "EEXTEND      0x4000-0x14000 (16 pages): A not measured, B measured",
        "pages        0x29000 only in B: rw- REG, measured",
        "TCS          0x25000: NSSA A 0x2, B 0x3",
        "TCS          0x25000: OFSBASGX A 0x28000, B 0x29000",
        "TCS          0x25000: OGSBASGX A 0x28000, B 0x29000",
    ]


def write(softsgx: Shell, name: str, image: EnclaveImage) -> str:
    (softsgx.directory / name).write_bytes(sgxs.write(image))
    return name


def test_a_page_of_another_content_and_another_order(softsgx: Shell) -> None:
    segments = small_image().segments
    turned = EnclaveImage(size=0x8000, segments=(segments[2], *segments[:2], *segments[3:]))
    lines = differing(softsgx, "app.sgxs", write(softsgx, "turned", turned))
    assert lines == ["EADD order   0x3000: A after 0x2000, B first"]
    code = Segment(0, 2 * PAGE, segments[0].flags, b"code" * 1000 + b"toad" + b"code" * 24)
    poked = EnclaveImage(size=0x8000, segments=(code, *segments[1:]))
    lines = differing(softsgx, "app.sgxs", write(softsgx, "poked", poked))
    assert lines == ["contents     0x0: 3 bytes from 0xfa0, A 636f6465636f6465, B 746f6164636f6465"]


def test_what_is_not_measured_is_said_to_be_so(softsgx: Shell) -> None:
    segments = list(small_image().segments)
    segments[3] = Segment(0x5000, PAGE, REG | R | W, b"HOST", ())
    other = EnclaveImage(size=0x8000, segments=tuple(segments))
    lines = differing(softsgx, "app.sgxs", write(softsgx, "other", other))
    assert lines == [
        "contents     0x5000: 4 bytes from 0x5000, A 686f737400000000, B 484f535400000000; "
        "not measured",
        "MRENCLAVE is the same: nothing that differs is measured",
    ]


def test_large_differences_are_cut_and_all_shows_them(softsgx: Shell) -> None:
    """Adjacent pages are one line; 40 pages with a gap after each are 16 lines and one more."""

    def every_second(content: bytes) -> EnclaveImage:
        segments = [Segment(n * 2 * PAGE, PAGE, REG | R | W, content) for n in range(40)]
        whole = Segment(100 * PAGE, 8 * PAGE, REG | R, content * 8 * PAGE)
        return EnclaveImage(size=0x80000, segments=(*segments, whole))

    names = [write(softsgx, name, every_second(name.encode())) for name in ("a", "b")]
    lines = differing(softsgx, *names)
    assert len(lines) == 17
    assert lines[-1] == "             and 25 more: --all shows them"
    lines = differing(softsgx, *names, "--all")
    assert len(lines) == 48
    assert lines[-1].startswith("contents     0x6b000: 4096 bytes from 0x6b000, ")


def test_neighbours_are_one_line(softsgx: Shell) -> None:
    names = []
    for name in ("a", "b"):
        image = EnclaveImage(
            size=0x10000, segments=(Segment(0, 8 * PAGE, REG | R, name.encode() * 8 * PAGE),)
        )
        names.append(write(softsgx, name, image))
    (line,) = differing(softsgx, *names)
    assert line.startswith("contents     0x0-0x8000 (8 pages): 32768 bytes from 0x0, A 6161")


def test_sigstructs_by_field(softsgx: Shell) -> None:
    raw = contents()["app.sig"]
    other = poke(poke(poke(raw, 928, 0x406, 8), 20, 0x20240229, 4), 600 + 384, 1, 1)
    (softsgx.directory / "other.sig").write_bytes(poke(other, 992, 7, 1))
    lines = differing(softsgx, "app.sig", "other.sig")
    assert lines[:2] == [
        "SIGSTRUCT    DATE A 0000-00-00, B 2024-02-29",
        "SIGSTRUCT    ATTRIBUTES A 0x4 MODE64BIT, B 0x406 DEBUG MODE64BIT AEXNOTIFY",
    ]
    assert lines[2].startswith("SIGSTRUCT    ENCLAVEHASH from byte 24 A ")
    assert lines[3].startswith("SIGSTRUCT    reserved bytes 992 to 1007 A 00")
    assert len(lines) == 4
    assert softsgx("show", "--diff", "app.sig", "app.sig").out.endswith("\nequal\n")


@pytest.mark.parametrize("turned", [False, True])
def test_an_enclave_and_a_sigstruct(turned: bool, softsgx: Shell) -> None:
    files = ["app.sgxs", "app.sig"]
    done = softsgx("show", "--diff", *(files[::-1] if turned else files))
    assert (done.code, done.err) == (0, "")
    last = done.out.splitlines()[-1]
    assert last == "ENCLAVEHASH is MRENCLAVE: the SIGSTRUCT is for this enclave"
    files = ["app", "app.sig"]
    (line,) = differing(softsgx, *(files[::-1] if turned else files))
    assert line == "SIGSTRUCT    ENCLAVEHASH is not MRENCLAVE: EINIT refuses the enclave"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--diff", "app"], "--diff: A and B are needed, not 1 of them: see softsgx show --help"),
        (
            ["--diff", "app", "app", "app"],
            "--diff: A and B are needed, not 3 of them: see softsgx show --help",
        ),
        (["app", "app.sgxs"], "FILE is needed, not 2 of them: see softsgx show --help"),
        (["app", "--all"], "--all: only with --diff: see softsgx show --help"),
        (["--diff", "app", "nowhere"], "nowhere: No such file or directory"),
        (
            ["--diff", "app", "key.pem"],
            "key.pem: content: begins with 2d2d2d2d2d424547: neither ELF, SGXS nor SIGSTRUCT",
        ),
        (
            ["--diff", "app.sgxs", "app.sig", "--nssa", "3"],
            "layout: neither file is an ELF program, so there is nothing to lay out",
        ),
        (["--diff", "app.sig", "exec", "--threads", "0"], "--threads: 0 is not from 1 to 4096"),
    ],
)
def test_refused(argv: list[str], message: str, softsgx: Shell) -> None:
    assert softsgx.refusal("show", *argv) == f"softsgx: show: {message}\n"
