"""Failures that a run asks for: where the kernel can fail, and which times it does.

A site is a place where the driver or memory management of the model can fail for want of something.
`runner/session/inject.py` reads what `softsgx run --inject` asks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
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
ENDLESS: Final = frozenset({"sgx_encl_get_backing"})
"""Sites at which the kernel tries for ever."""


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
