"""What a machine reports as unfinished: pages with PENDING, MODIFIED or PR, and threads inside."""

import pytest

from softsgx import Machine
from softsgx.events import cpu as c
from softsgx.events import kernel as k
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_TCS, R
from softsgx.system import EnclaveFault, load
from softsgx.system.enclave import EnclaveThread
from softsgx.system.explain import unfinished
from softsgx.system.host import HostThread
from softsgx.system.loaded_enclave import Enclave


class Rig:
    """A machine with one enclave, and short names for operations on it."""

    def __init__(self, pages: int = 4) -> None:
        self.machine = Machine(explain=True)
        self.host: HostThread = self.machine.thread()
        self.enclave: Enclave = self.machine.run(load(self.host, pages=pages))
        self.page = self.enclave.data[0]

    def restrict(self, count: int = 1) -> None:
        self.machine.run(self.enclave.restrict(self.host, self.page, count * PAGE_SIZE, R))

    def inside(self, what: str, *args: int) -> None:
        """One operation of enclave code."""

        def program(t: EnclaveThread) -> Steps[None]:
            yield from getattr(t, what)(*args)

        self.machine.run(self.enclave.call(self.host, program))

    def said(self) -> list[str]:
        return [remark.text for remark in self.machine.unfinished()]


def test_an_enclave_that_was_built_and_entered_leaves_nothing() -> None:
    rig = Rig()
    rig.inside("load", rig.page)
    assert rig.said() == []


def test_restricted_pages_are_one_line_until_each_is_accepted() -> None:
    rig = Rig()
    rig.restrict(3)
    (line,) = rig.said()
    offset = rig.page - rig.enclave.base
    assert line.startswith(
        f"3 pages from {rig.page:#x} (base + {offset:#x}) r-- REG PR since EMODPR by ioctl "
        f"RESTRICT_PERMISSIONS(offset={offset:#x}, length=0x3000, permissions=r--) of thread main"
    )
    assert line.endswith(": EACCEPT still due")
    rig.inside("accept_restricted", rig.page + PAGE_SIZE, R)
    assert [text.split(" (")[0] for text in rig.said()] == [
        f"page {rig.page:#x}",
        f"page {rig.page + 2 * PAGE_SIZE:#x}",
    ]
    rig.inside("accept_restricted", rig.page, R)
    rig.inside("accept_restricted", rig.page + 2 * PAGE_SIZE, R)
    assert rig.said() == []


def test_a_right_that_is_given_back_does_not_hide_since_when() -> None:
    """EMODPE leaves PR as it is: the restriction is still to be accepted."""
    rig = Rig()
    rig.restrict()
    (before,) = rig.said()
    rig.inside("emodpe", rig.page, 3)
    (after,) = rig.said()
    assert after == before.replace("r-- REG", "rw- REG")


def test_a_page_that_was_added_by_a_fault() -> None:
    rig = Rig()
    with pytest.raises(EnclaveFault):
        rig.inside("store", rig.enclave.heap, b"x")  # type: ignore[arg-type]
    page, thread = rig.said()
    assert "rw- REG PENDING since EAUG by page fault of thread main, event " in page
    assert page.endswith(": EACCEPT or EACCEPTCOPY still due")
    assert thread.startswith("thread main is still inside on the TCS ")
    assert ": AEX by #PF, event " in thread
    assert thread.endswith(", and no ERESUME")


def test_trimmed_and_changed_pages() -> None:
    rig = Rig()
    rig.machine.run(rig.enclave.trim(rig.host, rig.page, PAGE_SIZE))
    rig.machine.run(rig.enclave.modify_types(rig.host, rig.page + PAGE_SIZE, PAGE_SIZE, PT_TCS))
    trim, tcs = rig.said()
    assert "--- TRIM MODIFIED since EMODT by ioctl MODIFY_TYPES" in trim
    assert trim.endswith(": EACCEPT, then REMOVE_PAGES, still due")
    assert "--- TCS MODIFIED since EMODT by ioctl MODIFY_TYPES" in tcs
    assert tcs.endswith(": EACCEPT still due")
    rig.inside("accept_trim", rig.page)
    rig.inside("accept_tcs", rig.page + PAGE_SIZE)
    assert rig.said() == []


def test_a_tcs_that_is_given_up_was_given_up_on_purpose() -> None:
    """A thread that never came back does not count once the runtime has made its TCS a PT_TRIM."""
    rig = Rig()
    with pytest.raises(EnclaveFault):
        rig.inside("store", rig.enclave.base + rig.enclave.size - 1, b"x")  # type: ignore[arg-type]
    assert any("still inside" in text for text in rig.said())
    rig.machine.run(rig.enclave.trim(rig.host, rig.enclave.tcs[0], PAGE_SIZE))
    assert not any("still inside" in text for text in rig.said())


class Stays:
    """A listener that hears of entries and exits of one thread, on one TCS of enclave 0."""

    def __init__(self) -> None:
        self.machine = Machine(explain=True)
        self.emit = self.machine.processor.log.emit
        self.tcs = self.machine.processor.lps[0].tcs_address
        self.emit(k.ThreadSwitchedIn(0, "7", "6", "mm"))

    def enter(self, cssa: int = 0, *, resumed: bool = False) -> None:
        self.emit(c.Entered(0, 0, self.tcs, cssa, resumed))

    def leave(self, vector: int = -1) -> None:
        self.emit(c.Left(0, 0, self.tcs, vector))

    def said(self) -> list[str]:
        found = [remark.text for remark in self.machine.unfinished()]
        return [text.removeprefix("thread 7 is still inside on the TCS ") for text in found]


def test_a_resumed_thread_is_inside_since_its_entry_and_not_interrupted() -> None:
    stays = Stays()
    stays.enter()
    stays.leave(32)
    assert stays.said() == [
        f"{stays.tcs:#x} since event 2: AEX by interrupt, event 3, and no ERESUME"
    ]
    stays.enter(resumed=True)
    assert stays.said() == [f"{stays.tcs:#x} since event 2"]
    stays.leave()
    assert stays.said() == []


def test_a_handler_on_the_next_frame_leaves_the_first_as_it_is() -> None:
    """EENTER at CSSA 1, EEXIT: the frame below still waits for ERESUME."""
    stays = Stays()
    stays.enter()
    stays.leave(14)
    stays.enter(1)
    assert [text.split(" since ")[0] for text in stays.said()] == [
        f"{stays.tcs:#x}",
        f"{stays.tcs:#x}, CSSA 1,",
    ]
    stays.leave()
    assert stays.said() == [f"{stays.tcs:#x} since event 2: AEX by #PF, event 3, and no ERESUME"]


def test_a_notified_handler_takes_the_frame_back_by_edeccssa() -> None:
    """No thread is inside once such a handler has gone on by itself and left."""
    stays = Stays()
    stays.enter()
    stays.leave(32)
    stays.enter(1, resumed=True)
    stays.emit(c.LeafDone(0, "EDECCSSA", 0, 0, 0, -1, ""))
    assert len(stays.said()) == 1
    stays.leave()
    assert stays.said() == []


def test_what_follows_the_end_of_the_process_is_not_reported() -> None:
    """The kernel takes a thread that it kills out of the enclave by an interrupt."""
    stays = Stays()
    stays.enter()
    stays.emit(k.ProcessEnded("5", "exit 0", 0))
    stays.emit(k.ProcessEnded("6", "SIGKILL", 0))
    stays.leave(32)
    assert stays.said() == [f"{stays.tcs:#x} since event 2; process 6 ended, SIGKILL, event 4"]


def test_an_enclave_that_is_closed_early_left_its_pages_undone() -> None:
    rig = Rig()
    rig.restrict()
    before = rig.said()
    rig.machine.run(rig.host.munmap(rig.enclave.base, rig.enclave.size))
    rig.machine.run(rig.host.close(rig.enclave.fd))
    assert not [secs for secs in rig.machine.processor.secs.values() if not secs.children]
    assert rig.said() == before


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "FOLLOWED_MAX", 2)
    rig = Rig()
    rig.restrict(4)
    assert rig.said()[0].startswith("2 pages from ")
    found = rig.machine._unfinished
    assert found is not None
    assert found.overflowed
    rig.inside("accept_restricted", rig.page, R)
    rig.inside("accept_restricted", rig.page + PAGE_SIZE, R)
    assert rig.said() == []


def test_it_needs_a_machine_that_explains() -> None:
    with pytest.raises(ValueError, match="explain=True"):
        Machine().unfinished()
