"""Release of an open node: inotify reports when the memfd that stands for it has lost its last
descriptor and its last mapping, in all processes."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

from softsgx.runner.errors import LoadError
from softsgx.runner.host.abi import IN_DELETE_SELF

if TYPE_CHECKING:
    from softsgx.runner.process.identity import Identity
    from softsgx.runner.process.world import World

_libc = ctypes.PyDLL(None, use_errno=True)


class Releases:
    """The open nodes of a `World` that are still in use."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._in_use: dict[int, Identity] = {}  # by watch descriptor
        self._events = ctypes.create_string_buffer(4096)

    def await_end(self, path: str, stand_in: Identity) -> None:
        """A node was opened. `path` is a descriptor, in /proc, of the memfd that stands for it."""
        watch = _libc.inotify_add_watch(self._inotify, path.encode(), IN_DELETE_SELF)
        if watch < 0:
            why = os.strerror(ctypes.get_errno())
            raise LoadError(f"inotify_add_watch: {why} (sysctl fs.inotify.max_user_watches)")
        self._in_use[watch] = stand_in

    def look(self) -> None:
        """Release the nodes that have gone out of use since the last look."""
        # os.read would raise BlockingIOError nearly always, which takes three times as long.
        while (size := _libc.read(self._inotify, self._events, len(self._events))) > 0:
            events = self._events.raw[:size]
            at = 0
            while at < len(events):
                watch, mask, _cookie, length = struct.unpack_from("<iIII", events, at)
                at += 16 + length
                stand_in = self._in_use.get(watch)
                if stand_in is not None and mask & IN_DELETE_SELF:
                    del self._in_use[watch]
                    self._world.closed(stand_in)
