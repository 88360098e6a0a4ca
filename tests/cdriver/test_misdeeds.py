"""C code that goes wrong is a finding with its backtrace, and the next execution is unharmed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from softsgx import Machine
from softsgx.linux import uapi
from softsgx.linux.bug import KernelBug
from softsgx.sim import Cooperative, Execution, Unmodelled
from softsgx.system.loaded_enclave import ioctl
from softsgx.system.loader import load
from tests.cdriver import sources
from tests.cdriver.patches import MISBEHAVING, MISDEEDS, patched_object
from tests.runner.programs import supervised

AT = r"\n  ioctl\.c:\d+ sgx_ioc_enclave_provision"
FOUND = {
    1001: rf"^SIGSEGV at 0x8{AT}\n  ioctl\.c:\d+ sgx_ioctl",
    1002: rf"^never comes to a point{AT}",
    1003: rf"^BUG at ioctl\.c:\d+{AT}",
    1004: r"^SIGSEGV at an address that is not canonical.*\n  list\.h:\d+ sgx_ioc_enclave_prov",
    1005: r"^SIGSEGV at 0x2000100\w+\n  ioctl\.c:\d+ deep",
    1006: r"^k_call_ioctl returns with Mutex\('encl->lock\(enclave 1\)'\) held",
    1007: rf"^encl->lock\(enclave 1\) is taken by a task that holds it\n  shim\.c:\d+ mutex\w+{AT}",
    1009: rf"^BUG at heap:0\n  heap\.c:\d+ kfree{AT}",
    1010: r"^COPY_TO_USER of 8 bytes at 0x1234, which is not its memory",
}
WARNED = {
    1008: "written behind its end: byte 0 of a block of 33",
    1009: "freed twice",
    1011: "&encl->lock is unlocked by another than its owner",
    1012: "params.fd == 1012 (ioctl.c",
}


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object of Linux 6.12 whose PROVISION does what a descriptor asks for."""
    tree = sources.kernel_or_skip("6.12")
    return patched_object(tree, tmp_path_factory.mktemp("misbehaving") / "linux", MISBEHAVING)


def provision(machine: Machine, fd: int) -> Any:
    """PROVISION with a descriptor."""
    host = machine.thread()
    enclave = machine.run(host.open())
    argument = uapi.SgxEnclaveProvision(fd=fd)
    return machine.run(ioctl(host, enclave, uapi.SGX_IOC_ENCLAVE_PROVISION, argument))


@pytest.mark.parametrize("fd", FOUND)
def test_a_misdeed_is_a_finding_with_its_backtrace(fd: int, misbehaving: Path) -> None:
    machine = Machine(driver=misbehaving, epc="1M")
    with pytest.raises(KernelBug) as found:
        provision(machine, fd)
    assert re.search(FOUND[fd], str(found.value)), found.value
    # The machine's driver cannot be used any more, and says why; that of another one can.
    with pytest.raises(KernelBug, match="the driver is unusable since: "):
        machine.run(machine.thread(cpu=1).open())
    assert provision(Machine(driver=misbehaving, epc="1M"), 5) == (
        -22,
        uapi.SgxEnclaveProvision(fd=5),
    )


@pytest.mark.parametrize("fd", WARNED)
def test_a_misdeed_is_warned_of(fd: int, misbehaving: Path) -> None:
    machine = Machine(driver=misbehaving, epc="1M")
    try:
        provision(machine, fd)
    except KernelBug:
        assert fd in FOUND
    (warning,) = machine.kernel.warnings
    assert WARNED[fd] in warning


PROVISION = """
#include <fcntl.h>
#include <sys/ioctl.h>

int main(void)
{
	unsigned long fd = 1001;

	return ioctl(open("/dev/sgx_enclave", O_RDWR), _IOW(0xa4, 3, unsigned long), &fd);
}
"""


def test_a_program_that_meets_it_ends_with_its_backtrace(misbehaving: Path, tmp_path: Path) -> None:
    source = tmp_path / "provision.c"
    source.write_text(PROVISION)
    subprocess.run(["gcc", str(source), "-o", str(tmp_path / "provision")], check=True)
    done = supervised([str(tmp_path / "provision")], "--driver", str(misbehaving))
    assert done.returncode == 125
    said = r"softsgx: run: a bug of the kernel: SIGSEGV at 0x8; ioctl\.c:\d+ sgx_ioc_enclave_prov"
    assert re.match(said, done.stderr), done.stderr


def points(body: Any) -> list[Any]:
    """The points of a body that runs alone, without those of locks that are free."""
    execution, found = Execution(Cooperative()), list[Any]()

    def watched() -> Any:
        me = yield ("start", None, False)
        try:
            point = body.send(None)
            while True:
                found.append(point)
                me = yield point
                point = body.send(me)
        except StopIteration:
            return

    execution.spawn(watched(), "watched", 0)
    execution.run()
    return found


def test_a_look_up_is_a_point_where_no_mutex_is_held(misbehaving: Path) -> None:
    machine = Machine(driver=misbehaving, epc="1M")
    host = machine.thread()
    fd, address = machine.run(host.open()), machine.run(host.alloc(4096))
    machine.run(host.store(address, (1013).to_bytes(8, "little")))
    found = points(host.ioctl(fd, uapi.SGX_IOC_ENCLAVE_PROVISION, address))
    assert [point[1][1] for point in found if point[0] == "xa_load"] == [8]


def test_the_points_of_a_fault(misbehaving: Path) -> None:
    """Each access that races by design is one, and each leaf."""
    machine = Machine(driver=misbehaving, epc="1M")
    host = machine.thread()
    enclave = machine.run(load(host, pages=1))
    machine.settle()
    found = [point[0] for point in points(host.load(enclave.heap, 1))]
    spins = found.count("spin")
    assert [kind for kind in found if kind not in ("lock", "spin")] == [
        *("load", "xa_load", "EAUG", "pte")
    ]
    assert spins == 3  # the node's list, the array, the reclaimer's list
    asked = [point[0] for point in points(host.ioctl(enclave.fd, 0, 0))]
    assert asked == ["bit"]


def test_what_the_headers_do_not_model_is_said(misbehaving: Path) -> None:
    machine = Machine(driver=misbehaving, epc="1M")
    handler = (
        r"^driver: an interprocessor interrupt with a handler of its own\n  shim\.c:\d+ on_each"
    )
    with pytest.raises(Unmodelled, match=handler):
        provision(machine, 1014)


def test_every_misdeed_is_tried() -> None:
    assert set(FOUND) | set(WARNED) | {1013, 1014} == set(MISDEEDS)
