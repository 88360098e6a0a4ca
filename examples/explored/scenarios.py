"""Scenarios on the binary of enclave.c: `softsgx explore examples/explored/scenarios.py`."""

from softsgx.runner.explored.elf_scenario import ElfScenario


class AcceptOnce(ElfScenario):
    """Two threads need a page; the enclave accepts it under a lock."""

    elf = "enclave"
    what = 1

    def tasks(self, scene):
        for cpu in (1, 2):
            body = self.call(scene, cpu, rdi=scene.enclave.heap, rsi=self.what)
            yield f"thread {cpu}", cpu, body


class AcceptTwice(AcceptOnce):
    """Each accepts it by itself: a conflict of two EACCEPT is a #GP."""

    what = 0
