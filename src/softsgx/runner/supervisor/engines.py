"""The engines by name: the classes that the model is made of for each, and how each is built.

Only the engine of a run is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softsgx.runner.options import NATIVE
from softsgx.runner.process.world import MODEL, Hardware

if TYPE_CHECKING:
    from softsgx.runner.enclaves.engine import Engine
    from softsgx.runner.inserted.doorbell import Doorbell
    from softsgx.runner.inserted.records import AnyMailboxes
    from softsgx.runner.process.world import World
    from softsgx.runner.supervisor.loading import Loader
    from softsgx.runner.traps.abort_page import AbortPage


def hardware(name: str) -> Hardware:
    """The classes for the `World` of a run with this engine."""
    if name != NATIVE:
        return MODEL
    from softsgx.runner.native.lp import WATCHED

    return WATCHED


def build(
    name: str,
    world: World,
    mailboxes: AnyMailboxes,
    doorbell: Doorbell,
    loader: Loader,
    abort_page: AbortPage,
    ends: list[tuple[int, int]],
) -> Engine:
    """Build an engine.

    It tells the loader what it maps into each process. If it sees a thread end, it appends the
    number and wait status of the thread to `ends`.
    """
    if name != NATIVE:
        from softsgx.runner.emulator.engine import EmulatorEngine

        return EmulatorEngine(world, mailboxes, doorbell, loader.vdso)
    from softsgx.runner.native.engine import NativeEngine
    from softsgx.runner.native.load import NativeParts

    engine = NativeEngine(world, mailboxes, doorbell, loader.vdso, abort_page, ends)
    loader.native = NativeParts(world.memory, engine.switch.slots)
    return engine
