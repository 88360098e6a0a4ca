"""The encoding of instructions, as in the chapter "Instruction Format" of SDM 2."""

from typing import Final

LONGEST: Final = 15
"""Maximum length of an instruction in bytes, prefixes included; a longer one is #GP(0)."""

LOCK: Final = 0xF0
LEGACY_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
