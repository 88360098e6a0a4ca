"""Why a call on enclave memory failed: the leaf that was refused in it, or the kernel's own rule.

Linux 6.12, sgx/ioctl.c and sgx/encl.c. Only refusals whose reason the state still shows are
explained; of the others the errno says it.
"""

from __future__ import annotations

from typing import Final

from softsgx.linux.errno import EACCES, EBUSY, EINVAL, ENODEV, ENOMEM, EPERM
from softsgx.linux.sgx.encl import SGX_ENCL_CREATED, SGX_ENCL_INITIALIZED, SgxEncl
from softsgx.report.explanation import Explanation, Layer
from softsgx.report.fields import SHORT, errno_or_value, exception_text, status_text
from softsgx.sim import cpu_events as c
from softsgx.sim import kernel_events as k
from softsgx.spec.attributes import ATTR_PROVISIONKEY
from softsgx.spec.bits import PAGE_MASK, PAGE_SHIFT
from softsgx.spec.epcm import PT_TCS, PT_TRIM, R, W, rwx_text
from softsgx.spec.rules import RULES
from softsgx.spec.status import SGX_PAGE_NOT_MODIFIABLE
from softsgx.system.facts import look
from softsgx.system.history import History
from softsgx.system.ways import fallback

_EDMM: Final = frozenset({"RESTRICT_PERMISSIONS", "MODIFY_TYPES", "REMOVE_PAGES"})
_FEW: Final = 2  # CREATE takes two pages, and gives the first back if there is no second
_AREAS: Final = frozenset({"mmap", "mprotect"})


def explain_call(history: History, e: k.CallEnded) -> Explanation | None:
    """The explanation of a call that returned an errno; None if there is nothing to add to it."""
    context = history.busy(e.cpu)
    if context is None:
        return None
    if context.refused is not None:
        return _leaf(history, e, str(context), context.refused)
    if e.name in _AREAS and e.result == -EACCES:
        return _cap(history, e, str(context))
    if e.name.startswith(SHORT):
        return _driver(history, e, str(context), dict(context.fields))
    return None


def _leaf(
    history: History, e: k.CallEnded, text: str, refused: c.LeafDone | c.LeafFaulted
) -> Explanation:
    """An ENCLS that the driver executed ended otherwise than the driver wanted."""
    processor = history.machine.processor
    lp = processor.lps[e.cpu]
    if isinstance(refused, c.LeafDone):
        end = status_text(refused.status)
    else:
        end = exception_text(refused.vector, refused.code)
    number = lp.system_epc_page(refused.rcx) if refused.rcx >> 63 else -1
    layers, way = [], fallback(RULES.get(refused.rule, refused.rule))
    if number >= 0:
        facts = look(history, lp, processor.epcm.address[number])
        facts.number, facts.word = number, processor.epcm.state[number]
        layers.append(facts.epcm_layer())
        if isinstance(refused, c.LeafDone) and refused.status == SGX_PAGE_NOT_MODIFIABLE:
            way = "for the ioctl to succeed: EACCEPT of what is due, from inside the enclave"
    return Explanation(
        event=history.log.seq,
        headline=f"{text} refused: {errno_or_value(e.result)}; {refused.leaf}: {end}"
        f" ({refused.rule})",
        rule=refused.rule,
        rule_text=RULES.get(refused.rule, refused.rule),
        key=(refused.rule, e.name, number),
        layers=layers,
        way=way,
    )


def _cap(history: History, e: k.CallEnded, text: str) -> Explanation | None:
    """The first page whose cap is below what was asked for (sgx_encl_may_map)."""
    fields = dict(e.fields)
    prot, start = fields["prot"] & 7, fields["address"]
    end = start + fields["length"]
    for encl in _enclaves(history, e.cpu, start):
        for number, page in sorted(encl.page_array.items()):
            at = number << PAGE_SHIFT
            if start <= at < end and prot & ~page.vm_max_prot_bits:
                more = "that has them, or EAUG (touch a hole) and accept inside"
                return Explanation(
                    event=history.log.seq,
                    headline=f"{text} refused: {errno_or_value(e.result)}",
                    rule="sgx_encl_may_map",
                    rule_text="an area gets no right that the cap of one of its pages lacks",
                    key=("may_map", e.name, at, prot),
                    layers=[
                        Layer("want", rwx_text(prot), ""),
                        Layer(
                            "cap",
                            rwx_text(page.vm_max_prot_bits),
                            f"of the page at {at:#x} since it was added",
                        ),
                    ],
                    way=f"to have these rights: ADD_PAGES with a SECINFO {more}",
                )
    return None


def _enclaves(history: History, cpu: int, address: int) -> list[SgxEncl]:
    """The enclave mapped at an address, or else all that the address space maps."""
    mm = history.machine.kernel.loaded.get(cpu)
    if mm is None:
        return []
    vma = mm.vma_lookup(address)
    if vma is not None and vma.encl is not None:
        return [vma.encl]
    found = {id(v.encl): v.encl for v in mm.vmas if v.encl is not None}
    return list(found.values())


def _driver(
    history: History, e: k.CallEnded, text: str, fields: dict[str, int]
) -> Explanation | None:
    """The driver refused before any leaf."""
    found = _any_reason(history, e)
    if found is None and e.name.removeprefix(SHORT) in _EDMM:
        found = _edmm_reason(history, e, fields)
    if found is None:
        return None
    rule, way = found
    return Explanation(
        event=history.log.seq,
        headline=f"{text} refused by the driver: {errno_or_value(e.result)}",
        rule=e.name,
        rule_text=rule,
        key=(rule, e.name, fields.get("offset", 0)),
        way=f"for the ioctl to succeed: {way}",
    )


def _any_reason(history: History, e: k.CallEnded) -> tuple[str, str] | None:
    """Of any ioctl: the rule, and the way out."""
    kernel = history.machine.kernel
    if e.result == -ENODEV:
        return "it needs a processor with SGX2", "run without --sgx1"
    if e.result == -ENOMEM and kernel.nr_free < _FEW:
        pages = kernel.processor.epc.pages
        return (
            f"EPC is full: {kernel.nr_free} of {pages} pages are free, none can be evicted",
            "a larger --epc, or close an enclave; SECS and VA pages stay in EPC",
        )
    encl = _enclave(history, e)
    if encl is None:
        return None
    excess = encl.attributes & ~encl.attributes_mask
    if e.result == -EACCES and e.name.endswith("INIT") and excess:
        way = "leave them out of SECS.ATTRIBUTES"
        if excess & ATTR_PROVISIONKEY:
            way = "open /dev/sgx_provision, and SGX_IOC_ENCLAVE_PROVISION before INIT"
        return f"SECS.ATTRIBUTES has bits that this enclave may not have: {excess:#x}", way
    return None


def _enclave(history: History, e: k.CallEnded) -> SgxEncl | None:
    """The enclave of an ioctl: found by its EPC pages, or else by the areas of the caller."""
    wanted = dict(e.fields).get("enclave")
    kernel = history.machine.kernel
    for page in kernel.active_page_list:
        if page.owner is not None and page.owner.encl.number == wanted:
            return page.owner.encl
    mm = kernel.loaded.get(e.cpu)
    areas = mm.vmas if mm is not None else []
    return next((v.encl for v in areas if v.encl and v.encl.number == wanted), None)


def _edmm_reason(
    history: History, e: k.CallEnded, fields: dict[str, int]
) -> tuple[str, str] | None:
    """Of those that change pages of a running enclave."""
    if e.result == -EBUSY:
        return "one ioctl per enclave runs at a time", "try again when the other one has ended"
    encl = _enclave(history, e)
    if "offset" not in fields:
        if encl is not None and not encl.flags & SGX_ENCL_INITIALIZED:
            what = "EINIT" if encl.flags & SGX_ENCL_CREATED else "CREATE"
            return f"the enclave is not initialised: {what} is missing", "SGX_IOC_ENCLAVE_INIT"
        return None
    if e.result == -EINVAL and (
        not fields["length"] or (fields["offset"] | fields["length"]) & PAGE_MASK
    ):
        return "offset and length are multiples of 4096, length is not 0", "whole pages"
    if e.result == -EINVAL and fields.get("page_type", PT_TCS) not in (PT_TCS, PT_TRIM):
        return "a page can become PT_TCS or PT_TRIM only", "page_type 1 or 4"
    permissions = fields.get("permissions", R)
    if e.result == -EINVAL and permissions & (R | W) == W:
        return "W without R is no right that a page can have", "permissions with R"
    if e.result == -EINVAL and (fields.get("count") or fields.get("result")):
        return "result and count must be 0 on the way in", "clear both fields before each ioctl"
    page = encl.page(encl.base + fields["offset"]) if encl is not None else None
    trims = e.name.endswith("REMOVE_PAGES")
    if trims and e.result == -EPERM and page is not None and page.type != PT_TRIM:
        return (
            "only a trimmed page can be removed",
            "MODIFY_TYPES(PT_TRIM), and EACCEPT(TRIM MODIFIED) from inside the enclave",
        )
    if trims and e.result == -EPERM:
        return (
            "the enclave has not accepted that the page is trimmed",
            "EACCEPT(TRIM MODIFIED) from inside the enclave",
        )
    return None
