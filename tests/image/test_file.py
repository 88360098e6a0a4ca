"""Which kind a file is, by its content."""

import pytest

from softsgx.cpu.signature import development_key
from softsgx.image import ImageError, file, sgxs
from softsgx.image.layout import ThreadLayout
from softsgx.image.sigstruct import sign
from tests.image.builders import DATA, TEXT, elf_file, small_image

ELF = elf_file(TEXT, DATA)


def test_kind_of_each() -> None:
    sig = sign(small_image(), development_key()).pack()
    assert file.kind(ELF) == file.ELF
    assert file.kind(sgxs.write(small_image())) == file.SGXS
    assert file.kind(b"UNSIZED\0") == file.SGXS
    assert file.kind(sig) == file.kind(sig[:100]) == file.kind(b"?" + sig[1:]) == file.SIG


@pytest.mark.parametrize(
    ("data", "shown"), [(b"", "nothing"), (b"#!/bin/sh\n", "23212f62696e2f73"), (b"\x7f", "7f")]
)
def test_other_files_are_refused(data: bytes, shown: str) -> None:
    with pytest.raises(ImageError) as refused:
        file.kind(data)
    expected = f"content: begins with {shown}: neither ELF, SGXS nor SIGSTRUCT"
    assert str(refused.value) == expected


def test_load() -> None:
    layout = ThreadLayout(threads=3)
    assert file.load(ELF).mrenclave() == ThreadLayout().image(ELF).mrenclave()
    assert file.load(ELF, layout).mrenclave() == layout.image(ELF).mrenclave()
    assert file.load(sgxs.write(small_image())).mrenclave() == small_image().mrenclave()


def test_load_refuses_a_sigstruct() -> None:
    with pytest.raises(ImageError) as refused:
        file.load(bytes(1808))
    expected = "content: a SIGSTRUCT, which holds no enclave: give an ELF or SGXS file"
    assert str(refused.value) == expected


def test_load_refuses_to_lay_out_a_stream() -> None:
    with pytest.raises(ImageError) as refused:
        file.load(sgxs.write(small_image()), ThreadLayout())
    assert str(refused.value) == "layout: an SGXS file has its pages laid out already"
