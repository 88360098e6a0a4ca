"""Advice after a refusal, as steps: a text is made of them, and a test can take them one by one.

So what is printed is what the tests have done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    PT_MASK,
    PT_NAMES,
    PT_SHIFT,
    REG,
    VALID,
    R,
    W,
    X,
    state_text,
    word_text,
)

_LETTERS: Final = {R: "R", W: "W", X: "X"}
_PROTS: Final = {R: "PROT_READ", W: "PROT_WRITE", X: "PROT_EXEC"}

INSIDE: Final = " from inside the enclave"
HOST: Final = " by the host"


def letters(rights: int) -> str:
    """Rights as in EMODPE(RW)."""
    return "".join(letter for bit, letter in _LETTERS.items() if rights & bit)


def prots(rights: int) -> str:
    """Rights as mmap takes them."""
    return "|".join(name for bit, name in _PROTS.items() if rights & bit) or "PROT_NONE"


def held_text(word: int) -> str:
    """An EPCM word as SECINFO.FLAGS must have it; rights only for a PT_REG page."""
    return word_text(word | VALID) if word & PT_MASK == REG else state_text(word)


@dataclass(frozen=True)
class Step:
    """One thing to do. `where` is printed once for consecutive steps in the same place."""

    where: ClassVar[str] = ""

    @property
    def text(self) -> str:
        """The step, as a part of a sentence."""
        raise NotImplementedError


@dataclass(frozen=True)
class Words(Step):
    """A step that has a text of its own."""

    words: str

    @property
    def text(self) -> str:
        """The words."""
        return self.words


@dataclass(frozen=True)
class Accept(Step):
    """EACCEPT of the page, with this word in SECINFO.FLAGS."""

    page: int
    word: int
    where = INSIDE

    @property
    def text(self) -> str:
        """As EACCEPT(rw- REG PENDING)."""
        return f"EACCEPT({held_text(self.word)})"


@dataclass(frozen=True)
class Extend(Step):
    """EMODPE of the page."""

    page: int
    rights: int
    where = INSIDE

    @property
    def text(self) -> str:
        """As EMODPE(RW)."""
        return f"EMODPE({letters(self.rights)})"


@dataclass(frozen=True)
class Map(Step):
    """mmap of the enclave's descriptor over one page, MAP_SHARED | MAP_FIXED."""

    page: int
    prot: int
    again: bool = False

    @property
    def text(self) -> str:
        """As mmap /dev/sgx_enclave over 0x7000 with PROT_READ."""
        again = " again" if self.again else ""
        return f"mmap /dev/sgx_enclave over {self.page:#x}{again} with {prots(self.prot)}"


@dataclass(frozen=True)
class MapHost(Step):
    """mmap of ordinary memory."""

    page: int
    prot: int

    @property
    def text(self) -> str:
        """As map host memory at 0x7000 with PROT_READ."""
        return f"map host memory at {self.page:#x} with {prots(self.prot)}"


@dataclass(frozen=True)
class Protect(Step):
    """mprotect of one page."""

    page: int
    prot: int

    @property
    def text(self) -> str:
        """As mprotect(0x7000, 0x1000, PROT_READ)."""
        return f"mprotect({self.page:#x}, {PAGE_SIZE:#x}, {prots(self.prot)})"


@dataclass(frozen=True)
class Retype(Step):
    """MODIFY_TYPES of one page."""

    page: int
    kind: int
    where = HOST

    @property
    def text(self) -> str:
        """As MODIFY_TYPES(PT_TRIM)."""
        return f"MODIFY_TYPES(PT_{PT_NAMES[self.kind >> PT_SHIFT]})"


@dataclass(frozen=True)
class Remove(Step):
    """REMOVE_PAGES of one page."""

    page: int
    where = HOST

    @property
    def text(self) -> str:
        """Its name."""
        return "REMOVE_PAGES"


@dataclass(frozen=True)
class Fresh(Step):
    """Nothing to do: the next touch of the page, even by EACCEPT, finds a fresh page there."""

    page: int

    @property
    def text(self) -> str:
        """For the reader."""
        return "a touch (EAUG adds a fresh page)"


@dataclass(frozen=True)
class Relax(Step):
    """RELAX_PERMISSIONS of the V2 series, with all rights that the page is to have."""

    page: int
    rights: int
    where = HOST

    @property
    def text(self) -> str:
        """As RELAX_PERMISSIONS(RW)."""
        return f"RELAX_PERMISSIONS({letters(self.rights)})"


@dataclass(frozen=True)
class Init(Step):
    """SGX_IOC_ENCLAVE_INIT."""

    @property
    def text(self) -> str:
        """Its name."""
        return "SGX_IOC_ENCLAVE_INIT first"


@dataclass(frozen=True)
class Leave(Step):
    """Threads that must leave the enclave, by processor; with `track` after an ETRACK."""

    lps: tuple[int, ...]
    who: str
    track: bool = False

    @property
    def text(self) -> str:
        """Who must leave, and what must happen first."""
        if self.track:
            leave = f", then {self.who} must leave" if self.who else ""
            return f"ETRACK is still due{leave}: accept when the ioctl has returned"
        return f"{self.who} must leave the enclave, by an IPI of the kernel or EEXIT"


@dataclass(frozen=True)
class Wait(Step):
    """Wait until a TCS is free."""

    lps: tuple[int, ...]
    who: str

    @property
    def text(self) -> str:
        """Who uses the TCS."""
        return f"wait: {self.who}" if self.who else "wait until this one is free"


class OtherTcs(Words):
    """Another TCS page as the operand, one that is free."""


@dataclass(frozen=True)
class Aligned(Step):
    """An operand that must be a multiple of `size`."""

    operand: str
    what: str
    size: int

    @property
    def text(self) -> str:
        """As RBX, the SECINFO, must be a multiple of 64."""
        return f"{self.operand}, {self.what}, must be a multiple of {self.size}"


@dataclass(frozen=True)
class Within(Step):
    """An operand that must lie in ELRANGE."""

    operand: str
    what: str
    start: int
    end: int

    @property
    def text(self) -> str:
        """With the range."""
        return (
            f"{self.operand}, {self.what}, must lie in ELRANGE, {self.start:#x} to"
            f" {self.end - 1:#x}"
        )


@dataclass(frozen=True)
class Canonical(Step):
    """An operand that must be a canonical address."""

    operand: str
    what: str

    @property
    def text(self) -> str:
        """As RCX, the AEP, must be canonical."""
        return f"{self.operand}, {self.what}, must be canonical: bits 63 to 47 alike"


@dataclass(frozen=True)
class Secinfo(Step):
    """What SECINFO.FLAGS must be, and why."""

    word: int
    why: str

    @property
    def text(self) -> str:
        """With the reason."""
        return f"SECINFO.FLAGS must be {held_text(self.word)}: {self.why}"


class Skip(Words):
    """Leave it out: what was refused is not needed."""


@dataclass(frozen=True)
class Again(Step):
    """Try again: what refused it goes away by itself."""

    why: str

    @property
    def text(self) -> str:
        """With the reason."""
        return f"try again: {self.why}"


class Say(Words):
    """Anything else: about the program's code, how it is built, or what runs it."""


@dataclass(frozen=True)
class Advice:
    """Advice: what it is for, and alternative lists of steps, each taken in order.

    `note` is for the reader only.
    """

    goal: str
    alternatives: tuple[tuple[Step, ...], ...]
    note: str = ""

    @classmethod
    def of(cls, goal: str, *steps: Step, note: str = "") -> Advice:
        """With one alternative."""
        return cls(goal, (steps,), note)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Those of the first alternative."""
        return self.alternatives[0]

    @property
    def text(self) -> str:
        """The line that is printed."""
        ways = "; or ".join(_sentence(steps) for steps in self.alternatives)
        return f"{self.goal}: {ways}{self.note}"


def _sentence(steps: tuple[Step, ...]) -> str:
    """Steps joined. The place is printed after the first of the steps that are done there."""
    parts: list[str] = []
    before, said = "", False
    for step in steps:
        where = step.where if step.where != before else ""
        if where == INSIDE:
            where, said = (" from inside" if said else INSIDE), True
        parts.append(step.text + where)
        before = step.where
    return ", then ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
