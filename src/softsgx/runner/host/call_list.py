"""Functions of C that one call of ctypes calls, one after the other.

A call by ctypes costs 0.3 to 0.5 us, most of it for arguments that are always the same.
"""

from __future__ import annotations

import ctypes
from struct import pack
from typing import Final

from softsgx.runner.host.native_code import MachineCode

_ARGUMENTS: Final = 6
# Of an entry: function, arguments, and one word for the expected result and the last one.
_WORDS: Final = _ARGUMENTS + 2
_SIZE: Final = 8 * _WORDS

# push rbx; push rbp; push rax (aligns the stack); then mov rbx,first; mov rbp,end
_HEAD: Final = bytes.fromhex("53 55 50")
# next: cmp rbx,rbp; je done; mov rax,[rbx]; test rax,rax; je skip
#       mov rdi,[rbx+8]; mov rsi,[rbx+16]; mov rdx,[rbx+24]
#       mov rcx,[rbx+32]; mov r8,[rbx+40]; mov r9,[rbx+48]
#       call rax; mov [rbx+60],eax; cmp eax,[rbx+56]; jne done
# skip: add rbx,64; jmp next
# done: mov rax,rbx; pop rcx; pop rbp; pop rbx; ret
_LOOP: Final = bytes.fromhex(
    "4839eb 7430 488b03 4885c0 7422 488b7b08 488b7310 488b5318 488b4b20 4c8b4328 4c8b4b30"
    "ffd0 89433c 3b4338 7506 4883c340 ebcb 4889d8 59 5d 5b c3"
)


def function_word(number: int) -> int:
    """The index in `CallList.words` of the function of a call; 0 there leaves the call out."""
    return _WORDS * number


def argument_word(number: int, argument: int) -> int:
    """The index in `CallList.words` of an argument of a call."""
    return _WORDS * number + 1 + argument


class CallList:
    """`count` calls in a fixed order. `words` may be changed, see above.

    The functions return 32 bits, and are called with the GIL held: they may call back Python.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept = (ctypes.c_uint64 * (_WORDS * count))()
        self.words: Final = memoryview(self._kept).cast("B").cast("Q")
        self._first = ctypes.addressof(self._kept)
        end = self._first + _SIZE * count
        head = _HEAD + b"\x48\xbb" + pack("<Q", self._first) + b"\x48\xbd" + pack("<Q", end)
        self._code = MachineCode(head + _LOOP, ctypes.c_uint64, keeps_gil=True)
        self._call = self._code.call
        self._end = end

    def set(self, number: int, function: int, *arguments: int, expected: int = 0) -> None:
        """Set call `number`: the address of its function, at most six words, and its result."""
        padding = [0] * (_ARGUMENTS - len(arguments))
        at = _WORDS * number
        for place, word in enumerate((function, *arguments, *padding, expected), at):
            self.words[place] = word

    def result(self, number: int) -> int:
        """What a call returned when it was made last."""
        return self.words[_WORDS * number + _WORDS - 1] >> 32

    def run(self) -> int:
        """Call all until one returns another result than expected; its number, -1 if none did."""
        stopped = self._call()
        return -1 if stopped == self._end else (stopped - self._first) // _SIZE
