"""What would have allowed it: for each rule that refuses accesses and ENCLU leaves, the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softsgx.cpu.tracking import tracked
from softsgx.linux.mm import TASK_SIZE
from softsgx.linux.sgx.encl import SGX_ENCL_INITIALIZED
from softsgx.spec.bits import PAGE_SIZE
from softsgx.spec.epcm import (
    BLOCKED,
    MODIFIED,
    PENDING,
    PR,
    PT_MASK,
    SECS,
    TCS,
    TRIM,
    VA,
    VALID,
    R,
    W,
    X,
    rwx_text,
    word_text,
)
from softsgx.spec.translation import FETCH, READ, SHADOW_READ, SHADOW_WRITE, WRITE

if TYPE_CHECKING:
    from softsgx.cpu.secs import Secs
    from softsgx.system.facts import Facts

_VERBS: Final = {
    READ: "read",
    WRITE: "write",
    FETCH: "execute",
    SHADOW_READ: "pop",
    SHADOW_WRITE: "push",
}
# What an access needs of VMA and PTE; a shadow stack is mapped without W.
_RIGHTS: Final = {READ: R, WRITE: W, FETCH: X, SHADOW_READ: R, SHADOW_WRITE: R}
_LETTERS: Final = {R: "R", W: "W", X: "X"}
_PROTS: Final = {R: "PROT_READ", W: "PROT_WRITE", X: "PROT_EXEC"}

# Rules whose way out does not depend on the state.
_FIXED: Final[dict[str, str]] = {
    "ACCESS.01": "leave by EEXIT first: code outside ELRANGE never runs in enclave mode",
    "ACCESS.02": "use a canonical address",
    "ACCESS.03": "leave by EEXIT first: code outside ELRANGE never runs in enclave mode",
    "ACCESS.04": "map /dev/sgx_enclave there: ELRANGE holds EPC pages only",
    "ACCESS.05": "touch it again after the kernel has unmapped the removed page",
    "ACCESS.07": "map this enclave's own descriptor there",
    "ACCESS.08": "map the page at its ENCLAVEADDRESS: a mapping that was moved is of no use",
    "ACCESS.09": "try again: the page is being evicted, the next fault loads it",
    "ACCESS.14": "end the code in front of the end of ELRANGE: no instruction may go over it",
    "ACCESS.13": "try again: only the old translation refused, and the exit has dropped it",
    "ACCESS.15": "set SSP by RSTORSSP: a shadow stack of the enclave lies in ELRANGE",
    "ACCESS.16": "a shadow stack is made of PT_SS_FIRST and PT_SS_REST pages (EADD or EAUG)",
    "ACCESS.17": "by CALL or WRSS: only shadow-stack accesses change a shadow stack",
    "PAGING.07": "the page table must map a shadow stack with R/W = 0 and D = 1",
    "CET.18": "shadow-stack pages are accepted with PENDING and nothing else",
    "CET.20": "begin with ENDBR64 where an indirect branch or EEXIT leads",
    "CET.21": "the kernel must set CR4.CET for an enclave with CET_ATTRIBUTES",
    "CET.22": "OCETSSA of the TCS must be a multiple of 16",
    **dict.fromkeys(
        ("CET.23", "CET.24"),
        "the CET state save area must be PT_SS_REST pages of the enclave, accepted, RW",
    ),
    "CODE.01": "the instruction is undefined, or the emulator lacks it: `--engine native` has more",
    "CODE.02": "move it out of the enclave: EEXIT, or let the exception handler emulate it",
    "CODE.03": "INT3 in an enclave entered with DBGOPTIN: for the debugger",
    "CODE.04": "an exception of the program's own: a handler inside, or the host, decides",
    "ENCLU.04": "set and lock IA32_FEATURE_CONTROL.SGX_ENABLE",
    "ENCLU.05": "ask CPUID leaf 12H first; `--sgx1` and --cpu-option take leaves away",
    "ENCLU.08": "EEXIT first: enclaves do not nest",
    "ENCLU.09": "EENTER first: this leaf is for use inside",
    "ENTRY.05": "SGX_IOC_ENCLAVE_INIT comes before the first EENTER",
    "ENTRY.09": "enable in XCR0 what SECS.XFRM asks for",
    "ENTRY.10": "set AEXNOTIFY in both TCS.FLAGS and SECS.ATTRIBUTES, or in neither",
    "EACCEPT.10": "set PENDING (after EAUG) or PR (after RESTRICT_PERMISSIONS) in SECINFO.FLAGS",
    "EACCEPT.09": "leave MODIFIED out: it goes with PT_TCS and PT_TRIM",
    "EACCEPT.11": "PT_TCS and PT_TRIM are accepted with MODIFIED and nothing else",
    "EACCEPT.12": "only PT_REG, PT_TCS and PT_TRIM can be accepted, with CET PT_SS_FIRST and"
    " PT_SS_REST",
    "EACCEPTCOPY.09": "ask for R as well: W without R does not exist",
    "EACCEPTCOPY.16": "the page must be as EAUG made it: RW, PENDING",
    **dict.fromkeys(("EENTER.01", "ERESUME.01"), "RBX is the address of a page, the TCS"),
    **dict.fromkeys(("EENTER.02", "ERESUME.02", "ENTRY.15"), "RCX, the AEP, must be canonical"),
    **dict.fromkeys(
        ("EENTER.03", "ERESUME.03"), "RBX must be a TCS page of an enclave that is mapped there"
    ),
    "EENTER.09": "no SSA frame is free: ERESUME what was interrupted, or build with more NSSA;"
    " for a page that becomes a TCS set NSSA first",
    "ERESUME.09": "nothing was interrupted on this TCS: EENTER",
    "EMODPE.16": "EMODPE(RW): W without R does not exist",
    "HOST.01": "map memory of the host there, readable",
    "HOST.02": "map memory of the host there, writable",
}

# What a page must hold before it becomes a TCS; afterwards nobody can write it.
_TCS_CONTENTS: Final[dict[str, str]] = {
    "EACCEPT.22": "all bytes behind the fields of the TCS to 0",
    "EACCEPT.23": "FLAGS.DBGOPTIN of the TCS to 0",
    "EACCEPT.24": "NSSA of the TCS above CSSA",
    "EACCEPT.25": "AEP of the TCS to 0",
    "EACCEPT.26": "STATE of the TCS to 0",
    "EACCEPT.27": "FSLIMIT and GSLIMIT of the TCS to whole pages (FFFH at the end)",
    "EACCEPT.28": "the reserved bits of FLAGS of the TCS to 0",
    "CET.19": "PREVSSP of the TCS to 0",
}
_BEFORE_EMODT: Final = (
    "while the page is PT_REG: MODIFY_TYPES(PT_TCS) takes its rights away. Trim it and start anew"
)
# Operands of ENCLU leaves that are written, and pages whose rights in the EPCM do not matter.
_WRITTEN: Final[dict[str, tuple[str, ...]]] = {
    "EENTER": ("RBX", "SSA"),
    "ERESUME": ("RBX", "SSA"),
    "EDECCSSA": ("SSA",),
    "EACCEPTCOPY": ("RCX",),
    "EGETKEY": ("RCX",),
    "EREPORT": ("RDX",),
}
_TARGETS: Final[dict[str, tuple[str, ...]]] = {
    "EENTER": ("RBX",),
    "ERESUME": ("RBX",),
    "EACCEPT": ("RCX",),
    "EACCEPTCOPY": ("RCX",),
    "EMODPE": ("RCX",),
}


def way_of_access(facts: Facts, access: int, rule: str) -> str:
    """The way out of a refused access."""
    to = f"to {_VERBS[access]} again: "
    if rule in _FIXED:
        return to + _FIXED[rule]
    if rule == "ACCESS.06":
        return to + _other_type(facts.word)
    right = _RIGHTS[access]
    if rule == "ACCESS.10":
        more = "" if facts.word & right else f", then {_extend(facts.word, right)}"
        return f"{to}EACCEPT({word_text(facts.word)}) from inside the enclave{more}"
    if rule == "ACCESS.11":
        return f"{to}EACCEPT({word_text(facts.word)}) from inside the enclave"
    if rule == "ACCESS.12":
        return f"{to}{_extend(facts.word, right)} from inside the enclave; {_area(facts, right)}"
    if rule.startswith("PAGING."):
        return to + _paging(facts, right)
    return ""


def _extend(word: int, right: int) -> str:
    """The EMODPE that gives a right; W needs R."""
    need = right if word & R or right != W else R | W
    return f"EMODPE({''.join(letter for bit, letter in _LETTERS.items() if need & bit)})"


def _area(facts: Facts, right: int) -> str:
    """What VMA and PTE need beside the EPCM."""
    if facts.vma is None or facts.vma.flags & right:
        return "VMA and PTE already allow it"
    return _mprotect(facts, right)


def _mprotect(facts: Facts, right: int) -> str:
    assert facts.vma is not None
    if right & ~facts.cap:
        added = "EAUG" if facts.entry is None else "ADD_PAGES or MODIFY_TYPES"
        return (
            f"mprotect refuses {_PROTS[right]} (-EACCES): the kernel's cap of the page is"
            f" {rwx_text(facts.cap)} since {added}; only a page added anew can have another"
        )
    prot = "|".join(name for bit, name in _PROTS.items() if (facts.vma.flags | right) & bit)
    return f"mprotect({facts.page:#x}, {PAGE_SIZE:#x}, {prot})"


def _other_type(word: int) -> str:
    kind = word & PT_MASK
    if kind == TCS and word & MODIFIED:
        return "it is to become a TCS: EACCEPT(TCS MODIFIED), then EENTER; no access reaches it"
    if kind == TCS:
        return "no access reaches a TCS; EENTER uses it"
    if kind == TRIM:
        accept = "EACCEPT(TRIM MODIFIED) from inside, " if word & MODIFIED else ""
        return f"{accept}REMOVE_PAGES by the host; the next touch adds a fresh page (EAUG)"
    assert kind in (SECS, VA)
    return "the page table leads to a page that only the processor uses: unmap it"


def _paging(facts: Facts, right: int, *, by_epcm: bool = True) -> str:
    """Ordinary paging refused: the area, or the driver behind it. `by_epcm`: the EPCM must give
    the right as well, which it need not for a page that a leaf changes or enters."""
    vma = facts.vma
    if facts.address >= TASK_SIZE:
        return "use an address of user space"
    if vma is None:
        return f"mmap /dev/sgx_enclave over {facts.page:#x} with {_PROTS[right]}"
    if not vma.flags & right:
        out = _mprotect(facts, right)
        lacks = facts.word & VALID and not facts.word & right and not right & ~facts.cap
        lacks = lacks and by_epcm
        return f"{out}, and {_extend(facts.word, right)} from inside" if lacks else out
    return _driver(facts, right)


def _driver(facts: Facts, right: int) -> str:
    """The area allows it, and the driver did not map the page."""
    kernel, vma = facts.history.machine.kernel, facts.vma
    assert vma is not None
    if facts.encl is None:
        return "map /dev/sgx_enclave anew: this area belongs to no enclave"
    if facts.entry is None:
        if not kernel.has_sgx2:
            return (
                "no page was added there, and without SGX2 none is on touch: ADD_PAGES before INIT"
            )
        if not facts.encl.flags & SGX_ENCL_INITIALIZED:
            return "SGX_IOC_ENCLAVE_INIT first: only then a touch adds a page"
        if not kernel.nr_free:
            return "EPC is exhausted and nothing can be evicted: a larger --epc, or fewer pages"
        return "the driver could not add a page there (EAUG)"
    if kernel.version.interface == "v2" and right & ~facts.entry.vm_run_prot_bits:
        letters = "".join(letter for bit, letter in _LETTERS.items() if right & bit)
        return f"RELAX_PERMISSIONS({letters}) by the host, and EMODPE({letters}) from inside"
    excess = vma.flags & ~facts.cap
    if excess:
        return (
            f"map it without {rwx_text(excess).replace('-', '').upper()}: the area is"
            f" {rwx_text(vma.flags)}, the kernel's cap of the page {rwx_text(facts.cap)}"
        )
    if not kernel.nr_free:
        return "EPC is exhausted and nothing can be evicted: a larger --epc, or fewer pages"
    return "the driver could not load the page"


def way_of_leaf(facts: Facts, leaf: str, rule: str, operand: str) -> str:
    """The way out of a refused ENCLU leaf; `operand` is the one that `facts` are about."""
    to = f"for {leaf} to succeed: "
    word = facts.word
    if rule in _FIXED:
        return to + _FIXED[rule]
    if rule in _TCS_CONTENTS:
        return f"{to}set {_TCS_CONTENTS[rule]} first, {_BEFORE_EMODT}"
    if rule.startswith("PAGING."):
        right = W if operand in _WRITTEN.get(leaf, ()) else R
        return to + _paging(facts, right, by_epcm=operand not in _TARGETS.get(leaf, ()))
    if rule == "EACCEPT.20":
        return to + _matching(word)
    if rule == "EACCEPT.21":
        return to + _untracked(facts)
    if rule == "ENTRY.14":
        return to + _holder(facts)
    if rule == "EACCEPTCOPY.12" and word & VALID and not word & (PENDING | MODIFIED | BLOCKED):
        return f"{to}the page must be as EAUG made it, PENDING: this one is {word_text(word)}"
    if rule.split(".")[0] in ("EACCEPT", "EMODPE", "EACCEPTCOPY") and facts.number >= 0:
        # EACCEPT itself is what a target that is PENDING or MODIFIED waits for.
        own = leaf == "EACCEPT" and operand == "RCX"
        out = _unacceptable(word) if own else _unusable(word)
        return to + out if out else ""
    if rule.startswith("FRAME."):
        return f"{to}the SSA frame must be REG pages of the enclave, accepted, RW"
    if rule in ("EENTER.07", "ERESUME.08"):
        return (
            f"{to}RBX must be the ENCLAVEADDRESS of a TCS page; a REG page becomes one by"
            " MODIFY_TYPES(PT_TCS) and EACCEPT(TCS MODIFIED)"
        )
    return ""


def _matching(word: int) -> str:
    if word & (PENDING | MODIFIED | PR):
        return f"SECINFO must be what the EPCM has: {word_text(word)}"
    return f"nothing is to be accepted: the page is {word_text(word)} already"


def _unacceptable(word: int) -> str:
    """What has to happen before anything can be done to a page in this state."""
    if not word & VALID:
        return "touch the page first: EAUG adds it"
    if word & BLOCKED:
        return "try again: the page is being evicted, the next fault loads it"
    return ""


def _unusable(word: int) -> str:
    """What has to happen before a leaf can work on a page in this state."""
    if _unacceptable(word):
        return _unacceptable(word)
    if word & PT_MASK == TRIM:
        return _other_type(word)
    if word & (PENDING | MODIFIED):
        return f"EACCEPT({word_text(word)}) first"
    return ""


def _inside(facts: Facts, secs: Secs, before: int) -> list[str]:
    """The threads that are inside since an epoch or longer."""
    history, out = facts.history, []
    for lp in facts.lp.processor.lps:
        if lp.secs is secs and lp.epoch <= before:
            seq, _ = history.entered.get(lp.id, (0, None))
            out.append(f"{history.who(lp.id)} (inside since event {seq})")
    return out


def _untracked(facts: Facts) -> str:
    processor = facts.lp.processor
    secs = processor.secs_of(facts.number)
    stamped = processor.epcm.stamp[facts.number]
    if secs is None or tracked(processor, secs, facts.number):
        return "try again: tracking is complete by now"
    who = ", ".join(_inside(facts, secs, stamped - 1)) or "nobody"
    if stamped > secs.EPOCH:
        return f"ETRACK is still due, then {who} must leave: accept when the ioctl is back"
    return f"{who} must leave the enclave, by an IPI of the kernel or EEXIT"


def _holder(facts: Facts) -> str:
    for lp in facts.lp.processor.lps:
        if lp.secs is not None and lp.tcs_address == facts.page:
            seq, _ = facts.history.entered.get(lp.id, (0, None))
            who = facts.history.who(lp.id)
            return f"another TCS, or wait: {who} is inside on this one since event {seq}"
    return "another TCS, or wait until this one is free"


def way_of_instruction(rule: str) -> str:
    """The way out of an instruction that was refused, or that raised an exception."""
    return f"to go on: {_FIXED[rule]}" if rule in _FIXED else ""


def fallback(text: str) -> str:
    """Where only the rule itself can say it."""
    return f"allowed as soon as this is not so: {text}"
