"""Failures that a run asks for: `softsgx run --inject`. As strace --inject counts calls.

    SITE                     every time
    SITE:when=3              the third time
    SITE:when=3+             from the third time on
    SITE:when=1..4           the first four times
    SITE:when=2+3            the second time, and every third after it
    SITE:when=2..9+3         the same, up to the ninth time

A site is a place where the driver or memory management of the model can fail for want of something.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from softsgx.events.kernel import FailureInjected

if TYPE_CHECKING:
    from softsgx.sim import Log

SITES: Final[Mapping[str, str]] = {
    "sgx_open": "open of /dev/sgx_enclave: ENOMEM",
    "create_buffer": "memory for the SECS in CREATE: ENOMEM",
    "shmem_file_setup": "the backing file in CREATE: ENOMEM",
    "init_page": "memory for the SIGSTRUCT in INIT: ENOMEM",
    "crypto_alloc_shash": "memory to hash the signer's key in INIT: ENOMEM; not in Linux 6.18",
    "sgx_encl_page_alloc": "the record of a page, in ADD_PAGES (ENOMEM) or in a page fault, which "
    "is tried again",
    "sgx_encl_grow": "the record of a version array: ENOMEM, or SIGBUS in a page fault",
    "sgx_alloc_epc_page": "a free EPC page: others are reclaimed, or ENOMEM; a page fault is tried "
    "again",
    "sgx_encl_get_backing": "backing memory of a page that is evicted or loaded; tried again until "
    "there is some, so WHEN has to end",
    "xa_insert": "the array of pages, in ADD_PAGES (ENOMEM) or in a page fault (SIGBUS)",
    "sgx_encl_mm_add": "mmap of an enclave by a process that is new to it: ENOMEM",
    "mmu_notifier_register": "the same, a step later: ENOMEM",
    "vmf_insert_pfn": "a PTE in a page fault: SIGBUS",
    "EMODPR": "EMODPR finds the page in use: SGX_EPC_PAGE_CONFLICT, EFAULT",
    "ETRACK": "ETRACK fails twice: EFAULT",
}
"""Where a failure can be asked for, and what the program then sees."""

PYTHON_ONLY: Final = frozenset({"sgx_open", "sgx_alloc_epc_page"})
"""Sites that a driver object does not ask for."""
_ENDLESS: Final = frozenset({"sgx_encl_get_backing"})  # the kernel tries for ever

_RULE: Final = re.compile(r"\w+(?::when=(\d+)(?:\.\.(\d+))?(?:(\+)(\d+)?)?)?")


class Rule(NamedTuple):
    """Which of the times that `site` is reached fail: `first`, and each `step` after it to `last`.

    `last` 0: there is none. `text` is how it was asked for.
    """

    site: str
    first: int
    last: int
    step: int
    text: str

    def holds(self, time: int) -> bool:
        """Whether this time, counted from 1, fails."""
        late = self.last and time > self.last
        return time >= self.first and not late and not (time - self.first) % self.step


def rule(text: str) -> Rule:
    """What SITE[:when=...] means. ValueError says what is wrong."""
    site, colon, _ = text.partition(":")
    if site not in SITES:
        near = get_close_matches(site, SITES, 1)
        meant = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"{site!r}: no such site{meant}")
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r}: SITE[:when=FIRST[..LAST][+[STEP]]] is needed")
    if not colon:
        return _ending(Rule(site, 1, 0, 1, text))
    begin, end, plus, step = found.groups()
    first = int(begin)
    last = int(end) if end else 0 if plus else first
    made = Rule(site, first, last, int(step) if step else 1, text)
    if first < 1 or made.step < 1 or (end and last < first):
        raise ValueError(f"{text!r}: times are counted from 1, upwards")
    return _ending(made)


def _ending(made: Rule) -> Rule:
    """The rule. ValueError if the kernel would never get on."""
    if made.site in _ENDLESS and not made.last:
        raise ValueError(f"{made.text!r}: the kernel would try for ever: :when=1..8 for example")
    return made


class Failures:
    """Makes a kernel fail, as `Kernel.inject`; counts how often each site was reached."""

    def __init__(self, rules: Iterable[Rule], log: Log) -> None:
        self._rules = list(rules)
        self._log = log
        self._reached: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def __call__(self, site: str) -> bool:
        """Whether the kernel fails at a site, which it has reached now."""
        self._reached[site] += 1
        time = self._reached[site]
        held = [each for each in self._rules if each.site == site and each.holds(time)]
        for each in held:
            self._failed[each.text] += 1
        if held:
            self._log.emit(FailureInjected(site, time))
        return bool(held)

    def in_vain(self) -> list[str]:
        """A sentence for each rule by which nothing has failed."""
        return [
            f"{each.text}: nothing failed: the site was reached {_times(self._reached[each.site])}"
            for each in self._rules
            if not self._failed[each.text]
        ]


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")


def listing() -> str:
    """Every site, one a line, and what a failure there does."""
    return "".join(f"{site:<22}  {what}\n" for site, what in SITES.items())
