"""Changes of ours to a copy of a kernel's tree: fixes of races, and bugs that must be found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from softsgx.cdriver import manifest
from softsgx.cdriver.build import build
from softsgx.cdriver.tree import DRIVER, Tree, find


class Patch(NamedTuple):
    """`text` is put before, after or in the place of what the pattern finds in a function."""

    file: str
    function: str
    pattern: str
    text: str
    after: bool = False
    instead: bool = False

    def apply(self, tree: Tree) -> None:
        """Change the file. AssertionError if the place is not there."""
        path = tree.driver / self.file
        source = path.read_text(encoding="utf-8")
        begins = re.search(rf"^\w[^;]*?\b{self.function}\([^;]*?\)\n\{{", source, re.MULTILINE)
        assert begins is not None, f"{self.file}: no {self.function}"
        found = re.compile(self.pattern).search(source, begins.end())
        assert found is not None, f"{self.function}: no {self.pattern}"
        start = found.end() if self.after else found.start()
        end = found.end() if self.instead else start
        path.write_text(source[:start] + self.text + source[end:], encoding="utf-8")


def patched(tree: Tree, place: Path, *patches: Patch) -> Tree:
    """A copy of a tree with changes."""
    for name in ("Makefile", DRIVER, "arch/x86/include"):
        source = tree.top / name
        if source.is_dir():
            shutil.copytree(source, place / name)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place / name)
    copy = find(place)
    for patch in patches:
        patch.apply(copy)
    return copy


def patched_object(tree: Tree, place: Path, *patches: Patch, encls: str = manifest.CALL) -> Path:
    """The driver object of a copy with changes."""
    path = place.with_suffix(".drv")
    path.write_bytes(build(patched(tree, place, *patches), encls).data)
    return path


K1_FIXED: Final = Patch(
    "encl.c",
    "sgx_encl_eaug_page",
    r"mutex_lock\(&encl->lock\);",
    """
	if (xa_load(&encl->page_array, PFN_DOWN(addr))) {
		mutex_unlock(&encl->lock);
		kfree(encl_page);
		return VM_FAULT_NOPAGE;
	}
""",
    after=True,
)

DEEP: Final = (
    "auto unsigned long deep(unsigned long n); unsigned long deep(unsigned long n)"
    "{ volatile char room[512]; room[n % 512] = n; return deep(n + 1) + room[n % 256]; }"
)
# By the descriptor that PROVISION is given; what it then does.
MISDEEDS: Final = {
    1001: "*(volatile int *)8 = 1;",
    1002: "for (;;)\n\t\t\tbarrier();",
    1003: "BUG();",
    1004: "{ struct list_head *l = kzalloc(64, GFP_KERNEL); kfree(l); list_del(l); } break;",
    1005: "{ " + DEEP + " encl->size += deep(1); } break;",
    1006: "mutex_lock(&encl->lock); break;",
    1007: "mutex_lock(&encl->lock); mutex_lock(&encl->lock); break;",
    1008: "{ char *c = kzalloc(33, GFP_KERNEL); c[33] = 1; kfree(c); } break;",
    1009: "{ char *c = kzalloc(32, GFP_KERNEL); kfree(c); kfree(c); } break;",
    1010: "copy_to_user((void *)params.fd, (void *)0x1234, 8); break;",
    1011: "mutex_unlock(&encl->lock); break;",
    1012: "WARN_ON(params.fd == 1012); break;",
    1014: "on_each_cpu_mask(mm_cpumask(current->mm), (void (*)(void *))kfree, encl, true); break;",
    1013: "mutex_lock(&encl->lock); xa_load(&encl->page_array, 7); mutex_unlock(&encl->lock);"
    " xa_load(&encl->page_array, 8); break;",
}
_CASES: Final = "\n".join(f"\tcase {fd}:\n\t\t{text}" for fd, text in MISDEEDS.items())
MISBEHAVING: Final = Patch(
    "ioctl.c",
    "sgx_ioc_enclave_provision",
    r"return sgx_set_attribute",
    f"switch (params.fd) {{\n{_CASES}\n\t}}\n\n\t",
)

# Fixes that Linux 6.12 has, taken out again, by the race that then comes back.
UNFIXED: Final[dict[str, tuple[Patch, ...]]] = {
    "K5": (
        Patch("encl.c", "sgx_encl_eaug_page", r"sgx_encl_load_secs\(encl\)", "NULL", instead=True),
    ),
    "K9": (
        Patch(
            "encl.c", "__sgx_encl_eldu", r" && !reclaimer_writing_to_pcmd\(encl, pcmd_first_page\)",
            "", instead=True,
        ),
    ),
    "K10": (
        Patch(
            "main.c", "sgx_reclaim_pages", r"mutex_lock\(&encl_page->encl->lock\);", "",
            instead=True,
        ),
        Patch(
            "main.c", "sgx_reclaim_pages", r"mutex_unlock\(&encl_page->encl->lock\);", "",
            instead=True,
        ),
        Patch(
            "main.c", "sgx_reclaim_pages", r"encl_page->desc \|= SGX_ENCL_PAGE_BEING_RECLAIMED;",
            "mutex_lock(&encl_page->encl->lock);\n\t\t",
        ),
    ),
    "K11": (
        Patch(
            "ioctl.c", "sgx_validate_offset_length", r"offset \+ length < offset", "0", instead=True
        ),
    ),
}  # fmt: skip
