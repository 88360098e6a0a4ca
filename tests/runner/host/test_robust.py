"""The kernel marks a word when the thread that asked for it dies."""

import mmap
import os
import signal
import threading
from ctypes import addressof, c_uint32

import pytest

from softsgx.runner.host.robust import mark_death
from tests.patience import until

OWNER_DIED = 1 << 30


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, 0])
def test_a_word_is_marked_when_its_owner_dies(number: int) -> None:
    """Also while the owner is a zombie, which still answers kill(pid, 0)."""
    word = c_uint32.from_buffer(mmap.mmap(-1, mmap.PAGESIZE), 64)
    pid = os.fork()
    if not pid:
        mark_death(addressof(word), threading.get_native_id())
        if not number:
            os._exit(0)
        signal.pause()
    until(lambda: word.value)
    if number:
        assert word.value == pid
        os.kill(pid, number)
    until(lambda: word.value & OWNER_DIED)
    os.kill(pid, 0)
    os.waitpid(pid, 0)
