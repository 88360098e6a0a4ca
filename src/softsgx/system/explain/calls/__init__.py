"""Why a call on enclave memory failed: a leaf that was refused, or a rule of the kernel's own.

The kernel names the rule by which it refuses (`linux.refusals`), and what was asked; here that
becomes an explanation, with what would be permitted, and advice.
"""

from __future__ import annotations

from typing import Final

from softsgx.events import kernel as k
from softsgx.linux.refusals import REFUSALS, function_of, leaf_of
from softsgx.report.explanation import Explanation, Layer
from softsgx.report.fields import SHORT, errno_or_value, number
from softsgx.spec.epcm import rwx_text
from softsgx.system.explain.calls.advice import ADVICE
from softsgx.system.explain.calls.einit import sigstruct_layers
from softsgx.system.explain.calls.leaf import explain_leaf
from softsgx.system.explain.calls.refused_call import RefusedCall
from softsgx.system.explain.history import Context, History

_WHO: Final = (("sgx_", "the driver"), ("__sgx_", "the driver"), ("__vdso_", "the vDSO"))
# Fields that have layers of their own.
_SHOWN_ALONE: Final = frozenset({"prot", "cap", "address", "may", "secs", "sigstruct"})


def explain_call(history: History, e: k.CallEnded) -> Explanation | None:
    """The explanation of a call that returned an errno."""
    context = history.busy(e.cpu)
    if context is None:
        return None
    refusal = context.refusal
    if refusal is None:
        return _unnamed(history, e, context)
    call = RefusedCall(history, e, context, refusal)
    leaf = (context.leaves or {}).get(leaf_of(refusal.rule))
    if leaf is not None:
        return explain_leaf(call, leaf)
    return _kernel(call)


def _kernel(call: RefusedCall) -> Explanation:
    """The kernel refused, not a leaf."""
    rule, errno = call.refusal.rule, call.errno
    by = next((who for prefix, who in _WHO if rule.startswith(prefix)), "the kernel")
    layers = _layers(call)
    if call.context.sigstruct:
        secs = call.kernel.processor.secs[call.fields["secs"]]
        more, way = sigstruct_layers(call, call.context.sigstruct, secs)
        layers += more
    else:
        found = ADVICE[rule]
        way = found if isinstance(found, str) else found(call)
    way = _not_injected(call.context) or way
    return Explanation(
        event=call.history.log.seq,
        headline=f"{call.context} refused by {by}: {errno}",
        rule=rule,
        rule_text=f"{REFUSALS[rule]} ({function_of(rule)})",
        key=(rule, call.event.name, call.refusal.fields),
        layers=layers,
        advice=call.to_succeed(way),
    )


def _not_injected(context: Context) -> str:
    """Advice, if the call was made to fail."""
    found = context.injected
    return "" if found is None else f"leave out --inject {found.site}, which made it fail"


def _layers(call: RefusedCall) -> list[Layer]:
    """What was asked, and what is permitted."""
    fields = call.fields
    found = []
    if "cap" in fields:
        at = f"of the page at {fields['address']:#x} since it was added"
        if "prot" in fields:
            found.append(Layer("want", rwx_text(fields["prot"]), ""))
        found.append(Layer("cap", rwx_text(fields["cap"]), at))
    elif "may" in fields:
        found.append(Layer("want", rwx_text(fields["prot"]), ""))
        found.append(Layer("may", rwx_text(fields["may"]), f"the area at {fields['address']:#x}"))
    elif "address" in fields and "size" not in fields:
        found.append(Layer("page", f"{fields['address']:#x}", ""))
    alone = _SHOWN_ALONE if found else _SHOWN_ALONE - {"address"}
    rest = [f"{n}={number(n, v)}" for n, v in fields.items() if n not in alone]
    if rest:
        found.append(Layer("asked", ", ".join(rest), ""))
    return found


def _unnamed(history: History, e: k.CallEnded, context: Context) -> Explanation:
    """A permission design that is not Linux refused, and named no rule."""
    name = e.name.removeprefix(SHORT)
    return Explanation(
        event=history.log.seq,
        headline=f"{context} refused by the kernel: {errno_or_value(e.result)}",
        rule=name,
        rule_text=f"{name} failed, and no rule of Linux 6.12 was named",
        key=(name, e.result),
        advice=_not_injected(context),
    )
