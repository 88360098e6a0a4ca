"""`softsgx driver build`: what is made, when it is made again, and what a bad tree gets."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from softsgx.cdriver import build as build_module
from softsgx.cdriver import debian, manifest
from softsgx.cdriver.build import ENCLS_BYTES, build
from softsgx.cdriver.errors import CompileError, DriverError
from softsgx.cdriver.tree import DRIVER, find
from softsgx.cli.main import main
from tests.cdriver import sources

# Loops over all leaves of encls.h, in the assembler output of the whole driver.
ENCLS_SITES_MIN = 15


def refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is printed when this tree is built."""
    out = tree.parent / "sgx.drv"
    assert main(["driver", "build", "--source", str(tree), "-o", str(out)]) == 2
    assert not out.exists()
    return capsys.readouterr().err.splitlines()


# A tree that cannot be built


def test_a_tree_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(tmp_path / "none", capsys)
    assert line == f"softsgx: driver: {tmp_path}/none: No such directory"


def test_a_directory_that_is_no_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").mkdir()
    (line,) = refused(tmp_path / "x", capsys)
    assert line.endswith("/x: not a source tree of the kernel: no version in its Makefile")


def test_a_tree_without_the_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = sources.small_tree(tmp_path / "linux")
    (tree / DRIVER / "ioctl.c").unlink()
    (line,) = refused(tree, capsys)
    assert line.endswith(f": Linux 6.12.0 without the SGX driver: no {DRIVER}/ioctl.c")


def test_a_tree_that_is_too_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = "5.19.9"
    (line,) = refused(sources.small_tree(tmp_path / "linux", old), capsys)
    assert line.endswith(f"/linux: Linux {old} is too old: 6.0 is the oldest")
    assert find(sources.small_tree(tmp_path / "newer", "6.0.0")).code == 0x60000


LACKING = {
    "a function": (
        "#include <linux/dma.h>\nint f(void);\nint f(void)\n{\n\treturn dma_sync(3);\n}\n",
        "encl.c:5: dma_sync(): a function of the kernel that softsgx does not have",
    ),
    "a name": (
        "#include <linux/dma.h>\nint f(void);\nint f(void)\n{\n\treturn DMA_SIZE;\n}\n",
        "encl.c:5: DMA_SIZE: a name of the kernel that softsgx does not have",
    ),
    "a type": (
        "extern dma_t f(void);\n",
        "encl.c:1: dma_t: a type of the kernel that softsgx does not have",
    ),
    "the body of a type": (
        "struct dma;\nint f(struct dma *);\nint f(struct dma *d)\n{\n\treturn d->size;\n}\n",
        "encl.c:5: struct dma: a type of the kernel of which softsgx does not have this much",
    ),
    "a member": (
        "int f(struct page *);\nint f(struct page *p)\n{\n\treturn p->flags;\n}\n",
        "encl.c:4: struct page: a type of the kernel of which softsgx does not have this member",
    ),
}


@pytest.mark.parametrize("what", LACKING)
def test_what_the_headers_lack_is_named_with_its_place(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = LACKING[what]
    lines = refused(sources.small_tree(tmp_path / "linux", encl_c=text), capsys)
    assert lines[-1] == f"softsgx: driver: {DRIVER}/{said} (Linux 6.12.0)"
    assert any(": error: " in line for line in lines[:-1])  # the compiler's own lines come first


def test_what_a_tree_of_6_18_calls_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of Linux 6.18, sgx/main.c and sgx/ioctl.c, that 6.12 does not use."""
    text = """#include <linux/vmalloc.h>
#include <asm/msr.h>
#include <crypto/sha2.h>
void *f(const u8 *key, u8 *hash);
void *f(const u8 *key, u8 *hash)
{
	sha256(key, 384, hash);
	wrmsrq(MSR_IA32_SGXLEPUBKEYHASH0, 1);
	return vmalloc_array(3, 5);
}
"""
    tree = find(sources.small_tree(tmp_path / "linux", "6.18.0", encl_c=text))
    # Without the file that reads the structures of a whole driver.
    monkeypatch.setattr(build_module, "RUNTIME", build_module.RUNTIME[:-1])
    # The first thing that is missing is what a whole driver would have brought.
    with pytest.raises(CompileError, match=r"^shim\.c:\d+: sgx_ipi_cb\(\)"):
        build(tree)


@pytest.mark.parametrize(
    ("release", "nearest"),
    [("6.1.192", "6.1"), ("6.12.117", "6.12"), ("6.17.9", "6.12"), ("6.18.0", "6.18")],
)
def test_the_kernel_around_a_driver(release: str, nearest: str) -> None:
    made = manifest.Manifest("", release, manifest.CALL, {}, "gcc")
    assert made.kernel == nearest


def test_a_file_that_does_not_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(sources.small_tree(tmp_path / "linux", encl_c="int f(void) { oops\n"), capsys)
    assert any("encl.c:1:" in line for line in lines[:-1])


def test_a_function_that_is_declared_and_nowhere_defined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "int dma_map(int);\nint f(void);\nint f(void)\n{\n\treturn dma_map(3);\n}\n"
    tree = find(sources.small_tree(tmp_path / "linux", encl_c=text))
    # Without the file that reads the structures of a whole driver.
    monkeypatch.setattr(build_module, "RUNTIME", build_module.RUNTIME[:-1])
    with pytest.raises(CompileError, match=r"encl\.c:5: dma_map\(\): a function of the kernel"):
        build(tree)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverError, match=r"^gcc: not there: apt-get install gcc binutils$"):
        build(find(sources.small_tree(tmp_path / "linux")))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(debian, "SOURCES", tmp_path)
    with pytest.raises(DriverError, match=r"apt-get install linux-source-6\.12$"):
        debian.source("6.12")


# A file that is no driver object


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01" + bytes(100), b"text" * 30])
def test_another_file_is_no_driver_object(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DriverError, match="x: not a driver object: make one with softsgx driver"):
        manifest.read(tmp_path / "x")


# The kernel's own trees


@pytest.mark.parametrize("version", sources.VERSIONS)
def test_the_driver_of_a_kernel_is_built_unmodified(
    version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = sources.driver_object(version, tmp_path_factory)
    found = manifest.fitting(path)
    assert found.linux.startswith(f"{version}.")
    assert {f"{DRIVER}/{name}" for name in ("main.c", "encl.h", "sgx.h")} <= set(found.inputs)
    tree = sources.kernel_or_skip(version)
    for name, digest in found.inputs.items():
        assert manifest.digest(tree.top / name) == digest


def test_nothing_is_built_again_unless_something_changed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = sources.kernel_or_skip("6.12")
    path = sources.driver_object("6.12", tmp_path_factory)

    def never(*_: object) -> object:
        return SimpleNamespace(make=lambda wanted: b"made again")

    monkeypatch.setattr(build_module, "_Build", never)
    assert not build(tree, manifest.CALL, path).made
    assert build(tree, manifest.TRAP, path).data == b"made again"
    assert build(tree, manifest.CALL, path.parent / "missing").made
    monkeypatch.setattr(manifest, "headers_digest", lambda: "other")
    assert build(tree, manifest.CALL, path).made
    with pytest.raises(DriverError, match="built for another softsgx: build it again"):
        manifest.fitting(path)


def test_every_encls_becomes_a_call(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The listing of the compiler has the bytes; that which is assembled has calls instead."""
    tree = sources.kernel_or_skip("6.12")
    texts: list[str] = []
    whole = build_module._Build._run

    def spy(self: object, command: list[str], name: str) -> None:
        if command[0] == "as":
            texts.append(Path(command[1]).read_text())
        whole(self, command, name)  # type: ignore[arg-type]

    monkeypatch.setattr(build_module._Build, "_run", spy)
    build(tree, manifest.CALL)
    called = sum(len(re.findall(r"\bcall k_encls\b", text)) for text in texts)
    assert called >= ENCLS_SITES_MIN
    assert not any(ENCLS_BYTES.search(text) for text in texts)
    texts.clear()
    build(tree, manifest.TRAP)
    assert sum(len(ENCLS_BYTES.findall(text)) for text in texts) == called
