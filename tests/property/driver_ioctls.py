"""Moves of host processes: the seven ioctls, with right and spoilt arguments; `count` is checked.

Spoilt: a misaligned offset, a length that overflows 64 bits, reserved bits, dirty outputs, a bad
pointer, a wrong state of the enclave. tests/linux checks the error code of each case; here a spoilt
call must fail and change nothing, and a correct one must do what it reports.
"""

from __future__ import annotations

from typing import Any

from softsgx.linux.errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EFAULT,
    EINTR,
    EINVAL,
    EIO,
    ENOMEM,
    ENOTTY,
    EPERM,
)
from softsgx.linux.sgx import encl as e
from softsgx.linux.uapi import (
    SGX_IOC_ENCLAVE_ADD_PAGES,
    SGX_IOC_ENCLAVE_CREATE,
    SGX_IOC_ENCLAVE_INIT,
    SGX_IOC_ENCLAVE_MODIFY_TYPES,
    SGX_IOC_ENCLAVE_PROVISION,
    SGX_IOC_ENCLAVE_REMOVE_PAGES,
    SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    SGX_PAGE_MEASURE,
    SgxEnclaveAddPages,
    SgxEnclaveCreate,
    SgxEnclaveInit,
    SgxEnclaveModifyTypes,
    SgxEnclaveProvision,
    SgxEnclaveRemovePages,
    SgxEnclaveRestrictPermissions,
)
from softsgx.sim import Steps
from softsgx.spec.bits import MASK64, PAGE_SHIFT, PAGE_SIZE
from softsgx.spec.epcm import PT_REG, PT_TCS, PT_TRIM, R, W
from softsgx.spec.paging import SECINFO
from softsgx.spec.structure import Structure
from softsgx.system import HostThread
from tests.property.driver_hosts import HostMoves
from tests.property.driver_watch import Watch
from tests.property.driver_world import IMAGE_END, Enclave, Slot, image, sigstruct
from tests.property.world import pick

BAD_POINTER = 8
BUILD_ERRORS = {-EBUSY, -EINTR, -EINVAL, -ENOMEM, -EFAULT, -EBADF}
PAGE_ERRORS = {-EBUSY, -EAGAIN, -EFAULT, -EINVAL, -EPERM, -EBADF}

REQUESTS: dict[type[Structure], int] = {
    SgxEnclaveRestrictPermissions: SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS,
    SgxEnclaveModifyTypes: SGX_IOC_ENCLAVE_MODIFY_TYPES,
    SgxEnclaveRemovePages: SGX_IOC_ENCLAVE_REMOVE_PAGES,
}


class IoctlMoves(HostMoves):
    """The ioctls from CREATE to REMOVE_PAGES."""

    def ioctl(
        self, host: HostThread, enclave: Enclave, cmd: int, argument: Structure
    ) -> Steps[tuple[int, Any]]:
        """One call; -EBADF if another thread has closed the descriptor meanwhile."""
        address = yield from host.alloc(PAGE_SIZE)
        yield from host.store(address, argument.pack())
        fds = self.fds(host, enclave.file)
        ret = yield from host.ioctl(fds[0] if fds else 77, cmd, address)
        raw = yield from host.load(address, argument.SIZE)
        yield from host.munmap(address, PAGE_SIZE)
        self.forget()
        return ret, type(argument).unpack(raw)

    # Building

    def build(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """The next ioctl of a loader, or of one of two competing loaders."""
        host = self.host(slot)
        mine = [x for x in self.enclaves if self.fds(host, x.file)]
        unready = [x for x in mine if not x.encl.flags & e.SGX_ENCL_INITIALIZED]
        if not mine or (not unready and not spoil):
            return
        enclave = pick(unready or mine, number)
        todo = (value % 3) if spoil == 3 else None
        if todo == 0 or (todo is None and not enclave.encl.flags & e.SGX_ENCL_CREATED):
            yield from self.create(host, enclave, spoil)
        elif todo == 1 or (todo is None and enclave.added < IMAGE_END):
            yield from self.add(host, enclave, value, spoil)
        else:
            yield from self.init(host, enclave, value, spoil)

    def create(self, host: HostThread, enclave: Enclave, spoil: int) -> Steps[None]:
        secs = image().secs(enclave.base)
        if spoil == 1:
            secs.SIZE_ += PAGE_SIZE
        elif spoil == 2:
            secs.BASEADDR += PAGE_SIZE  # ECREATE refuses
        had = enclave.encl.flags & e.SGX_ENCL_CREATED
        source = yield from self.memory(host, secs.pack())
        argument = SgxEnclaveCreate(src=BAD_POINTER if spoil == 4 else source)
        ret, _ = yield from self.ioctl(host, enclave, SGX_IOC_ENCLAVE_CREATE, argument)
        yield from host.munmap(source, PAGE_SIZE)
        assert ret in BUILD_ERRORS | {0, -EIO}, ret
        assert ret or not (had or spoil in (1, 2, 4)), "CREATE accepted what it must refuse"
        self.count(f"CREATE {ret}")

    def memory(self, host: HostThread, data: bytes) -> Steps[int]:
        """Allocate memory with this content; return its address."""
        address = yield from host.alloc(len(data))
        for at in range(0, len(data), PAGE_SIZE):
            yield from host.store(address + at, data[at : at + PAGE_SIZE])
        return address

    def add(self, host: HostThread, enclave: Enclave, value: int, spoil: int) -> Steps[None]:
        """ADD_PAGES of the next segment, or of the rest of it."""
        segment = next((s for s in image().segments if s.end > enclave.added), image().segments[-1])
        done = max(enclave.added - segment.offset, 0)
        source = yield from self.memory(host, segment.data())
        secinfo = yield from self.memory(host, SECINFO(FLAGS=segment.flags).pack())
        before = enclave.added
        argument = SgxEnclaveAddPages(
            src=source + done,
            offset=segment.offset + done,
            length=segment.size - done,
            secinfo=secinfo,
            flags=SGX_PAGE_MEASURE if segment.chunks else 0,
        )
        if spoil in (1, 2, 4):
            name, wrong = pick(
                (
                    *(("src", 8), ("offset", 8), ("length", 8), ("length", (1 << 64) - PAGE_SIZE)),
                    *(("secinfo", BAD_POINTER), ("length", 0), ("offset", (1 << 64) - PAGE_SIZE)),
                ),
                value,
            )
            setattr(argument, name, wrong)
        ret, argument = yield from self.ioctl(host, enclave, SGX_IOC_ENCLAVE_ADD_PAGES, argument)
        assert ret in BUILD_ERRORS | {0}, ret
        assert ret or spoil not in (1, 2, 4), "ADD_PAGES accepted what it must refuse"
        assert argument.count % PAGE_SIZE == 0
        assert argument.count <= segment.size - done
        assert not argument.count or spoil not in (1, 2, 4)
        if argument.count:
            # Two loaders exclude each other: nothing else was added during this call.
            assert enclave.added == before, "two ADD_PAGES of the same pages"
            enclave.added += argument.count
        self.count(f"ADD_PAGES {ret}" + (", partial" if 0 < argument.count < segment.size else ""))
        yield from host.munmap(source, segment.size)
        yield from host.munmap(secinfo, PAGE_SIZE)

    def init(self, host: HostThread, enclave: Enclave, value: int, spoil: int) -> Steps[None]:
        sig = bytearray(sigstruct())
        if spoil == 1:
            sig[16 + value % 4] ^= 1  # VENDOR
        elif spoil == 2:
            sig[600] ^= 1  # SIGNATURE
        ready = enclave.added >= IMAGE_END
        source = yield from self.memory(host, bytes(sig))
        argument = SgxEnclaveInit(sigstruct=BAD_POINTER if spoil == 4 else source)
        ret, _ = yield from self.ioctl(host, enclave, SGX_IOC_ENCLAVE_INIT, argument)
        yield from host.munmap(source, PAGE_SIZE)
        assert ret in BUILD_ERRORS | {0, -EPERM, -EIO, -EACCES}, ret
        assert ret or spoil not in (1, 2, 4), "INIT accepted what it must refuse"
        if ready and not spoil:
            assert ret in (0, -EBUSY, -EINTR, -ENOMEM, -EBADF, -EINVAL), ret
        if ret == 0:
            enclave.tcs = [enclave.base + offset for offset in image().tcs]
            self.count("INIT")

    def provision(self, slot: Slot, number: int, value: int, _spoil: int) -> Steps[None]:
        host = self.host(slot)
        enclave = self.known(host, number)
        if enclave is not None:
            fd = pick([*sorted(host.process.files), 77], value)
            argument = SgxEnclaveProvision(fd=fd)
            ret, _ = yield from self.ioctl(host, enclave, SGX_IOC_ENCLAVE_PROVISION, argument)
            assert ret in (0, -EINVAL, -EBUSY, -EBADF)

    def unknown(self, slot: Slot, number: int, _value: int, _spoil: int) -> Steps[None]:
        """An ioctl number that the driver does not know."""
        host = self.host(slot)
        enclave = self.known(host, number)
        if enclave is not None:
            fd = self.fds(host, enclave.file)[0]
            ret = yield from host.ioctl(fd, 0x1234 + number, 0)
            assert ret in (-ENOTTY, -EBUSY)
            self.forget()

    # Changing pages of a running enclave

    def restrict(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """RESTRICT_PERMISSIONS."""
        rights = value % 8 if value % 3 else R
        bad = rights & (R | W) == W
        argument = SgxEnclaveRestrictPermissions(permissions=rights)
        if spoil == 4:
            name, wrong = pick((("permissions", 8), ("result", 1), ("count", PAGE_SIZE)), value)
            setattr(argument, name, wrong)
        yield from self.change(
            slot, number, SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, argument, spoil, bad or spoil == 4
        )

    def modify(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """MODIFY_TYPES, mostly to PT_TRIM."""
        pt = pick((PT_TRIM, PT_TRIM, PT_TCS, PT_TRIM, PT_REG), value)
        argument = SgxEnclaveModifyTypes(page_type=pt)
        if spoil == 4:
            name, wrong = pick((("page_type", 0x100), ("result", 1), ("count", 1)), value)
            setattr(argument, name, wrong)
        bad = pt == PT_REG or spoil == 4
        yield from self.change(slot, number, SGX_IOC_ENCLAVE_MODIFY_TYPES, argument, spoil, bad)

    def remove(self, slot: Slot, number: int, value: int, spoil: int) -> Steps[None]:
        """REMOVE_PAGES, mostly where pages are PT_TRIM."""
        argument = SgxEnclaveRemovePages(count=value if spoil == 4 else 0)
        trims = [
            (x, entry.address)
            for x in self.enclaves
            for entry in x.encl.page_array.values()
            if entry.type == PT_TRIM and self.fds(self.host(slot), x.file)
        ]
        place = pick(trims, number) if trims else None
        bad = spoil == 4 and value > 0
        yield from self.change(
            slot, number, SGX_IOC_ENCLAVE_REMOVE_PAGES, argument, spoil, bad, place
        )

    def change(
        self,
        slot: Slot,
        number: int,
        cmd: int,
        argument: Any,
        spoil: int,
        bad: bool,
        place: tuple[Enclave, int] | None = None,
    ) -> Steps[None]:
        """One of these three ioctls; check that it did what it reports."""
        host = self.host(slot)
        enclave = place[0] if place else self.known(host, number)
        if enclave is None:
            return
        address = place[1] if place else self.address(enclave, number, spoil)
        argument.offset = address - enclave.base
        argument.length = (1, 1, 2, 3)[number >> 9 & 3] * PAGE_SIZE
        if spoil == 2:
            argument.length = -pick((PAGE_SIZE, argument.offset, 8), number) & MASK64
        elif spoil == 3:
            argument.offset += pick((8, 1 << 40, (1 << 64) - PAGE_SIZE - argument.offset), number)
        first = address >> PAGE_SHIFT
        bad = bad or spoil in (2, 3) or not enclave.encl.flags & e.SGX_ENCL_INITIALIZED
        watch = Watch(self, enclave, cmd, first, argument.length)
        ret, after = yield from self.watched_ioctl(host, watch, argument)
        assert ret in PAGE_ERRORS | {0}, ret
        name = type(argument).__name__.removeprefix("SgxEnclave")
        self.count(f"{name} {ret}")
        if bad:
            assert ret, f"{name} accepted what it must refuse"
            assert not [r for r in watch.leaves if not r], (
                f"{name} was refused with {ret} and changed a page"
            )
            return
        assert ret or after.count == argument.length
        assert not ret or after.count < argument.length

    def one_page(
        self, host: HostThread, enclave: Enclave, address: int, argument: Any
    ) -> Steps[None]:
        """One of these three ioctls on one page, whether it succeeds or not."""
        argument.offset, argument.length = address - enclave.base, PAGE_SIZE
        cmd = REQUESTS[type(argument)]
        watch = Watch(self, enclave, cmd, address >> PAGE_SHIFT, PAGE_SIZE)
        ret, _ = yield from self.watched_ioctl(host, watch, argument)
        assert ret in PAGE_ERRORS | {0}, ret
        self.count(f"{type(argument).__name__.removeprefix('SgxEnclave')} {ret}")

    def watched_ioctl(
        self, host: HostThread, watch: Watch, argument: Any
    ) -> Steps[tuple[int, Any]]:
        """The ioctl itself, checked in the step in which it returns to the host."""
        enclave = watch.enclave
        address = yield from host.alloc(PAGE_SIZE)
        yield from host.store(address, argument.pack())
        fds = self.fds(host, enclave.file)
        self.watches[host.thread] = watch
        ret = yield from host.ioctl(fds[0] if fds else 77, watch.cmd, address)
        del self.watches[host.thread]
        # In the step in which the call returns, so that no other call has changed anything since.
        after = type(argument).unpack(self.kernel.lp(host.thread).load(address, argument.SIZE))
        watch.end(ret, after)
        yield from host.munmap(address, PAGE_SIZE)
        self.forget()
        return ret, after
