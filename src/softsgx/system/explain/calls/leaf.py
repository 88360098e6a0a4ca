"""An ENCLS leaf of the driver was refused."""

from __future__ import annotations

from typing import Final

from softsgx.events import cpu as c
from softsgx.linux.refusals import function_of
from softsgx.report.explanation import Explanation, Layer
from softsgx.report.fields import end_text
from softsgx.spec.rules import RULES
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PAGE_NOT_MODIFIABLE, SGX_UNMASKED_EVENT
from softsgx.system.explain.calls.add_pages import tcs_layers
from softsgx.system.explain.calls.advice import ADVICE
from softsgx.system.explain.calls.create import SECS_RULES, secs_layers
from softsgx.system.explain.calls.einit import sigstruct_layers
from softsgx.system.explain.calls.refused_call import RefusedCall
from softsgx.system.explain.facts import look
from softsgx.system.explain.history import RefusedLeaf

# Launch control, which a driver that writes the hash MSRs hides from programs.
_LAUNCH: Final = {
    "EINIT.14": "sign with the key whose hash is in IA32_SGXLEPUBKEYHASH, or leave out"
    " ATTRIBUTES.EINITTOKENKEY",
    "EINIT.17": "write SHA-256 of MODULUS to IA32_SGXLEPUBKEYHASH, or pass a token from that"
    " signer",
}
_TOKEN: Final = "pass a token made for this enclave on this processor, or none (VALID = 0)"
_DUE: Final = "EACCEPT the pending change from inside the enclave"


def explain_leaf(call: RefusedCall, refused: RefusedLeaf) -> Explanation:
    """The leaf, how it ended, and what the EPCM says of its page."""
    e = refused.event
    number, layer = _page(call, e)
    found = _operands(call, refused, number)
    key: tuple[object, ...] = (e.rule, call.event.name, number)
    if found is None:
        layers, way = [layer] if layer is not None else [], _way(call, e)
    else:
        layers, way = found
        key = (e.rule, call.event.name, *layers)
    text = RULES.get(e.rule, e.rule)
    return Explanation(
        event=call.history.log.seq,
        headline=f"{call.context} refused: {call.errno}; {e.leaf}: {end_text(e)} ({e.rule})",
        rule=e.rule,
        rule_text=f"{text} ({function_of(call.refusal.rule)})",
        key=key,
        layers=layers,
        advice=call.to_succeed(way),
    )


def _operands(call: RefusedCall, refused: RefusedLeaf, page: int) -> tuple[list[Layer], str] | None:
    """Layers and advice for a leaf that was refused for the contents of its operands."""
    e, processor = refused.event, call.kernel.processor
    if e.leaf == "ECREATE" and e.rule in SECS_RULES:
        return secs_layers(call, refused.operands)
    if e.leaf == "EADD":
        return tcs_layers(call, e.rule, refused.operands)
    if e.leaf == "EINIT" and isinstance(e, c.LeafDone):
        if e.status == SGX_UNMASKED_EVENT:
            return [], "try again: an event was pending on this processor each time"
        layers, way = sigstruct_layers(call, refused.operands, processor.secs[page])
        return layers, way or _LAUNCH.get(e.rule, _TOKEN)
    return None


def _page(call: RefusedCall, e: c.LeafDone | c.LeafFaulted) -> tuple[int, Layer | None]:
    """The EPC page of RCX: its number, and its EPCM entry."""
    history = call.history
    processor = history.processor
    lp = processor.lps[e.lp]
    number = lp.system_epc_page(e.rcx) if e.rcx >> 63 else -1
    if number < 0:
        return number, None
    facts = look(history, lp, processor.epcm.address[number])
    facts.number, facts.word = number, processor.epcm.state[number]
    return number, facts.epcm_layer()


def _way(call: RefusedCall, e: c.LeafDone | c.LeafFaulted) -> str:
    if isinstance(e, c.LeafDone) and e.status == SGX_PAGE_NOT_MODIFIABLE:
        return _DUE
    if isinstance(e, c.LeafDone) and e.status == SGX_EPC_PAGE_CONFLICT:
        return "try again: another leaf works on the page at this moment"
    way = ADVICE[call.refusal.rule]
    return way if isinstance(way, str) else way(call)
