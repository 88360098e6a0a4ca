"""Stories that are told on a machine with either driver, and what can be seen of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from softsgx import Machine
from softsgx.cdriver.driver import CDriver
from softsgx.events.cpu import LeafDone, LeafFaulted, Left
from softsgx.linux import uapi
from softsgx.linux.smp import CALL_FUNCTION_VECTOR
from softsgx.linux.syscalls import SGX_PROVISION
from softsgx.mem.pagetable import PTE_PFN_MASK
from softsgx.sim import VirtualTime
from softsgx.sim.events import Event
from softsgx.spec.bits import PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import PT_REG, R, W, X
from softsgx.system.host import SignalRaised
from softsgx.system.loaded_enclave import Enclave, EnclaveFault, ioctl
from softsgx.system.loader import BuildError, load

Seen = list[Any]


class Stage:
    """A machine, a thread, and a list of what was seen, in order."""

    def __init__(self, driver: Path | None, linux: str, **options: Any) -> None:
        self.machine = Machine(driver=driver, linux=linux, **options)
        self.host = self.machine.thread()
        self.threads = [self.host.thread]
        self.seen: Seen = []
        self.leaves: Seen = []
        self.encls: list[Any] = []
        self.machine.processor.log.subscribe(self._leaf)

    def do(self, body: Any) -> Any:
        """Run something and note what it returns or raises."""
        try:
            result = self.machine.run(body)
        except (SignalRaised, EnclaveFault, BuildError) as raised:
            self.seen.append((type(raised).__name__, str(raised)))
            return None
        self.seen.append(repr(result))
        return result

    def _leaf(self, event: Event) -> None:
        """Note each leaf with the page it acts on, and how it ended."""
        if isinstance(event, LeafDone):
            self.leaves.append((event.leaf, event.rcx, event.status))
        elif isinstance(event, LeafFaulted):
            self.leaves.append((event.leaf, event.rcx, event.vector))

    def load(self, **layout: Any) -> Enclave:
        """An enclave."""
        enclave = self.machine.run(load(self.host, **layout))
        assert isinstance(enclave, Enclave)
        self.encls.append(self.host.process.files[enclave.fd].encl)
        return enclave

    def state(self) -> Seen:
        """EPCM, page tables, areas, the pages that are free, warnings."""
        self.machine.settle()
        kernel = self.machine.kernel
        mms = [thread.mm for thread in self.threads]
        return [
            list(kernel.processor.epcm.state),
            list(kernel.processor.epcm.address),
            [[(page, self._pte(pte)) for page, pte in sorted(mm.space.ptes.items())] for mm in mms],
            [mm.maps() for mm in mms],
            kernel.driver.free_pages(kernel)[1],
            self.backing(),
            len(kernel.warnings),
            self.leaves,
        ]

    def backing(self) -> int:
        """How many pages the files behind the enclaves have."""
        driver = self.machine.kernel.driver
        if isinstance(driver, CDriver):
            return sum(map(len, driver.shmem.values()))
        files: list[Any] = [encl.backing for encl in self.encls]
        return sum(len(file.contents) + len(file.pcmds) for file in files)

    def _pte(self, pte: int) -> int:
        """A PTE without the number of its frame, unless that is EPC: any frame of RAM will do."""
        epc = self.machine.processor.epc
        in_epc = epc.index((pte & PTE_PFN_MASK) >> PAGE_SHIFT) >= 0
        return pte if in_epc else pte & ~PTE_PFN_MASK


def build_and_enter(stage: Stage) -> None:
    """Build, enter, write and read."""
    enclave = stage.load(pages=2)

    def program(me: Any) -> Any:
        yield from me.store(enclave.data[0], b"hello")
        return (yield from me.load(enclave.data[0], 5))

    assert stage.do(enclave.call(stage.host, program)) == b"hello"


def grow_restrict_trim_remove(stage: Stage) -> None:
    """EAUG by fault, EACCEPT, restrict, new types, remove; and each of these too early."""
    enclave, host = stage.load(pages=2), stage.host
    page, tcs = enclave.heap, enclave.heap + PAGE_SIZE

    def grow(me: Any) -> Any:
        for address in (page, tcs):
            yield from me.accept_new(address)
        yield from me.store(page, b"new")
        return (yield from me.load(page, 3))

    def restricted(me: Any) -> Any:
        return (yield from me.accept_restricted(page, R))

    def trimmed(me: Any) -> Any:
        return (yield from me.accept_trim(page))

    def tcs_accepted(me: Any) -> Any:
        return (yield from me.accept_tcs(tcs))

    stage.do(enclave.restrict(host, page, PAGE_SIZE, R))  # absent
    stage.do(enclave.call(host, grow))
    stage.do(enclave.restrict(host, page, PAGE_SIZE, W))  # W without R
    stage.do(enclave.restrict(host, page, PAGE_SIZE, R | 0x100))
    stage.do(enclave.restrict(host, page + 1, PAGE_SIZE, R))
    stage.do(enclave.restrict(host, enclave.base, 2 * enclave.size, R))
    stage.do(enclave.restrict(host, page, PAGE_SIZE, R))
    stage.do(enclave.call(host, restricted))
    stage.do(enclave.remove(host, page, PAGE_SIZE))  # not trimmed
    stage.do(enclave.trim(host, page, PAGE_SIZE))
    stage.do(enclave.remove(host, page, PAGE_SIZE))  # not accepted
    stage.do(enclave.call(host, trimmed))
    stage.do(enclave.remove(host, page, PAGE_SIZE))
    stage.do(enclave.remove(host, page, PAGE_SIZE))  # gone
    stage.do(enclave.modify_types(host, tcs, PAGE_SIZE, PT_REG))
    stage.do(enclave.make_tcs(host, tcs))
    stage.do(enclave.call(host, tcs_accepted))
    stage.do(enclave.make_tcs(host, enclave.tcs[0]))
    stage.do(host.load(page, 8))  # EAUG again, from outside: the abort page
    stage.do(host.close(enclave.fd))


def rights_of_areas(stage: Stage) -> None:
    """mmap, mprotect and mremap against the caps of the pages, at the edges of the enclave."""
    enclave, host = stage.load(pages=2), stage.host
    base, data = enclave.base, enclave.data[0]
    shared = uapi.MAP_SHARED | uapi.MAP_FIXED
    stage.do(host.mprotect(data, PAGE_SIZE, R | W | X))
    stage.do(host.mprotect(data, PAGE_SIZE, R))
    stage.do(host.store(data, b"x"))
    stage.do(host.mprotect(data, PAGE_SIZE, R | W))
    stage.do(host.mprotect(enclave.tcs[0], PAGE_SIZE, X))
    stage.do(host.mmap(base + enclave.size, PAGE_SIZE, R, shared, enclave.fd))
    stage.do(host.mmap(base, PAGE_SIZE, R, uapi.MAP_PRIVATE, enclave.fd))
    stage.do(host.mmap(enclave.heap, PAGE_SIZE, R | W | X, shared, enclave.fd))
    stage.do(host.mmap(0, PAGE_SIZE, R, uapi.MAP_SHARED, enclave.fd))
    stage.do(host.mremap(data, PAGE_SIZE, 2 * PAGE_SIZE, uapi.MREMAP_MAYMOVE))
    stage.do(host.munmap(data, PAGE_SIZE))
    stage.do(host.load(data, 1))


def refused_builds(stage: Stage) -> None:
    """Ioctls with what they refuse: sizes, ranges, addresses, SECINFO, the order of calls."""
    host, machine = stage.host, stage.machine
    fd = stage.do(host.open())
    page = machine.run(host.alloc(4 * PAGE_SIZE))
    create, add = uapi.SgxEnclaveCreate(src=page), uapi.SgxEnclaveAddPages
    stage.do(host.ioctl(fd, 0x1234, 0))
    stage.do(ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_CREATE, uapi.SgxEnclaveCreate(src=8)))
    stage.do(host.ioctl(fd, uapi.SGX_IOC_ENCLAVE_CREATE, 8))
    stage.do(ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_CREATE, create))  # SIZE 0
    machine.run(host.store(page, (3 << 12).to_bytes(8, "little")))
    stage.do(ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_CREATE, create))  # no power of 2
    machine.run(host.store(page, (1 << 14).to_bytes(8, "little")))
    stage.do(ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_CREATE, create))  # ECREATE refuses
    stage.do(ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_ADD_PAGES, add(length=PAGE_SIZE)))
    stage.do(ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_INIT, uapi.SgxEnclaveInit(sigstruct=page)))
    enclave = stage.load(pages=1)
    stage.do(ioctl(host, enclave.fd, uapi.SGX_IOC_ENCLAVE_CREATE, create))
    stage.do(ioctl(host, enclave.fd, uapi.SGX_IOC_ENCLAVE_INIT, uapi.SgxEnclaveInit(sigstruct=0)))
    provision = stage.do(host.open(SGX_PROVISION))
    for number in (provision, fd, 99):
        block = uapi.SgxEnclaveProvision(fd=number)
        stage.do(ioctl(host, fd, uapi.SGX_IOC_ENCLAVE_PROVISION, block))
    stage.do(host.close(fd))
    stage.do(host.close(provision))


def reclaim_and_reload(stage: Stage) -> None:
    """Enclaves larger than the EPC: ksgxd and direct reclaim evict, faults reload."""
    host = stage.host
    enclaves = [stage.load(pages=20, hole=40) for _ in range(4)]

    def touch(me: Any, enclave: Enclave) -> Any:
        for number, address in enumerate(enclave.data):
            yield from me.store(address, bytes([number]))
        for address in range(enclave.heap, enclave.heap + 20 * PAGE_SIZE, PAGE_SIZE):
            yield from me.accept_new(address)
            yield from me.store(address, b"h")

    def check(me: Any, enclave: Enclave) -> Any:
        found = b""
        for address in (*enclave.data, enclave.heap):
            found += yield from me.load(address, 1)
        return found

    for enclave in enclaves:
        stage.do(enclave.call(host, partial(touch, enclave=enclave)))
    for enclave in enclaves:
        stage.do(enclave.restrict(host, enclave.heap, 3 * PAGE_SIZE, R))
        stage.do(enclave.call(host, partial(check, enclave=enclave)))
    for enclave in enclaves[::2]:
        stage.do(host.close(enclave.fd))
    for enclave in enclaves[1::2]:
        stage.do(enclave.call(host, partial(check, enclave=enclave)))


def fork_and_exit(stage: Stage) -> None:
    """A child shares the enclave; its pages are zapped in both; the last exit frees them."""
    enclave, host = stage.load(pages=2), stage.host
    child = stage.machine.run(host.fork("child", 1))
    stage.threads.append(child.thread)

    def program(me: Any) -> Any:
        return (yield from me.load(enclave.data[0], 1))

    stage.do(enclave.call(child, program))
    stage.do(enclave.call(host, program))
    stage.do(enclave.restrict(host, enclave.data[0], PAGE_SIZE, R))
    stage.do(host.close(enclave.fd))
    stage.do(child.exit())
    stage.do(enclave.call(host, program))


def evict_two_reload_two(stage: Stage) -> None:
    """Two pages that share a PCMD page go out one by one, and come back: the page is punched."""
    enclave, host = stage.load(pages=2), stage.host
    driver = stage.machine.kernel.driver
    for address in enclave.data:
        stage.do(host.load(address, 1))
        driver.offer(stage.machine.kernel, stage.encls[0], address)
        host.thread.mm.space.test_and_clear_accessed(address)
        stage.do(driver.reclaim(host.thread))
        stage.seen.append(stage.backing())
    for address in enclave.data:
        stage.do(host.load(address, 1))
        stage.seen.append(stage.backing())
    assert stage.seen[-1] == 0


def kicked_out(stage: Stage) -> None:
    """A page is restricted while a thread is inside: it is interrupted, in virtual time."""
    enclave, host = stage.load(pages=2), stage.host
    other = stage.machine.thread(host.process, 1, "other")
    execution = stage.machine.execution(VirtualTime({}, default=100))
    left: Seen = []

    def watch(event: Event) -> None:
        if isinstance(event, Left):
            left.append(event.vector)

    def inside(me: Any) -> Any:
        for _ in range(60):
            yield from me.load(enclave.data[1], 1)

    def later() -> Any:
        for _ in range(30):
            yield ("delay", None, False)
        return (yield from enclave.restrict(host, enclave.data[0], PAGE_SIZE, R))

    stage.machine.processor.log.subscribe(watch)
    execution.spawn(enclave.call(other, inside), "inside", 1)
    restricted = execution.spawn(later(), "host", 0)
    execution.run()
    execution.close()
    stage.seen += [repr(restricted.result), sorted(set(left))]
    assert CALL_FUNCTION_VECTOR in left


def exited(stage: Stage) -> None:
    """An address space that has exited is neither aged nor zapped by the reclaimer."""
    enclave, host = stage.load(pages=3), stage.host
    driver = stage.machine.kernel.driver
    stage.do(host.load(enclave.data[0], 1))
    stage.do(driver.reclaim(host.thread))
    host.thread.mm.exited = True
    stage.do(driver.reclaim(host.thread))
    host.thread.mm.exited = False


def evict_and_exit(stage: Stage) -> None:
    """A page is young and stays, then it goes; when the process exits, nothing is left."""
    enclave, host = stage.load(pages=2), stage.host
    driver = stage.machine.kernel.driver
    stage.do(host.load(enclave.data[0], 1))
    for _ in range(2):
        stage.do(driver.reclaim(host.thread))
    stage.do(host.close(enclave.fd))
    stage.do(host.exit())


def debugger(stage: Stage) -> None:
    """Peek and poke of a debug enclave."""
    enclave, host = stage.load(pages=1), stage.host
    tracer = stage.machine.thread(cpu=1, name="tracer")
    at = enclave.data[0]
    stage.do(tracer.poke(host.process, at + 3, 0x1122334455667788))
    stage.do(tracer.peek(host.process, at + 3))
    stage.do(tracer.mem_read(host.process, at, 16))
    stage.do(tracer.mem_read(host.process, enclave.heap, 16))


STORIES: dict[str, tuple[Callable[[Stage], None], dict[str, Any]]] = {
    story.__name__: (story, options)
    for story, options in (
        (build_and_enter, {}),
        (grow_restrict_trim_remove, {}),
        (rights_of_areas, {}),
        (refused_builds, {}),
        (reclaim_and_reload, {"epc": "512K"}),
        (fork_and_exit, {}),
        (evict_two_reload_two, {}),
        (kicked_out, {}),
        (exited, {}),
        (evict_and_exit, {}),
        (debugger, {}),
    )
}


def tell(
    name: str, driver: Path | None, linux: str, fails: tuple[str, int] | None = None
) -> tuple[Seen, Seen]:
    """Tell a story: what was seen on the way, and the state at the end.

    `fails` is a place where the kernel fails, and at which of its times. The story may break off.
    """
    story, options = STORIES[name]
    stage = Stage(driver, linux, **{"epc": "1M", **options})
    if fails is None:
        story(stage)
        return stage.seen, stage.state()
    place, left = fails

    def inject(site: str) -> bool:
        nonlocal left
        left -= site == place
        return site == place and left < 0 <= left + 1

    stage.machine.kernel.inject = inject
    try:
        story(stage)
    except (BuildError, AssertionError, TypeError) as broken:
        stage.seen.append(str(broken))
    stage.machine.kernel.inject = None
    return [*stage.seen, left < 0], stage.state()
