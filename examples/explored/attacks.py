"""Five mistakes in attacks.c, and their repairs: `softsgx explore attacks.py`."""

from softsgx.explore import Violation
from softsgx.runner.explored.elf_scenario import ElfScenario

PAGE = 4096
READ, READ_WRITE = 1, 3
RELEASE, USE, RELEASE_PAGES, USE_PAGES, WRITE_PAIR, READ_PAIR, COPY, RUN, HANDLE, _ = range(10)


class _Attack(ElfScenario):
    """Enclave code returns 1 for what must never happen."""

    elf = "attacks"
    points = "access"
    what = ""

    def run(self, scene, cpu, **registers):
        found = yield from self.call(scene, cpu, **registers)
        if found["rdi"]:
            raise Violation(self.what, f"thread {cpu}")


class UseAfterFree(_Attack):
    """One thread frees an object while another one uses it."""

    what = "use after free"

    def tasks(self, scene):
        yield "frees", 1, self.run(scene, 1, rsi=RELEASE)
        yield "uses", 2, self.run(scene, 2, rsi=USE)


class AsyncShock(_Attack):
    """The host has made the page of the pointer read-only; it stops the thread that clears it."""

    points = "misses"
    what = "use after free"

    def build(self, scene):
        self.page = scene.enclave.base + self.symbols.object("far_used")[0]
        scene.machine.run(scene.host.mprotect(self.page, PAGE, READ))

    def tasks(self, scene):
        def stopped(vector, address):
            yield from scene.thread(1).mprotect(self.page, PAGE, READ_WRITE)

        yield "frees", 1, self.run(scene, 1, rsi=RELEASE_PAGES, handler=stopped)
        yield "uses", 2, self.run(scene, 2, rsi=USE_PAGES)


class TornUpdate(_Attack):
    """One thread writes two words that belong together, another one reads them."""

    what = "torn update"

    def tasks(self, scene):
        yield "writes", 1, self.run(scene, 1, rsi=WRITE_PAIR, rdi=1)
        yield "reads", 2, self.run(scene, 2, rsi=READ_PAIR)


class CheckThenUse(_Attack):
    """The host makes a message longer after the enclave has checked its length."""

    what = "write behind a buffer"

    def build(self, scene):
        self.message = scene.machine.run(scene.host.alloc(PAGE))
        content = (1).to_bytes(8, "little") + b"x" * 32
        scene.machine.run(scene.host.store(self.message, content))

    def tasks(self, scene):
        yield "copies", 1, self.run(scene, 1, rsi=COPY, rdx=self.message)
        yield "host", 2, scene.thread(2).store(self.message, (17).to_bytes(8, "little"))


class EntryInterrupted(_Attack):
    """A signal comes while an entry has the stack of the host, whose handler writes below it."""

    points = "instruction"
    within = "_start"
    what = "write to memory of the enclave"

    def tasks(self, scene):
        secret = scene.enclave.base + self.symbols.object("secret")[0]
        stack = secret + 128 + 8

        def handle():
            return {"rsi": HANDLE}

        yield "enters", 1, self.run(scene, 1, rsi=RUN, rsp=stack, signal=handle)
        yield "host", 2, self.send_signal(scene, 1)


class UseAfterFreeRepaired(UseAfterFree):
    elf = "attacks-repaired"


class AsyncShockRepaired(AsyncShock):
    elf = "attacks-repaired"


class TornUpdateRepaired(TornUpdate):
    elf = "attacks-repaired"


class CheckThenUseRepaired(CheckThenUse):
    elf = "attacks-repaired"


class EntryInterruptedRepaired(EntryInterrupted):
    elf = "attacks-repaired"
