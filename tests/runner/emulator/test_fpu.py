"""x87 and SSE state between the model and the emulator: nothing is lost, in either direction."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softsgx.runner.emulator.blocks import Why
from softsgx.runner.emulator.fpu import Fpu
from softsgx.runner.emulator.unicorn_api import Uc
from softsgx.spec import faults
from tests.runner.emulator.engine_rig import rig
from tests.runner.gcc import needs_gcc

bits = st.integers(0, (1 << 128) - 1)


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """FXSAVE images that FXRSTOR accepts: all of TOP, tags, flags, control words, registers."""
    fcw = draw(st.integers(0, 0xFFFF)) & 0x0F3F | 0x40
    fsw, tags = draw(st.integers(0, 0xFFFF)), draw(st.integers(0, 0xFF))
    mxcsr = draw(st.integers(0, 0xFFFF))
    head = struct.pack("<HHBxHQQII", fcw, fsw, tags, 0, 0, 0, mxcsr, 0xFFFF)
    stack = [draw(bits) & (1 << 80) - 1 for _ in range(8)]
    xmm = [draw(bits) for _ in range(16)]
    return b"".join([head, *(x.to_bytes(16, "little") for x in (*stack, *xmm)), bytes(96)])


@pytest.fixture(scope="module")
def fpus() -> Iterator[tuple[Fpu, Fpu]]:
    """Two emulators' registers."""
    one, other = Uc(), Uc()
    yield Fpu(one), Fpu(other)
    one.close()
    other.close()


def architectural(image: bytes) -> tuple[object, ...]:
    """What software can see of it: the stack registers, whatever their tags."""
    fcw, fsw, tags = struct.unpack_from("<HHB", image)
    return fcw, fsw, tags, image[24:28], image[32:416]


@given(images(), images())
@settings(max_examples=300)
def test_what_is_loaded_is_saved(fpus: tuple[Fpu, Fpu], first: bytes, second: bytes) -> None:
    """One image after the other: nothing of the first is left in the second."""
    fpu, other = fpus
    for image in (first, second):
        fpu.load(image)
        fpu.image = None
        saved = fpu.save()
        assert architectural(saved) == architectural(image)
        other.load(saved)
        other.image = None
        assert other.save() == saved


def test_reserved_bits_of_mxcsr_do_not_get_out() -> None:
    """The emulator's LDMXCSR takes them; a host thread could not be continued with them.

    The story: PTRACE_SETFPREGS refuses such an image, and the supervisor fell over that.
    """
    with rig("ldmxcsr [rdi]; enclu") as r:
        r.lp().store(r.data, (0xFFFF1F80).to_bytes(4, "little"))
        r.set(rdi=r.data)
        r.expect_exit()
        assert r.lp().x.legacy[24:28] == (0x1F80).to_bytes(4, "little")


FILL = "; ".join(f"movq xmm{n}, rax; inc rax" for n in range(16))
CHECK = "; ".join(f"movq rbx, xmm{n}; sub rbx, rax; add rdx, rbx; inc rax" for n in range(16))


@needs_gcc
def test_xmm_and_x87_survive_slices_of_other_threads_and_an_aex() -> None:
    """Thread 1 fills its registers with other values whenever thread 0 is interrupted."""
    text = f"""
        fldpi
        {FILL}
        lea     rax, [rax - 16]
        enclu
        {CHECK}
        fldpi
        fcompp
        fnstsw  ax
        enclu
    """
    with rig(text, lps=2) as r:
        r.set(0, rax=1000, rdx=0)
        r.set(1, rax=5, rdx=0)
        r.expect_exit(0)
        r.expect_exit(1)
        for number in (0, 1):
            r.set(number, rip=r.get("rip", number) + 3)
        r.lp(0).interrupt()
        assert r.lp(0).x.legacy[160:416] == bytes(256), "INIT outside"
        r.resume(0)
        for number in (0, 1):
            r.expect_exit(number)
            assert r.get("rdx", number) == 0
            assert r.get("rax", number) & 0x4000, "pi == pi: C3"


@needs_gcc
def test_a_new_entry_starts_with_the_registers_of_its_host_thread() -> None:
    """And leaves with what the enclave left in them: EENTER and EEXIT change nothing."""
    with rig("movq rax, xmm3; pcmpeqd xmm3, xmm3; enclu") as r:
        image = bytearray(r.lp().x.legacy)
        image[160 + 48 : 160 + 64] = struct.pack("<QQ", 0x1234, 0)
        r.lp().x.legacy = bytes(image)
        r.expect_exit()
        assert r.get("rax") == 0x1234
        assert r.lp().x.legacy[160 + 48 : 160 + 64] == b"\xff" * 16


@needs_gcc
def test_an_unmasked_exception_of_x87_is_mf() -> None:
    """At the next instruction that waits. CR0.NE is set."""
    with rig("fldcw [rdi]; fldz; fld1; fdivrp st(1), st; inc rcx; fwait; enclu") as r:
        r.lp().store(r.data, (0x0340).to_bytes(2, "little"))
        r.set(rdi=r.data, rcx=0)
        stop = r.run()
        assert stop.why is Why.FAULT
        assert stop.fault is not None
        assert (stop.fault.vector, r.get("rcx")) == (faults.MF, 1)
