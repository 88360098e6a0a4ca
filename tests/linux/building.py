"""An enclave under construction: the ioctls of a loader, one by one, with any argument."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from softsgx.cpu.signature import development_key
from softsgx.image.sigstruct import sign
from softsgx.linux import uapi
from softsgx.linux.sgx.driver import encl_of
from softsgx.linux.sgx.encl import SgxEncl
from softsgx.sim import Steps
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.paging import SECINFO
from softsgx.spec.sigstruct import SIGSTRUCT
from softsgx.spec.structure import Structure
from softsgx.system import Machine
from softsgx.system.loaded_enclave import ioctl
from softsgx.system.loader import default_image, reserve

BAD = 8  # nothing is mapped there


class Building:
    """A descriptor of /dev/sgx_enclave, an aligned range, and an image to be built from it."""

    def __init__(self, machine: Machine | None = None, **image: Any) -> None:
        self.machine = machine or Machine(cpus=2, epc="1M")
        self.host = self.machine.thread()
        self.image = replace(default_image(hole=2), **image)
        self.fd: int = self.do(self.host.open())
        self.base: int = self.do(reserve(self.host, self.image.size))

    def do(self, body: Steps[Any]) -> Any:
        """Run one body to its end."""
        return self.machine.run(body)

    @property
    def encl(self) -> SgxEncl:
        """The kernel's object."""
        return encl_of(self.host.process.files[self.fd])

    def memory(self, data: bytes) -> int:
        """Anonymous memory that holds `data`."""
        address: int = self.do(self.host.alloc(len(data)))
        for at in range(0, len(data), PAGE_SIZE):
            self.do(self.host.store(address + at, data[at : at + PAGE_SIZE]))
        return address

    def ioctl(self, cmd: int, argument: Structure) -> tuple[int, Any]:
        """The result, and the argument block as the kernel left it."""
        result: tuple[int, Any] = self.do(ioctl(self.host, self.fd, cmd, argument))
        return result

    def at(self, cmd: int, address: int) -> int:
        """An ioctl with the bare address of its argument."""
        ret: int = self.do(self.host.ioctl(self.fd, cmd, address))
        return ret

    def create(self, **secs: int) -> int:
        """CREATE with these fields of the SECS changed."""
        page = self.image.secs(self.base)
        for name, value in secs.items():
            setattr(page, name, value)
        create = uapi.SgxEnclaveCreate(src=self.memory(page.pack()))
        return self.ioctl(uapi.SGX_IOC_ENCLAVE_CREATE, create)[0]

    def add(
        self, offset: int, pages: int = 1, secinfo: bytes | int = 0x203, **fields: int
    ) -> tuple[int, int]:
        """ADD_PAGES of zeroes; `secinfo` is its flags or its bytes. The result and `count`."""
        if isinstance(secinfo, int):
            secinfo = SECINFO(FLAGS=secinfo).pack()
        arguments = {"length": pages * PAGE_SIZE} | fields
        if "src" not in arguments:
            arguments["src"] = self.memory(bytes(pages * PAGE_SIZE))
        if "secinfo_address" in arguments:
            arguments["secinfo"] = arguments.pop("secinfo_address")
        else:
            arguments["secinfo"] = self.memory(secinfo)
        add = uapi.SgxEnclaveAddPages(offset=offset, **arguments)
        ret, add = self.ioctl(uapi.SGX_IOC_ENCLAVE_ADD_PAGES, add)
        return ret, add.count

    def fill(self) -> None:
        """ADD_PAGES of every segment of the image."""
        for segment in self.image.segments:
            add = uapi.SgxEnclaveAddPages(
                src=self.memory(segment.data()),
                offset=segment.offset,
                length=segment.size,
                secinfo=self.memory(SECINFO(FLAGS=segment.flags).pack()),
                flags=uapi.SGX_PAGE_MEASURE if segment.chunks else 0,
            )
            assert self.ioctl(uapi.SGX_IOC_ENCLAVE_ADD_PAGES, add)[0] == 0

    def sigstruct(self) -> SIGSTRUCT:
        """The SIGSTRUCT that matches the image."""
        return sign(self.image, development_key())

    def init(self, sig: SIGSTRUCT | None = None) -> int:
        """INIT, with the right SIGSTRUCT by default."""
        address = self.memory((sig or self.sigstruct()).pack())
        return self.ioctl(uapi.SGX_IOC_ENCLAVE_INIT, uapi.SgxEnclaveInit(sigstruct=address))[0]

    def provision(self, fd: int) -> int:
        """PROVISION."""
        return self.ioctl(uapi.SGX_IOC_ENCLAVE_PROVISION, uapi.SgxEnclaveProvision(fd=fd))[0]

    def epc_used(self) -> int:
        """EPC pages in use."""
        return self.machine.processor.epc.pages - self.machine.kernel.nr_free

    def close(self) -> int:
        """Close; how many EPC pages are still in use."""
        assert self.do(self.host.close(self.fd)) == 0
        self.machine.settle()
        return self.epc_used()


def created(machine: Machine | None = None, **image: Any) -> Building:
    """After CREATE."""
    b = Building(machine, **image)
    assert b.create() == 0
    return b


def filled(machine: Machine | None = None, **image: Any) -> Building:
    """After all of ADD_PAGES."""
    b = created(machine, **image)
    b.fill()
    return b


def initialized(machine: Machine | None = None, **image: Any) -> Building:
    """After INIT; nothing is mapped."""
    b = filled(machine, **image)
    assert b.init() == 0
    return b
