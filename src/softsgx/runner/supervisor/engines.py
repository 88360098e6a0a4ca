"""The engines by name: what the machine has to be made of for each, and how it is put together.

Only the engine of a run is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.runner.options import NATIVE
from softsgx.runner.process.world import MODEL, Hardware

if TYPE_CHECKING:
    from softsgx.runner.enclaves.engine import Engine
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.inserted.mailboxes import Mailboxes
    from softsgx.runner.process.world import World
    from softsgx.runner.supervisor.loading import Loader
    from softsgx.runner.traps.abort_page import AbortPage


def hardware(name: str) -> Hardware:
    """For the World of a run with this engine."""
    if name != NATIVE:
        return MODEL
    from softsgx.runner.native.lp import WATCHED

    return WATCHED


def build(
    name: str,
    world: World,
    mailboxes: Mailboxes,
    doorbell: Doorbell,
    loader: Loader,
    abort_page: AbortPage,
    ends: list[tuple[int, int]],
) -> Engine:
    """An engine. Its own part of every process goes to the loader, and to `ends` the ends of
    threads that it comes upon, with their wait status."""
    if name != NATIVE:
        from softsgx.runner.emulator.engine import EmulatorEngine

        return EmulatorEngine(world, mailboxes, doorbell, loader.vdso)
    from softsgx.runner.native.engine import NativeEngine
    from softsgx.runner.native.load import NativeParts

    engine = NativeEngine(world, mailboxes, doorbell, loader.vdso, abort_page, ends)
    loader.native = NativeParts(world.memory, engine.switch.slots)
    return engine
