"""`softsgx measure`."""

import json

import pytest

from softsgx.image import sgxs
from softsgx.image.layout import SelftestLayout, ThreadLayout
from tests.cli import snapshots
from tests.cli.enclave_files import Shell, contents
from tests.image.builders import small_image

NEITHER = "neither ELF, SGXS nor SIGSTRUCT"
LAID_OUT = "layout: an SGXS file has its pages laid out already"


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("measure-elf.txt", ["app"]),
        ("measure-exec.txt", ["exec", "--threads", "3"]),
        ("measure-selftest.txt", ["selftest", "--layout", "selftest"]),
        ("measure-sgxs.txt", ["app.sgxs"]),
        ("measure-elf.json", ["app", "--json"]),
        ("measure-exec.json", ["exec", "--json"]),
    ],
)
def test_output(name: str, argv: list[str], softsgx: Shell) -> None:
    done = softsgx("measure", *argv)
    assert (done.code, done.err) == (0, "")
    snapshots.check(name, done.out)


def test_mrenclave_is_that_of_the_image(softsgx: Shell) -> None:
    found = json.loads(softsgx("measure", "app", "--json").out)
    assert found["mrenclave"] == ThreadLayout().image(contents()["app"]).mrenclave().hex()
    found = json.loads(softsgx("measure", "app.sgxs", "--json").out)
    assert found["mrenclave"] == small_image().mrenclave().hex()
    assert found["kind"] == "SGXS"


def test_every_layout_option_is_handed_on(softsgx: Shell) -> None:
    argv = (
        "--threads 2 --nssa 3 --ssaframesize 4 --stack-pages 5 --heap-pages 6 --guard-pages 0x7"
        " --thread-data-pages 8 --measure-heap --relocate-to 0x10000000"
    )
    layout = ThreadLayout(
        threads=2,
        nssa=3,
        ssaframesize=4,
        stack_pages=5,
        heap_pages=6,
        guard_pages=7,
        thread_data_pages=8,
        measure_heap=True,
        relocate_to=0x1000_0000,
    )
    found = json.loads(softsgx("measure", "app", "--json", *argv.split()).out)
    assert found["mrenclave"] == layout.image(contents()["app"]).mrenclave().hex()
    assert found["baseaddr"] == 0x1000_0000
    argv = "--layout selftest --heap-pages 3 --ssaframesize 2 --measure-heap"
    selftest = SelftestLayout(heap_pages=3, ssaframesize=2, measure_heap=True)
    found = json.loads(softsgx("measure", "selftest", "--json", *argv.split()).out)
    assert found["mrenclave"] == selftest.image(contents()["selftest"]).mrenclave().hex()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "nowhere: No such file or directory"),
        (["."], ".: Is a directory"),
        (["app/nowhere"], "app/nowhere: Not a directory"),
        (["key.pem"], f"key.pem: content: begins with 2d2d2d2d2d424547: {NEITHER}"),
        (["/dev/zero"], f"/dev/zero: content: begins with 0000000000000000: {NEITHER}"),
        (
            ["app.sig"],
            "app.sig: content: a SIGSTRUCT, which holds no enclave: give an ELF or SGXS file",
        ),
        (["app", "--threads", "0"], "--threads: 0 is not from 1 to 4096"),
        (
            ["app", "--threads", "x"],
            "argument --threads: x: not a number: see softsgx measure --help",
        ),
        (
            ["app", "--threads", "-1"],
            "argument --threads: -1: not from 0 to 0xffffffff: see softsgx measure --help",
        ),
        (["app.sgxs", "--threads", "1"], f"app.sgxs: {LAID_OUT}"),
        (["app.sgxs", "--layout", "threads"], f"app.sgxs: {LAID_OUT}"),
        (
            ["selftest", "--layout", "selftest", "--threads", "1"],
            "--threads: only with --layout threads: see softsgx measure --help",
        ),
        (
            ["selftest", "--layout", "selftest", "--relocate-to", "0"],
            "--relocate-to: only with --layout threads: see softsgx measure --help",
        ),
        (
            ["app", "--layout", "selftest"],
            "app: program header 0, p_flags at byte 68: "
            "r--, but the selftest layout begins with TCS pages, rw-",
        ),
        (["app", "--relocate-to", "0x1000"], "app: BASEADDR: 0x1000 is not a multiple of 0x40000"),
    ],
)
def test_refusals(argv: list[str], message: str, softsgx: Shell) -> None:
    assert softsgx.refusal("measure", *argv) == f"softsgx: measure: {message}\n"


def test_unreadable_file(softsgx: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    assert softsgx.refusal("measure", "app") == "softsgx: measure: app: Permission denied\n"


def test_stream_that_is_not_canonical_is_measured(softsgx: Shell) -> None:
    pages = list(small_image().segments)
    turned = type(small_image())(size=0x8000, segments=(*pages[1:], pages[0]))
    (softsgx.directory / "turned").write_bytes(sgxs.write(turned))
    done = softsgx("measure", "turned")
    assert f"MRENCLAVE  {turned.mrenclave().hex()}\n" in done.out
