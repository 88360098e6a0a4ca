"""The loader: what it cannot build is refused before anything is built, and leaves nothing."""

from dataclasses import replace

import pytest

from softsgx.cpu import Part
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.system import EnclaveThread, Machine, load
from softsgx.system.loader import BuildError, default_image


def test_half_measured_pages_are_refused() -> None:
    """ADD_PAGES measures whole pages, so the measurement would not be the signed one."""
    image = default_image()
    halves = tuple(replace(segment, chunks=(0, 1)) for segment in image.segments)
    machine = Machine()
    with pytest.raises(BuildError, match=r"segment at 0x0: .* all of a page or nothing"):
        machine.run(load(machine.thread(), replace(image, segments=halves)))


def test_more_threads_than_secinfo_slots_are_refused() -> None:
    image = default_image(threads=65, nssa=1)
    one_page = tuple(
        replace(segment, size=PAGE_SIZE) if segment.label == "scratch" else segment
        for segment in image.segments
    )
    machine = Machine()
    with pytest.raises(BuildError, match="65 TCS: the scratch pages have 64 SECINFO slots"):
        machine.run(load(machine.thread(), replace(image, segments=one_page)))


def test_every_thread_has_a_secinfo_slot_of_its_own() -> None:
    """The 65th used to share the slot of the first, and overwrite its SECINFO in mid-leaf."""
    machine = Machine()
    enclave = machine.run(load(machine.thread(), threads=65, nssa=1))
    assert len({enclave.secinfo_slot(tcs) for tcs in enclave.tcs}) == 65


def test_the_descriptor_is_closed_if_the_enclave_cannot_be_built() -> None:
    machine = Machine()
    host = machine.thread()
    machine.kernel.inject = "init_page".__eq__
    with pytest.raises(BuildError, match="SGX_IOC_ENCLAVE_INIT: -ENOMEM"):
        machine.run(load(host))
    assert host.process.files == {}
    machine.settle()
    assert machine.kernel.nr_free == machine.processor.epc.pages


AMX = Part(xfrm=0x602E7)


@pytest.mark.parametrize(("xfrm", "ssaframesize"), [(0x3, 1), (0x602E7, 3), (0x60003, 3)])
def test_an_enclave_with_tiles(xfrm: int, ssaframesize: int) -> None:
    """Such a part could not be made."""
    machine = Machine(part=AMX)
    host = machine.thread()
    enclave = machine.run(load(host, xfrm=xfrm, ssaframesize=ssaframesize))

    def program(t: EnclaveThread) -> Steps[bytes]:
        yield from t.store(enclave.data[0], b"before")
        yield from t.accept_new(enclave.heap)  # a page fault on the way: AEX and ERESUME
        yield from t.store(enclave.heap, b"behind")
        return (yield from t.load(enclave.data[0], 6))

    assert machine.run(enclave.call(host, program)) == b"before"


@pytest.mark.parametrize(("xfrm", "ssaframesize"), [(0x602E7, 2), (0x202E7, 3), (0x402E7, 3)])
def test_tiles_need_both_bits_and_three_pages(xfrm: int, ssaframesize: int) -> None:
    """A loader that copies XCR0 but keeps frames of one page fails on such a part."""
    machine = Machine(part=AMX)
    with pytest.raises(BuildError, match=r"^SGX_IOC_ENCLAVE_CREATE: -EIO"):
        machine.run(load(machine.thread(), xfrm=xfrm, ssaframesize=ssaframesize))
