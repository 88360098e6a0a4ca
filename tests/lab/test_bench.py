"""One combination on the bench: relations that its counts and times must satisfy."""

import pytest

from softsgx.lab.bench import NO_CHANGE, Combination, measure
from softsgx.lab.designs import DESIGNS
from softsgx.lab.measurement import QUANTILES, Measurement, others_lost, quantile, throughput_lost
from softsgx.lab.prices import PROFILES
from softsgx.lab.runtimes import RUNTIMES
from softsgx.lab.workloads import WORKLOADS, workload

DEFAULT = PROFILES["default"]


def run(
    design: str, runtime: str = "enarx", name: str = "relro", n: int = 4, seed: int = 1
) -> Measurement:
    return measure(Combination(design, runtime, name, n), workload(name), DEFAULT, seed)


def test_the_same_seed_gives_the_same_measurement() -> None:
    assert run("ioctl") == run("ioctl")
    assert run("ioctl", seed=2) != run("ioctl")


def test_the_ioctl_costs_one_emodpr_and_one_etrack_a_page() -> None:
    m = run("ioctl")
    assert not m.reason
    # The EACCEPT of a fresh page faults first, and is executed again.
    accepted = m.counts["EACCEPT"] - 2 * m.faults
    assert m.counts["EMODPR"] == m.counts["ETRACK"] == accepted == m.pages
    # And a broadcast each, besides one for each mprotect().
    assert m.counts["ipi"] == m.pages + m.changes


def test_the_batched_ioctl_tracks_once_a_call() -> None:
    m = run("ioctl-batched")
    assert (m.counts["EMODPR"], m.counts["ETRACK"]) == (m.pages, m.changes)


def test_faults_restrict_once_a_page_and_interrupt_as_often_as_the_ioctl() -> None:
    once, ioctl = run("fault-once"), run("ioctl")
    assert once.counts["EMODPR"] == ioctl.counts["EMODPR"]
    assert once.per_change("irq") == ioctl.per_change("irq")
    assert once.counts["fault"] > ioctl.counts["fault"]


def test_one_call_does_where_the_ioctl_needs_two() -> None:
    calls = {design: run(design).per_change("syscall") for design in ("ioctl", "mprotect-read")}
    assert calls == {"ioctl": 2.0, "mprotect-read": 1.0}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_order_can_toggle_writes_in_v2(runtime: str) -> None:
    """RELAX must come before mprotect(), which is -EACCES otherwise: the kernel mirrors rights."""
    m = run("ioctl-v2", runtime, "cow")
    assert not m.reason
    assert m.changes


def test_interrupts_reach_every_other_processor() -> None:
    for n in (2, 5):
        m = run("ioctl", n=n)
        assert m.per_change("irq") * m.changes == (n - 1) * m.counts["ipi"]


def test_one_processor_has_no_innocents() -> None:
    m = run("ioctl", n=1)
    assert (m.faults, m.latency, m.utilisation, m.counts.get("irq")) == (0, (), None, None)
    assert throughput_lost(m, run(NO_CHANGE, NO_CHANGE, n=1)) is None
    assert m.caller > 0


def test_changes_cost_the_innocents_work_and_none_cost_nothing() -> None:
    base = run(NO_CHANGE, NO_CHANGE, "cow", 8)
    assert (base.changes, base.counts.get("EMODPR")) == (0, None)
    lost = {d: others_lost(run(d, name="cow", n=8), base) for d in ("ioctl", "ioctl-batched")}
    assert lost["ioctl"] > lost["ioctl-batched"] > 0


def test_areas_are_split_and_never_merged() -> None:
    assert run("ioctl", name="stacks", runtime="gramine", n=2).vmas > 10


@pytest.mark.parametrize(
    ("design", "runtime", "name", "reason"),
    [
        ("ioctl-v2", "gramine", "jit", "-EPERM"),
        ("mprotect-read", "gramine", "jit", "SGX_PAGE_ATTRIBUTES_MISMATCH"),
        ("fault-once", "gramine", "cow", "SGX_PAGE_ATTRIBUTES_MISMATCH"),
        ("mprotect-prot", "intel-emm", "gc", "EACCEPT of page 0 refused by the kernel"),
        ("ioctl", "enarx", "stacks", "enarx, asked for ---, keeps r--"),
        ("ioctl-v2", "gramine", "gc", "not modelled: V2: an entry with no rights"),
    ],
)
def test_what_cannot_work_says_what_it_met(
    design: str, runtime: str, name: str, reason: str
) -> None:
    assert reason in run(design, runtime, name).reason


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("design", DESIGNS)
def test_every_combination_ends_in_figures_or_a_reason(
    design: str, runtime: str, name: str
) -> None:
    m = run(design, runtime, name, 2)
    assert m.reason or (m.changes > 0 and m.caller > 0)


def test_256_processors() -> None:
    m = run("ioctl", name="stacks", runtime="intel-emm", n=256)
    assert not m.reason
    assert m.counts["irq"] == 255 * m.counts["ipi"]


def test_quantiles_are_by_nearest_rank() -> None:
    assert [quantile([1, 2, 3, 4], q) for q in (0, 250, 251, 500, 999, 1000)] == [1, 1, 2, 2, 4, 4]
    assert QUANTILES[0] == 0
    assert QUANTILES[-1] == 1000
