"""A loaded enclave, as its host sees it: to be entered, and managed by ioctls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from softsgx.image.image import EnclaveImage
from softsgx.linux import uapi
from softsgx.linux.bug import KernelBug
from softsgx.linux.uapi import SgxEnclaveRun
from softsgx.sim import Steps
from softsgx.spec import leaves
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import PT_TCS, PT_TRIM
from softsgx.spec.paging import SECINFO
from softsgx.spec.structure import Structure
from softsgx.system.enclave import EnclaveAbort, EnclaveProgram, EnclaveThread
from softsgx.system.host import EnclaveEntry, HostThread

SLOT: Final = SECINFO.SIZE
"""Bytes of a SECINFO slot."""


@dataclass
class Enclave:
    """A loaded enclave. Addresses are linear addresses.

    `tcs` lists the TCS pages, `data` the RW data pages; `heap` is the first address after them, in
    a hole. Methods that enter the enclave or issue an ioctl are generators and take the acting host
    thread; ioctls return the errno and the argument block as the kernel left it.
    """

    REMOVE_PAGES: ClassVar[int] = uapi.SGX_IOC_ENCLAVE_REMOVE_PAGES

    fd: int
    base: int
    size: int
    image: EnclaveImage
    scratch: int = 0
    tcs: list[int] = field(default_factory=list)
    data: list[int] = field(default_factory=list)
    heap: int = 0
    thread_type: type[EnclaveThread] = EnclaveThread

    def entry(self, program: EnclaveProgram) -> EnclaveEntry:
        """Code for `HostThread.enter`; keep it in order to resume an interrupted program."""
        return EnclaveEntry(program, self.secinfo_slot, self.thread_type)

    def secinfo_slot(self, tcs: int) -> int:
        """Where code on a TCS puts SECINFO, in the scratch pages.

        A TCS that was loaded has a slot of its own; the others share slots by page number.
        """
        if tcs in self.tcs:
            return self.scratch + self.tcs.index(tcs) * SLOT
        return self.scratch + tcs // PAGE_SIZE * SLOT % PAGE_SIZE

    def run(self, thread: int = 0) -> SgxEnclaveRun:
        """A fresh run structure for a TCS."""
        return SgxEnclaveRun(tcs=self.tcs[thread])

    def call(
        self, host: HostThread, program: EnclaveProgram, *, thread: int = 0, args: Any = None
    ) -> Steps[Any]:
        """Enter, run `program`, serve its OCALLs, leave; returns its result.

        Raises EnclaveFault if an exception ended it that the kernel did not repair, EnclaveAbort if
        it gave up.
        """
        entry, run = self.entry(program), self.run(thread)
        while True:
            yield from host.enter(entry, run, args=args)
            if run.function != leaves.EEXIT:
                entry.abandon(run.tcs)
                raise EnclaveFault(run)
            try:
                called_out = yield from entry.serve(host, run.tcs)
            except (GeneratorExit, KernelBug):
                entry.abandon(run.tcs)  # as in HostThread.enter; a call may have ended the kernel
                raise
            if not called_out:
                if isinstance(entry.result, EnclaveAbort):
                    raise entry.result
                return entry.result

    # ioctls

    def ioctl(self, host: HostThread, cmd: int, argument: Structure) -> Steps[tuple[int, Any]]:
        """An ioctl: the result, and the argument block read back from user memory."""
        return (yield from ioctl(host, self.fd, cmd, argument))

    def restrict(
        self, host: HostThread, address: int, length: int, rights: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveRestrictPermissions]]:
        """SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS."""
        argument = uapi.SgxEnclaveRestrictPermissions(
            offset=address - self.base, length=length, permissions=rights
        )
        return (yield from self.ioctl(host, uapi.SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, argument))

    def modify_types(
        self, host: HostThread, address: int, length: int, page_type: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveModifyTypes]]:
        """SGX_IOC_ENCLAVE_MODIFY_TYPES."""
        argument = uapi.SgxEnclaveModifyTypes(
            offset=address - self.base, length=length, page_type=page_type
        )
        return (yield from self.ioctl(host, uapi.SGX_IOC_ENCLAVE_MODIFY_TYPES, argument))

    def trim(
        self, host: HostThread, address: int, length: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveModifyTypes]]:
        """MODIFY_TYPES to PT_TRIM."""
        return (yield from self.modify_types(host, address, length, PT_TRIM))

    def make_tcs(
        self, host: HostThread, address: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveModifyTypes]]:
        """MODIFY_TYPES of one page to PT_TCS."""
        return (yield from self.modify_types(host, address, PAGE_SIZE, PT_TCS))

    def remove(
        self, host: HostThread, address: int, length: int
    ) -> Steps[tuple[int, uapi.SgxEnclaveRemovePages]]:
        """REMOVE_PAGES."""
        argument = uapi.SgxEnclaveRemovePages(offset=address - self.base, length=length)
        return (yield from self.ioctl(host, self.REMOVE_PAGES, argument))


class EnclaveFault(Exception):
    """The enclave exited by an exception; `run` says which."""

    def __init__(self, run: SgxEnclaveRun) -> None:
        super().__init__(
            f"vector {run.exception_vector}, error code {run.exception_error_code:#x}, "
            f"address {run.exception_addr:#x}"
        )
        self.run = run

    @property
    def vector(self) -> int:
        """The exception, such as 14 for #PF."""
        return int(self.run.exception_vector)

    @property
    def error_code(self) -> int:
        """That of the exception; of #PF the PFEC, with bit 15 for SGX."""
        return int(self.run.exception_error_code)

    @property
    def address(self) -> int:
        """That of #PF: CR2, without the offset in the page; else 0."""
        return int(self.run.exception_addr)


def ioctl(host: HostThread, fd: int, cmd: int, argument: Structure) -> Steps[tuple[int, Any]]:
    """An ioctl with its argument block in user memory: the result, and the block read back."""
    address = yield from host.alloc(PAGE_SIZE)
    yield from host.store(address, argument.pack())
    ret = yield from host.ioctl(fd, cmd, address)
    raw = yield from host.load(address, argument.SIZE)
    yield from host.munmap(address, PAGE_SIZE)
    return ret, type(argument).unpack(raw)
