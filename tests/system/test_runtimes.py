"""The trusted memory manager with the three published orders: an honest host, then liars."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from softsgx.linux.errno import EAGAIN, EBUSY, EFAULT, EINTR, EPERM
from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.sgx.encl import sgx_encl_free_epc_page, sgx_zap_enclave_ptes
from softsgx.linux.sgx.encls import encls
from softsgx.linux.sgx.main import sgx_reclaim_pages, sgx_unmark_page_reclaimable
from softsgx.sim import RETRY, Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PENDING, REG, RWX, TCS, VALID, R, W, X
from softsgx.spec.paging import SECINFO
from softsgx.system import EnclaveFault, EnclaveThread, HostThread
from softsgx.system.enclave import EnclaveAbort
from softsgx.system.runtimes import ORDERS, TrustedManager
from softsgx.system.runtimes.untrusted import RETRIES_MAX, Answer, Untrusted, retry
from softsgx.system.scenarios import liar as lying
from tests.linux.held import Held, Until, at_lock, at_retry
from tests.linux.world import World, world

each_order = pytest.mark.parametrize("order", sorted(ORDERS))


def managed(
    order: str = "gramine", host: type[Untrusted] = Untrusted, **layout: int
) -> tuple[World, TrustedManager]:
    """An enclave whose first eight heap pages its manager has reserved."""
    w = world(None, **layout)
    m = TrustedManager(host(w.enclave), ORDERS[order])
    m.reserve(w.enclave.heap, 8 * PAGE_SIZE)
    return w, m


def committed(
    order: str = "gramine", host: type[Untrusted] = Untrusted, pages: int = 1
) -> tuple[World, TrustedManager, int]:
    """The same with pages committed; the address of the first."""
    w, m = managed(order, host)
    at = w.enclave.heap
    w.call(lambda t: m.commit(t, at, pages * PAGE_SIZE))
    return w, m, at


def word(w: World, address: int) -> int:
    """The EPCM word of a page of the enclave."""
    entry = w.encl.page(address)
    assert entry is not None
    assert entry.epc_page is not None
    return w.machine.processor.epcm.state[entry.epc_page.number]


# Commit


def test_commit_makes_pages_readable_and_writable() -> None:
    w, m, at = committed(pages=2)
    assert [word(w, at + n * PAGE_SIZE) for n in (0, 1)] == [VALID | REG | R | W] * 2
    assert m.pages[at + PAGE_SIZE] == ("committed", R | W)
    assert m.pages[at + 2 * PAGE_SIZE] == ("reserved", 0)


def test_a_page_is_committed_only_once() -> None:
    w, m, at = committed()
    with pytest.raises(ValueError, match="is committed, not reserved or on demand"):
        w.call(lambda t: m.commit(t, at, PAGE_SIZE))


def test_what_was_not_reserved_is_refused() -> None:
    w, m = managed()
    with pytest.raises(ValueError, match="is not reserved"):
        w.call(lambda t: m.commit(t, w.enclave.heap + 8 * PAGE_SIZE, PAGE_SIZE))


def touch(
    w: World, m: TrustedManager, address: int
) -> Steps[tuple[list[tuple[int, int, int]], list[bool], Any]]:
    """The host loop of a runtime: on a #PF enter the handler, then ERESUME; until EEXIT.

    Returns the exceptions, the handler's answers and the result of the program.
    """
    seen: list[tuple[int, int, int]] = []
    answers: list[bool] = []

    def program(t: EnclaveThread) -> Steps[Any]:
        if t.cssa:
            assert t.cssa == 1
            return (yield from m.handle_fault(t, seen[-1][2]))
        yield from t.store(address, b"first")
        return (yield from t.load(address, 5))

    entry, run, leaf = w.enclave.entry(program), w.enclave.run(), leaves.EENTER
    while True:
        yield from w.host.enter(entry, run, leaf)
        if run.function == leaves.EEXIT:
            return seen, answers, entry.result
        seen.append((run.exception_vector, run.exception_error_code, run.exception_addr))
        yield from w.host.enter(entry, run)
        assert run.function == leaves.EEXIT
        answers.append(entry.result)
        if entry.result is not True:
            entry.abandon(run.tcs)
            return seen, answers, None
        leaf = leaves.ERESUME


def test_the_first_touch_commits_through_the_handler_at_cssa_1() -> None:
    w, m = managed()
    at = w.enclave.heap
    m.commit_on_demand(at, PAGE_SIZE)
    seen, answers, result = w.do(touch(w, m, at + 8))
    # EAUG fills the hole unseen; the page is PENDING, which no kernel can repair.
    # An AEX clears the low bits of the address.
    assert seen == [(14, 0x8007, at)]
    assert answers == [True]
    assert result == b"first"
    assert m.pages[at] == ("committed", R | W)


def test_the_handler_declines_a_fault_that_is_not_its_own() -> None:
    w, m = managed()
    at = w.enclave.heap
    seen, answers, _result = w.do(touch(w, m, at))
    assert (seen, answers) == ([(14, 0x8007, at)], [False])
    assert m.pages[at] == ("reserved", 0)


def test_the_handler_retries_a_page_that_was_committed_meanwhile() -> None:
    w, m, at = committed()
    assert w.call(lambda t: m.handle_fault(t, at)) is True


def test_a_copy_has_its_final_rights_at_once() -> None:
    w, m = managed()
    at, source = w.enclave.heap, w.enclave.data[0]

    def program(t: EnclaveThread) -> Steps[bytes]:
        yield from t.store(source, b"\xc3code")
        yield from m.commit_copy(t, at, source, R | X)
        yield from t.fetch(at)
        return (yield from t.load(at, 5))

    assert w.call(program) == b"\xc3code"
    assert word(w, at) == VALID | REG | R | X
    assert m.pages[at] == ("committed", R | X)


# Protect

RIGHTS = (0, R, R | W, R | X, RWX)


@each_order
@pytest.mark.parametrize("new", RIGHTS)
@pytest.mark.parametrize("old", RIGHTS)
def test_protect_in_every_direction(order: str, old: int, new: int) -> None:
    w, m, at = committed(order, pages=2)
    floor = R if order == "enarx" else 0

    def program(t: EnclaveThread) -> Steps[None]:
        for rights in (old, new):
            yield from m.protect(t, at, 2 * PAGE_SIZE, rights)

    w.call(program)
    for page in (at, at + PAGE_SIZE):
        assert word(w, page) == VALID | REG | new | floor
        assert m.pages[page] == ("committed", new | floor)
    assert w.kernel.warnings == []


@each_order
def test_pages_with_different_rights_are_protected_in_one_call(order: str) -> None:
    w, m, at = committed(order, pages=3)

    def program(t: EnclaveThread) -> Steps[None]:
        yield from m.protect(t, at + PAGE_SIZE, PAGE_SIZE, RWX)
        yield from m.protect(t, at, 3 * PAGE_SIZE, R)

    w.call(program)
    assert [word(w, at + n * PAGE_SIZE) for n in range(3)] == [VALID | REG | R] * 3


@each_order
def test_a_write_after_protect_to_read_faults(order: str) -> None:
    w, m, at = committed(order)
    w.call(lambda t: m.protect(t, at, PAGE_SIZE, R))
    vector, code, address = w.fault(lambda t: t.store(at, b"x"))
    assert (vector, address) == (14, at)
    assert code == 0x7  # the area is read-only as well, so it refuses before the EPCM does


# Trim, TCS


def test_uncommit_frees_the_page_and_it_can_be_committed_again() -> None:
    w, m, at = committed()
    before = w.kernel.nr_free

    def old(t: EnclaveThread) -> Steps[None]:
        yield from t.store(at, b"secret")
        yield from m.uncommit(t, at, PAGE_SIZE)

    def again(t: EnclaveThread) -> Steps[bytes]:
        yield from m.commit(t, at, PAGE_SIZE)
        return (yield from t.load(at, 6))

    w.call(old)
    assert w.kernel.nr_free == before + 1
    assert w.encl.page(at) is None
    assert m.pages[at] == ("reserved", 0)
    assert w.call(again) == bytes(6)
    assert word(w, at) == VALID | REG | R | W


@each_order
@pytest.mark.parametrize("rights", RIGHTS)
def test_pages_of_any_rights_can_be_uncommitted_and_come_back(order: str, rights: int) -> None:
    w, m, at = committed(order)

    def program(t: EnclaveThread) -> Steps[bytes]:
        yield from m.protect(t, at, PAGE_SIZE, rights)
        yield from m.uncommit(t, at, PAGE_SIZE)
        yield from m.commit(t, at, PAGE_SIZE)
        yield from t.store(at, b"new")
        return (yield from t.load(at, 3))

    assert w.call(program) == b"new"
    assert word(w, at) == VALID | REG | R | W


def test_a_new_tcs_can_be_entered() -> None:
    w, m, at = committed(pages=2)
    fields = {"OSSA": at + PAGE_SIZE - w.enclave.base, "NSSA": 1, "OENTRY": 0}
    w.call(lambda t: m.new_tcs(t, at, fields))
    assert word(w, at) == VALID | TCS
    assert m.pages[at] == ("tcs", 0)
    w.enclave.tcs.append(at)

    def program(t: EnclaveThread) -> Steps[int]:
        yield from t.store(w.enclave.data[0], b"second")
        return t.tcs

    assert w.do(w.enclave.call(w.host, program, thread=1)) == at
    w.call(lambda t: m.uncommit(t, at, PAGE_SIZE))
    assert w.encl.page(at) is None


# Repair


@each_order
def test_a_page_that_another_thread_left_pending_is_repaired(order: str) -> None:
    w, m = managed(order, threads=2)
    at = w.enclave.heap
    m.commit_on_demand(at, 3 * PAGE_SIZE)
    with pytest.raises(EnclaveFault):  # touched by the other thread and left PENDING
        w.do(w.enclave.call(w.host, lambda t: t.load(at + PAGE_SIZE), thread=1))
    assert word(w, at + PAGE_SIZE) == VALID | REG | PENDING | R | W
    # The first and the third do not exist: they are accepted as well.
    w.call(lambda t: m.protect(t, at, 3 * PAGE_SIZE, R))
    for page in range(at, at + 3 * PAGE_SIZE, PAGE_SIZE):
        assert word(w, page) == VALID | REG | R
        assert m.pages[page] == ("committed", R)


# Retries


class Block:
    """What an ioctl leaves in its argument block."""

    def __init__(self, count: int, result: int) -> None:
        self.count = count
        self.result = result


def retried(
    script: Sequence[tuple[int, int, int]], tries_max: int = RETRIES_MAX
) -> tuple[Answer, list[tuple[int, int]]]:
    """`retry` over four pages from 0x10000; each call answers the next (errno, pages, result).

    The answer, and (first page, pages) of each call.
    """
    w = world()
    asked: list[tuple[int, int]] = []

    def call(host: HostThread, address: int, length: int, what: int) -> Steps[tuple[int, Any]]:
        assert what == R
        asked.append(((address - 0x10000) // PAGE_SIZE, length // PAGE_SIZE))
        errno, pages, result = script[min(len(asked), len(script)) - 1]
        return errno, Block(pages * PAGE_SIZE, result)
        yield

    return w.do(retry(w.host, call, 0x10000, 4 * PAGE_SIZE, R, tries_max)), asked


@pytest.mark.parametrize("errno", [EBUSY, EAGAIN, EINTR])
def test_an_ioctl_is_retried_after_the_pages_that_are_done(errno: int) -> None:
    answer, asked = retried([(-errno, 0, 0), (-errno, 1, 0), (-errno, 2, 0), (0, 1, 0)])
    assert answer == (0, 0, 4 * PAGE_SIZE)
    assert asked == [(0, 4), (0, 4), (1, 3), (3, 1)]


def test_an_ioctl_that_has_done_something_waits_for_nobody() -> None:
    """At a RETRY point explore lets another task go first: what goes on by itself is none."""
    script = [(-EAGAIN, 1), (-EBUSY, 0), (0, 1), (0, 2)]

    def call(host: HostThread, address: int, length: int, what: int) -> Steps[tuple[int, Any]]:
        errno, pages = script.pop(0)
        return errno, Block(pages * PAGE_SIZE, 0)
        yield

    points = list(retry(world().host, call, 0x10000, 4 * PAGE_SIZE, R))
    assert [kind for kind, _, _ in points] == ["again", RETRY, "again"]


def test_a_short_success_is_continued() -> None:
    answer, asked = retried([(0, 3, 0), (0, 1, 0)])
    assert answer == (0, 0, 4 * PAGE_SIZE)
    assert asked == [(0, 4), (3, 1)]


def test_any_other_error_is_final_and_says_how_far_it_got() -> None:
    answer, asked = retried([(-EAGAIN, 1, 0), (-EFAULT, 1, 20)])
    assert answer == (-EFAULT, 20, 2 * PAGE_SIZE)
    assert asked == [(0, 4), (1, 3)]


def test_retries_end() -> None:
    answer, asked = retried([(-EBUSY, 0, 0)])
    assert answer == (-EAGAIN, 0, 0)
    assert len(asked) == RETRIES_MAX


def test_enarx_tries_once_and_does_not_look_at_the_code() -> None:
    answer, asked = retried([(-EAGAIN, 1, 0)], 1)
    assert (answer, len(asked)) == ((-EAGAIN, 0, PAGE_SIZE), 1)
    assert retried([(-EFAULT, 0, 20)], 1)[0] == (-EFAULT, 0, 0)
    assert retried([(0, 4, 0)], 1)[0] == (0, 0, 4 * PAGE_SIZE)
    assert Untrusted(world().enclave, patient=False).tries_max == 1


def raced(other: Callable[[World, int], Steps[Any]], until: Until) -> list[int]:
    """protect() in one thread while `other` is held at `until`; the errnos of the ioctls."""
    w, m, at = committed("intel-emm")
    w.machine.settle()
    errnos: list[int] = []
    honest = w.enclave.restrict

    def restrict(host: HostThread, address: int, length: int, rights: int) -> Steps[Any]:
        errno, block = yield from honest(host, address, length, rights)
        errnos.append(errno)
        return errno, block

    w.enclave.restrict = restrict  # type: ignore[method-assign]
    execution = w.machine.execution(Held(("other", until), ("main", at_retry)))
    execution.spawn(other(w, at), "other", 1)
    protect = w.enclave.call(w.host, lambda t: m.protect(t, at, PAGE_SIZE, R))
    execution.spawn(protect, "main", 0)
    execution.run()
    execution.close()
    assert word(w, at) == VALID | REG | R
    assert w.kernel.warnings == []
    return errnos


def test_a_second_ioctl_of_the_enclave_is_waited_for() -> None:
    def other(w: World, _at: int) -> Steps[Any]:
        host = w.machine.thread(w.host.process, 1, "second")
        return w.enclave.restrict(host, w.enclave.data[0], PAGE_SIZE, R | W)

    assert raced(other, at_lock("encl->lock")) == [-EBUSY, 0, 0]


def test_a_page_in_the_hands_of_the_reclaimer_is_waited_for() -> None:
    def other(w: World, at: int) -> Steps[Any]:
        """Reclaim this page alone, so that the other thread only meets it in the ioctl."""
        w.mm.space.test_and_clear_accessed(at)
        page, listed = w.encl.page(at), w.kernel.active_page_list
        assert page is not None
        assert page.epc_page is not None
        others = [other for other in listed if other is not page.epc_page]
        listed.clear()
        listed[page.epc_page] = None
        yield from sgx_reclaim_pages(w.machine.thread(w.host.process, 1, "reclaim").thread)
        listed.update(dict.fromkeys(others))

    assert raced(other, at_lock("encl->lock", 2)) == [-EAGAIN, 0]


# Lies


class SaysDone(Untrusted):
    """Claims success and does nothing."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        return Answer(0, 0, length)
        yield

    def modify_types(
        self, host: HostThread, address: int, length: int, page_type: int
    ) -> Steps[Answer]:
        return Answer(0, 0, length)
        yield


class CountsTooMuch(Untrusted):
    """Does it, and claims one page more."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        answer = yield from super().restrict(host, address, length, rights)
        return answer._replace(done=length + PAGE_SIZE)


class CountsBackwards(Untrusted):
    """Claims that a negative number of pages is done."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        return Answer(-EAGAIN, 0, -PAGE_SIZE)
        yield


class CountsTooLittleAndStops(Untrusted):
    """Restricts all but the last page and claims success."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        return (yield from super().restrict(host, address, length - PAGE_SIZE, rights))


class DoesNotTrack(Untrusted):
    """A kernel that executes EMODPR without ETRACK and without interrupts."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        encl = encl_of(host.process.files[self.enclave.fd])
        for at in range(address, address + length, PAGE_SIZE):
            entry, block = encl.page(at), host.kernel.get_operands()
            assert entry is not None
            assert entry.epc_page is not None
            host.kernel.processor.memory.write(block.physical, SECINFO(FLAGS=rights).pack())
            to = entry.epc_page.address
            assert (yield from encls(host.thread, leaves.EMODPR, block.address, to)) == 0
        return Answer(0, 0, length)


class RestrictsMore(Untrusted):
    """Removes all rights, whatever was asked for."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        return (yield from super().restrict(host, address, length, 0))


class RestrictsLess(Untrusted):
    """Removes no right."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        return (yield from super().restrict(host, address, length, RWX))


class SwapsFrames(Untrusted):
    """A kernel that removes a page during the call and lets EAUG add a fresh one."""

    def restrict(self, host: HostThread, address: int, length: int, rights: int) -> Steps[Answer]:
        encl = encl_of(host.process.files[self.enclave.fd])
        entry = encl.page_array.pop(address // PAGE_SIZE)
        assert entry.epc_page is not None
        assert not sgx_unmark_page_reclaimable(host.kernel, entry.epc_page)
        yield from sgx_encl_free_epc_page(host.thread, entry.epc_page)
        encl.secs_child_cnt -= 1
        yield from sgx_zap_enclave_ptes(host.thread, encl, address)
        entry_run = self.enclave.entry(lambda t: t.load(address)), self.enclave.run(1)
        yield from host.enter(*entry_run)
        entry_run[0].abandon(entry_run[1].tcs)
        return (yield from super().restrict(host, address, length, rights))


LIARS = [
    (SaysDone, "EACCEPT at .*SGX_PAGE_ATTRIBUTES_MISMATCH"),
    (CountsTooMuch, "count 12288 of 8192"),
    (CountsBackwards, "count -4096 of 8192"),
    (CountsTooLittleAndStops, "EACCEPT at .*SGX_PAGE_ATTRIBUTES_MISMATCH"),
    (DoesNotTrack, "EACCEPT at .*SGX_NOT_TRACKED"),
    (RestrictsMore, "EACCEPT at .*SGX_PAGE_ATTRIBUTES_MISMATCH"),
    (RestrictsLess, "EACCEPT at .*SGX_PAGE_ATTRIBUTES_MISMATCH"),
    (SwapsFrames, r"RESTRICT_PERMISSIONS\(.*: -EFAULT, SGX_PAGE_NOT_MODIFIABLE"),
]


def refuses_everything(w: World, m: TrustedManager, at: int) -> None:
    """The manager has given up; the thread left by EEXIT and can be entered again."""
    assert m.aborted
    assert not any(lp.enclave_mode for lp in w.machine.processor.lps)
    assert w.call(lambda t: t.load(w.enclave.data[0], 1)) == b"\0"
    before = dict(m.pages)
    fields = {"OSSA": 0, "NSSA": 1, "OENTRY": 0}
    operations: list[Callable[[EnclaveThread], Steps[Any]]] = [
        lambda t: m.commit(t, at + 2 * PAGE_SIZE, PAGE_SIZE),
        lambda t: m.commit_copy(t, at + 2 * PAGE_SIZE, w.enclave.data[0], R),
        lambda t: m.handle_fault(t, at),
        lambda t: m.protect(t, at, PAGE_SIZE, R),
        lambda t: m.uncommit(t, at, PAGE_SIZE),
        lambda t: m.new_tcs(t, at, fields),
    ]
    for operation in operations:
        with pytest.raises(EnclaveAbort, match=re.escape(m.aborted)):
            w.call(operation)
    assert m.pages == before


@each_order
@pytest.mark.parametrize(("liar", "why"), LIARS)
def test_a_lie_about_a_restriction_ends_in_an_abort(
    order: str, liar: type[Untrusted], why: str
) -> None:
    w, m = managed(order, liar, threads=2)
    at = w.enclave.heap
    w.call(lambda t: m.commit(t, at, 2 * PAGE_SIZE))
    with pytest.raises(EnclaveAbort, match=why):
        w.call(lambda t: m.protect(t, at, 2 * PAGE_SIZE, R))
    refuses_everything(w, m, at)


def test_a_page_is_never_accepted_twice() -> None:
    w, m = managed("gramine", SwapsFrames, threads=2)
    at = w.enclave.heap
    w.call(lambda t: m.commit(t, at, PAGE_SIZE))
    with pytest.raises(EnclaveAbort):
        w.call(lambda t: m.protect(t, at, PAGE_SIZE, R))
    assert word(w, at) == VALID | REG | PENDING | R | W
    refuses_everything(w, m, at)
    assert word(w, at) == VALID | REG | PENDING | R | W


def test_a_trim_that_did_not_happen_ends_in_an_abort() -> None:
    w, m, at = committed("gramine", SaysDone)
    with pytest.raises(EnclaveAbort, match=r"EACCEPT of TRIM at .*SGX_PAGE_ATTRIBUTES_MISMATCH"):
        w.call(lambda t: m.uncommit(t, at, PAGE_SIZE))
    refuses_everything(w, m, at)


class DoesNotRemove(Untrusted):
    """Does not remove pages; `errno` is its answer."""

    errno = 0

    def remove(self, host: HostThread, address: int, length: int) -> Steps[Answer]:
        return Answer(self.errno, 0, length)
        yield


class RefusesToRemove(DoesNotRemove):
    """Admits that it did not remove them."""

    errno = -EPERM


def test_a_page_said_to_be_removed_is_not_accepted_again() -> None:
    w, m, at = committed("gramine", DoesNotRemove)
    w.call(lambda t: m.uncommit(t, at, PAGE_SIZE))
    with pytest.raises(EnclaveAbort, match="EACCEPT of a new page"):
        w.call(lambda t: m.commit(t, at, PAGE_SIZE))
    refuses_everything(w, m, at)


def test_a_removal_that_is_refused_ends_in_an_abort() -> None:
    w, m, at = committed("gramine", RefusesToRemove)
    with pytest.raises(EnclaveAbort, match=r"REMOVE_PAGES at .*: -EPERM"):
        w.call(lambda t: m.uncommit(t, at, PAGE_SIZE))
    refuses_everything(w, m, at)


def test_a_liar_knows_each_lie_of_its_menus_and_no_other() -> None:
    """Code for a lie that is on no menu never runs; a lie without code is the truth."""
    known = {node.name: node for node in ast.walk(ast.parse(inspect.getsource(lying)))
             if isinstance(node, ast.FunctionDef)}  # fmt: skip
    shared = _compared_with(known["_counted"])
    served = set()
    for function in known.values():
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "self._lie":
                name = ast.literal_eval(call.args[0])
                truth, *lies = lying.MENUS[name]
                assert truth == "the truth"
                told = _compared_with(function)
                assert told <= set(lies)
                of_counts = shared if "_counted(" in ast.unparse(function) else set[str]()
                assert set(lies) - told <= of_counts
                served.add(name)
    assert served == set(lying.MENUS)


def _compared_with(function: ast.FunctionDef) -> set[str]:
    """The texts that a function compares something with."""
    return {
        part.value
        for node in ast.walk(function)
        if isinstance(node, ast.Compare)
        for part in node.comparators
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }
