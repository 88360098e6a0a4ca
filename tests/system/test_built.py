"""The stream of what the processor really measured, against the measurement itself."""

from hashlib import sha256

import pytest
from hypothesis import given

from softsgx import Machine
from softsgx.cpu.bare import ENCLAVE_BASE, Bare
from softsgx.cpu.signature import development_key
from softsgx.image import sgxs
from softsgx.image.difference import compare
from softsgx.image.image import EnclaveImage
from softsgx.image.sigstruct import sign
from softsgx.spec import leaves
from softsgx.spec.epcm import REG, TCS, R, W
from softsgx.spec.secs import SECS
from softsgx.spec.status import SGX_INVALID_MEASUREMENT
from softsgx.system.built import ACCEPTED, BuiltEnclaves, Kept
from softsgx.system.loader import load
from tests.image.builders import small_image, tcs_page
from tests.image.test_difference import images

PAGE = 0x1000


def data(built: BuiltEnclaves, number: int = 0) -> bytes:
    stream = built.enclaves[number].stream
    assert isinstance(stream, Kept)
    return bytes(stream.data)


def secs(image: EnclaveImage, base: int = ENCLAVE_BASE) -> SECS:
    return image.secs(base)


def add(bare: Bare, page: int, image: EnclaveImage, base: int = ENCLAVE_BASE) -> None:
    """All pages, as a driver adds them."""
    for one in image.pages():
        added = bare.eadd(page, base + one.offset, one.content, one.flags)
        for chunk in one.chunks:
            rcx = bare.address(added) + 256 * chunk
            bare.lp.encls(leaves.EEXTEND, bare.address(page), rcx)


@given(images())
def test_a_stream_read_back_is_the_enclave(image: EnclaveImage) -> None:
    """In any order, with chunks in any order, and with what is not measured."""
    bare = Bare(epc_pages=16)
    with BuiltEnclaves(bare.processor) as built:
        page = bare.ecreate(secs(image))
        add(bare, page, image)
        bare.einit(page, sign(image, development_key()))
    (found,) = built.enclaves
    assert (found.einit, found.unusual, found.pages) == (ACCEPTED, "", image.page_count())
    again = sgxs.read(data(built))
    assert not compare(again, image)
    assert again.mrenclave() == found.mrenclave == bare.processor.secs[page].MRENCLAVE


def test_refused_and_then_accepted() -> None:
    """EINIT may be repeated, and pages may be added in between."""
    image = small_image()
    bare = Bare(epc_pages=16)
    with BuiltEnclaves(bare.processor) as built:
        page = bare.ecreate(secs(image))
        status = bare.einit(page, sign(image, development_key()))
        assert int(status or 0) == SGX_INVALID_MEASUREMENT
        assert built.enclaves[0].einit == "SGX_INVALID_MEASUREMENT (EINIT.13)"
        add(bare, page, image)
        bare.einit(page, sign(image, development_key()))
    assert built.enclaves[0].einit == ACCEPTED
    assert data(built) == sgxs.write(image)


def test_two_enclaves_at_the_same_time() -> None:
    image, other = small_image(), EnclaveImage(size=0x4000, segments=())
    bare = Bare(epc_pages=24)
    with BuiltEnclaves(bare.processor) as built:
        first, second = bare.ecreate(secs(image)), bare.ecreate(secs(other))
        bare.eadd(second, ENCLAVE_BASE, b"x")
        add(bare, first, image)
        bare.eadd(second, ENCLAVE_BASE + PAGE, b"y")
    assert data(built) == sgxs.write(image)
    offsets = [(page.offset, page.content[:1]) for page in sgxs.read(data(built, 1)).pages()]
    assert offsets == [(0, b"x"), (PAGE, b"y")]
    assert [found.einit for found in built.enclaves] == ["", ""]


@pytest.mark.parametrize("kind", ["a chunk of an earlier page", "a chunk twice", "a page twice"])
def test_orders_that_no_reader_accepts(kind: str) -> None:
    """The stream still is what was measured: its SHA-256 is MRENCLAVE."""
    bare = Bare(epc_pages=16)
    with BuiltEnclaves(bare.processor) as built:
        page = bare.ecreate(secs(EnclaveImage(size=0x4000, segments=())))
        first = bare.eadd(page, ENCLAVE_BASE)
        if kind == "a page twice":
            bare.eremove(first)
            bare.eadd(page, ENCLAVE_BASE)
        else:
            bare.eextend(page, first)
            if kind == "a chunk of an earlier page":
                bare.eadd(page, ENCLAVE_BASE + PAGE)
            bare.eextend(page, first)
        running = bare.processor.secs[page].measurement
    assert running is not None
    (found,) = built.enclaves
    assert found.unusual
    assert sha256(data(built)).digest() == running.digest() == found.mrenclave
    with pytest.raises(ValueError, match=r"record \d+ "):
        sgxs.read(data(built))


def test_rights_of_a_tcs_are_dropped_before_it_is_measured() -> None:
    bare = Bare(epc_pages=16)
    with BuiltEnclaves(bare.processor) as built:
        page = bare.ecreate(secs(small_image()))
        bare.eadd(page, ENCLAVE_BASE, tcs_page(), TCS | R | W)
        running = bare.processor.secs[page].measurement
    assert running is not None
    assert sgxs.read(data(built)).mrenclave() == running.digest()


def test_a_refused_einit_ends_the_page_and_the_stream_is_complete_so_far() -> None:
    """If more of the page is measured afterwards, no reader accepts the stream."""

    class Told(Kept):
        """Remembers what was written at the last flush."""

        seen = b""

        def flush(self) -> None:
            self.seen = bytes(self.data)

    stream, image = Told(), small_image()
    bare = Bare(epc_pages=16)
    with BuiltEnclaves(bare.processor, lambda _: stream) as built:
        page = bare.ecreate(secs(image))
        added = bare.eadd(page, ENCLAVE_BASE, b"host")
        bare.einit(page, sign(image, development_key()))
        assert stream.seen == bytes(stream.data)
        (first,) = sgxs.read(stream.seen).pages()
        assert first.content.startswith(b"host")
        bare.eextend(page, added)
    assert built.enclaves[0].unusual == "chunk 0x0 was measured twice, or after an EINIT"


def test_an_enclave_that_is_removed_is_closed_and_its_page_used_again() -> None:
    bare = Bare(epc_pages=16)
    with BuiltEnclaves(bare.processor) as built:
        page = bare.ecreate(secs(small_image()))
        added = bare.eadd(page, ENCLAVE_BASE, bytes(300) + b"host", REG | R | W)
        bare.eremove(added)
        bare.eremove(page)
        assert not built.enclaves[0].open
        image = small_image()
        add(bare, bare.ecreate(secs(image)), image)
    assert len(built.enclaves) == 2
    assert data(built, 1) == sgxs.write(image)
    (lost,) = sgxs.read(data(built)).pages()
    assert lost.content[300:304] == b"host"


def test_an_enclave_that_is_removed_leaves_the_others_streams_alone() -> None:
    """An enclave that is still being built keeps its stream."""
    image = small_image()
    bare = Bare(epc_pages=24)
    with BuiltEnclaves(bare.processor) as built:
        page = bare.ecreate(secs(image))
        for one in range(2):
            bare.eremove(bare.ecreate(secs(image)))
            assert [found.open for found in built.enclaves] == [True, *[False] * (one + 1)]
        add(bare, page, image)
        bare.einit(page, sign(image, development_key()))
    assert built.enclaves[0].einit == ACCEPTED
    assert data(built) == sgxs.write(image)


def test_enclaves_without_a_stream_are_counted() -> None:
    bare = Bare(epc_pages=16)
    with BuiltEnclaves(bare.processor, lambda number: Kept() if number == 2 else None) as built:
        for _ in range(3):
            page = bare.ecreate(secs(small_image()))
            bare.eadd(page, ENCLAVE_BASE)
    assert ([found.number for found in built.enclaves], built.left_out) == ([2], 2)


def test_a_machine_keeps_what_its_driver_built() -> None:
    """The driver adds whole pages; SHA-256 of the stream is what INIT compared."""
    machine = Machine()
    with machine.built() as built:
        enclave = machine.run(load(machine.thread()))
    assert built.enclaves[0].einit == ACCEPTED
    assert not compare(sgxs.read(data(built)), enclave.image)
