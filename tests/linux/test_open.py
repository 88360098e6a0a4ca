"""open, close, release of the SGX nodes; how long an enclave lives. Linux 6.12, sgx/driver.c.

An enclave's references: one of the open file, one per address space that ever mapped it. The last
one frees its EPC.
"""

import pytest

from softsgx.linux import syscalls, uapi
from softsgx.linux.errno import EBADF, EINTR, EINVAL, EMFILE, ENODEV, ENOENT, ENOMEM, ENOTTY
from softsgx.linux.process import RLIMIT_NOFILE
from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.uapi import MAP_SHARED, PROT_READ
from softsgx.sim import Steps, WaitFlag
from softsgx.sim.point import RETRY
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import R, W
from softsgx.system import EnclaveThread, Machine, load
from softsgx.system.loader import BuildError, build, default_image, reserve
from tests.linux.world import World, together, unmapped, world

# Nodes


def test_open_makes_an_empty_enclave_and_touches_no_epc() -> None:
    machine = Machine()
    host = machine.thread()
    encl = encl_of(host.process.files[machine.run(host.open())])
    assert (encl.refcount, encl.flags, encl.page_array, encl.va_pages) == (1, 0, {}, [])
    assert encl.mm_list == []
    assert machine.kernel.nr_free == machine.processor.epc.pages


def test_two_opens_are_two_enclaves() -> None:
    machine = Machine()
    host = machine.thread()
    files = [host.process.files[machine.run(host.open())] for _ in range(2)]
    assert encl_of(files[0]) is not encl_of(files[1])


def test_open_fails_with_enomem_only() -> None:
    machine = Machine()
    host = machine.thread()
    machine.kernel.inject = "sgx_open".__eq__
    assert machine.run(host.open()) == -ENOMEM
    assert host.process.files == {}


def test_open_of_another_path() -> None:
    machine = Machine()
    host = machine.thread()
    assert machine.run(host.open("/dev/sgx_vepc")) == -ENOENT


def test_provision_is_nothing_but_open_able() -> None:
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open("/dev/sgx_provision"))
    assert machine.run(host.ioctl(fd, uapi.SGX_IOC_ENCLAVE_CREATE, 0)) == -ENOTTY
    assert machine.run(host.mmap(0, PAGE_SIZE, PROT_READ, MAP_SHARED, fd)) == -ENODEV
    assert machine.run(host.read(fd)) == machine.run(host.write(fd)) == -EINVAL
    assert machine.run(host.close(fd)) == 0


def test_closed_descriptors_are_bad() -> None:
    machine = Machine()
    host = machine.thread()
    fd = machine.run(host.open())
    assert machine.run(host.close(fd)) == 0
    for body in (
        host.close(fd),
        host.read(fd),
        host.write(fd),
        host.ioctl(fd, uapi.SGX_IOC_ENCLAVE_CREATE, 0),
        host.mmap(0, PAGE_SIZE, PROT_READ, MAP_SHARED, fd),
        syscalls.sys_dup(host.thread, fd),
    ):
        assert machine.run(body) == -EBADF


def test_without_a_free_descriptor_nothing_stays_open() -> None:
    w = world()
    process = w.host.process
    file = process.files[w.enclave.fd]
    process.files.update(dict.fromkeys(range(3, RLIMIT_NOFILE), file))
    references = file.count
    assert w.do(syscalls.sys_dup(w.host.thread, w.enclave.fd)) == -EMFILE
    assert file.count == references
    assert w.do(w.host.open()) == -EMFILE


# References


def test_first_mapping_of_an_address_space_takes_a_reference() -> None:
    w = unmapped()
    assert w.encl.refcount == 1
    w.map(w.enclave.data[0], R)
    assert w.encl.refcount == 2
    w.map(w.enclave.heap, R)
    assert w.encl.refcount == 2
    assert [entry.mm for entry in w.encl.mm_list] == [w.mm]


def test_munmap_gives_no_reference_back() -> None:
    w = world()
    free = w.kernel.nr_free
    assert w.do(w.host.munmap(w.enclave.base, w.enclave.size)) == 0
    assert w.encl.refcount == 2
    assert len(w.encl.mm_list) == 1
    assert w.kernel.nr_free == free
    # And the next mapping takes none.
    w.map(w.enclave.data[0], R)
    assert w.encl.refcount == 2


def test_fork_and_exit_of_the_child() -> None:
    w = world()
    encl = w.encl
    child = w.do(w.host.fork("child", 1))
    assert encl.refcount == 3
    # list_add_rcu adds at the head.
    assert [entry.mm for entry in encl.mm_list] == [child.thread.mm, w.mm]
    w.do(child.exit())
    assert encl.refcount == 2
    assert [entry.mm for entry in encl.mm_list] == [w.mm]


def test_exec_forgets_the_old_address_space_and_keeps_descriptors() -> None:
    w = world()
    encl, free = w.encl, w.kernel.nr_free
    w.do(syscalls.sys_execve(w.host.thread))
    assert encl.refcount == 1
    assert encl.mm_list == []
    assert w.kernel.nr_free == free, "the descriptor keeps the enclave"
    assert w.do(w.host.close(w.enclave.fd)) == 0
    assert encl.refcount == 0
    assert w.all_epc_free()


# What frees the enclave


def close(w: World) -> None:
    assert w.do(w.host.close(w.enclave.fd)) == 0


def unmap(w: World) -> None:
    assert w.do(w.host.munmap(w.enclave.base, w.enclave.size)) == 0


def exit_(w: World) -> None:
    w.do(w.host.exit())


def exec_(w: World) -> None:
    assert w.do(syscalls.sys_execve(w.host.thread)) == 0


ENDS = {
    "munmap, close": (unmap, close),
    "close, munmap": (close, unmap),
    "exit": (exit_,),
    "munmap, exit": (unmap, exit_),
    "close, exit": (close, exit_),
    "exec, close": (exec_, close),
    "exec, exit": (exec_, exit_),
    "close, exec": (close, exec_),
}


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_enclave_ends_with_the_last_of_its_users(end: str) -> None:
    w = world(pages=3)
    encl, free = w.encl, w.kernel.nr_free
    *before, last = ENDS[end]
    for step in before:
        step(w)
        assert encl.refcount > 0
        assert w.kernel.nr_free == free
    last(w)
    assert encl.refcount == 0
    assert w.all_epc_free()


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_enclave_that_was_partly_evicted_leaves_nothing(end: str) -> None:
    """300 pages in 256 pages of EPC: some are in the backing store at the release."""
    w = world(pages=300, hole=4)
    encl = w.encl
    frames = len(w.machine.processor.memory.pages)
    assert encl.secs_child_cnt < 300
    for step in ENDS[end]:
        step(w)
    assert w.all_epc_free()
    assert len(w.machine.processor.memory.pages) < frames
    assert encl.backing.contents == encl.backing.pcmds == {}


@pytest.mark.parametrize("last", ["parent", "child"])
def test_enclave_shared_by_fork_ends_with_the_last_process(last: str) -> None:
    w = world()
    encl, free = w.encl, w.kernel.nr_free
    child = w.do(w.host.fork("child", 1))
    hosts = [child, w.host] if last == "parent" else [w.host, child]
    w.do(hosts[0].exit())
    assert w.kernel.nr_free == free
    w.do(hosts[1].exit())
    assert encl.refcount == 0
    assert w.all_epc_free()


def test_enclave_that_only_a_child_maps() -> None:
    """The child has closed its descriptor and still runs; the parent has exited."""
    w = world()
    encl = w.encl
    child = w.do(w.host.fork("child", 1))
    assert w.do(child.close(w.enclave.fd)) == 0
    w.do(w.host.exit())
    assert encl.refcount == 2
    assert w.do(child.munmap(w.enclave.base, w.enclave.size)) == 0
    assert encl.refcount == 0
    assert w.all_epc_free()


def test_dup_is_the_same_enclave() -> None:
    w = world()
    second = w.do(syscalls.sys_dup(w.host.thread, w.enclave.fd))
    encl = w.encl
    assert encl_of(w.host.process.files[second]) is encl
    unmap(w)
    close(w)
    assert encl.refcount == 2
    assert w.do(w.host.close(second)) == 0
    assert encl.refcount == 0
    assert w.all_epc_free()


def test_part_of_a_mapping_holds_the_file() -> None:
    w = world(pages=3)
    free = w.kernel.nr_free
    middle = w.enclave.data[1]
    close(w)
    assert w.do(w.host.munmap(w.enclave.base, middle - w.enclave.base)) == 0
    above = middle + PAGE_SIZE
    assert w.do(w.host.munmap(above, w.enclave.base + w.enclave.size - above)) == 0
    assert w.areas(w.enclave.base, w.enclave.size) == [(1, R | W)]
    assert w.kernel.nr_free == free
    assert w.do(w.host.munmap(middle, PAGE_SIZE)) == 0
    assert w.all_epc_free()


def test_enclave_that_was_only_created_is_freed() -> None:
    machine = Machine(epc="1M")
    host = machine.thread()
    machine.kernel.inject = lambda site: site == "init_page"
    fd, image = machine.run(host.open()), default_image()
    base = machine.run(reserve(host, image.size))
    with pytest.raises(BuildError, match="SGX_IOC_ENCLAVE_INIT: -ENOMEM"):
        machine.run(build(host, fd, base, image))
    assert machine.kernel.nr_free < machine.processor.epc.pages
    machine.run(host.exit())
    assert machine.kernel.nr_free == machine.processor.epc.pages
    assert machine.kernel.warnings == []


# Releasing waits, and runs where it should


def test_last_reference_is_dropped_by_the_process_that_exits() -> None:
    """EREMOVE is executed on the processor of the exiting child, not of the parent that forked it.

    The child, which has unlinked itself, waits for a reader. Meanwhile the parent releases the file
    and enters another enclave: there an ENCLS would be #UD, and the first enclave would leak.
    """
    w = world()
    encl = w.encl
    child = w.do(w.host.fork("child", 1))
    assert w.do(child.munmap(w.enclave.base, w.enclave.size)) == 0
    assert w.do(child.close(w.enclave.fd)) == 0
    gone = WaitFlag("child is gone")

    def inside(t: EnclaveThread) -> Steps[None]:
        yield from t.load(t.args)
        yield from gone.wait()

    def reader() -> Steps[None]:
        with (yield from encl.srcu.read_lock()):
            while encl.mm_list:
                yield (RETRY, "reader", False)

    def parent() -> Steps[None]:
        while len(encl.mm_list) > 1:
            yield (RETRY, "parent", False)
        yield from w.host.munmap(w.enclave.base, w.enclave.size)
        yield from w.host.close(w.enclave.fd)
        assert encl.refcount == 1
        other = yield from load(w.host)
        yield from other.call(w.host, inside, args=other.data[0])
        yield from w.host.exit()

    def exiting() -> Steps[None]:
        yield from child.exit()
        assert w.machine.processor.lps[0].enclave_mode
        gone.set()

    together(w, (2, reader()), (0, parent()), (1, exiting()))
    assert encl.refcount == 0
    assert w.all_epc_free()


@pytest.mark.parametrize("how", ["exit", "munmap and close"])
def test_release_waits_for_readers_of_the_list_of_address_spaces(how: str) -> None:
    w = world()
    encl, order = w.encl, []

    def reader() -> Steps[None]:
        with (yield from encl.srcu.read_lock()):
            for _ in range(50):
                yield (RETRY, "reader", False)
            order.append("reader ends")

    def ending() -> Steps[None]:
        if how == "exit":
            yield from w.host.exit()
        else:
            yield from w.host.munmap(w.enclave.base, w.enclave.size)
            yield from w.host.close(w.enclave.fd)
        order.append("enclave gone")

    together(w, (1, reader()), (0, ending()))
    assert order == ["reader ends", "enclave gone"]
    assert encl.refcount == 0


# The leak that the kernel has


def test_interrupted_registration_leaks_the_enclave() -> None:
    """mmap with a signal pending: the reference taken for the address space is never dropped."""
    w = unmapped()
    encl, free = w.encl, w.kernel.nr_free
    w.host.thread.pending_signals = 1
    assert w.map(w.enclave.data[0], R) == -EINTR
    assert (encl.refcount, encl.mm_list) == (2, [])
    w.do(w.host.exit())
    assert encl.refcount == 1
    assert w.kernel.nr_free == free


def test_failed_allocation_at_registration_leaks_nothing() -> None:
    w = unmapped()
    encl = w.encl
    w.kernel.inject = "sgx_encl_mm_add".__eq__
    assert w.map(w.enclave.data[0], R) == -ENOMEM
    assert encl.refcount == 1
    w.do(w.host.exit())
    assert w.all_epc_free()
