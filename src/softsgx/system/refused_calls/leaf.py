"""An ENCLS that the driver executed ended otherwise than the driver wanted."""

from __future__ import annotations

from typing import Final

from softsgx.linux.refusals import function_of
from softsgx.report.explanation import Explanation, Layer
from softsgx.report.fields import errno_or_value, exception_text, status_text
from softsgx.sim import cpu_events as c
from softsgx.spec.rules import RULES
from softsgx.spec.status import SGX_EPC_PAGE_CONFLICT, SGX_PAGE_NOT_MODIFIABLE
from softsgx.system.facts import look
from softsgx.system.history import RefusedLeaf
from softsgx.system.refused_calls.asked import Asked
from softsgx.system.refused_calls.ways import WAYS

_DUE: Final = "EACCEPT of what is due, from inside the enclave"


def explain_leaf(asked: Asked, refused: RefusedLeaf) -> Explanation:
    """The leaf, how it ended, and what the EPCM says of its page."""
    e = refused.event
    end = status_text(e.status) if isinstance(e, c.LeafDone) else exception_text(e.vector, e.code)
    number, layer = _page(asked, e)
    layers = [layer] if layer is not None else []
    text = RULES.get(e.rule, e.rule)
    return Explanation(
        event=asked.history.log.seq,
        headline=f"{asked.context} refused: {errno_or_value(asked.event.result)};"
        f" {e.leaf}: {end} ({e.rule})",
        rule=e.rule,
        rule_text=f"{text} ({function_of(asked.refusal.rule)})",
        key=(e.rule, asked.event.name, number),
        layers=layers,
        way=asked.to_succeed(_way(asked, e)),
    )


def _page(asked: Asked, e: c.LeafDone | c.LeafFaulted) -> tuple[int, Layer | None]:
    """The EPC page of RCX: its number, and its EPCM entry."""
    history = asked.history
    processor = history.machine.processor
    lp = processor.lps[e.lp]
    number = lp.system_epc_page(e.rcx) if e.rcx >> 63 else -1
    if number < 0:
        return number, None
    facts = look(history, lp, processor.epcm.address[number])
    facts.number, facts.word = number, processor.epcm.state[number]
    return number, facts.epcm_layer()


def _way(asked: Asked, e: c.LeafDone | c.LeafFaulted) -> str:
    if isinstance(e, c.LeafDone) and e.status == SGX_PAGE_NOT_MODIFIABLE:
        return _DUE
    if isinstance(e, c.LeafDone) and e.status == SGX_EPC_PAGE_CONFLICT:
        return "try again: another leaf works on the page at this moment"
    way = WAYS[asked.refusal.rule]
    return way if isinstance(way, str) else way(asked)
