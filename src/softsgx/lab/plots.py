"""The plots of a comparison, by matplotlib: curves over N with their bands, and latencies.

The same comparison gives the same bytes: no date, no random ids. matplotlib is an optional
dependency (`softsgx[plots]`) and is imported when a plot is drawn.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.lab.compare import Comparison, Figures, Row
from softsgx.lab.measurement import QUANTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito: distinguishable with colour blindness.
_COLOURS: Final = ("#000000", "#999999", "#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#009E73")
_MARKERS: Final = "osv^DPX"
# Every second line is dashed: lines of designs that do not differ coincide.
_DASHES: Final = ("-", (0, (4, 3)))
_SETTINGS: Final[Any] = {
    "svg.hashsalt": "softsgx",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 120,
}

_NEXT: Final = 1000 - QUANTILES[-2]
_LABELS_MAX: Final = 8  # of processors, on the axis of a panel
_DECADES_FEW: Final = 2.5

KINDS: Final = ("svg", "png")


class Plot(NamedTuple):
    """One plot: a name for its files, a caption, and the two formats."""

    name: str
    caption: str
    svg: bytes
    png: bytes


def names(workloads: Iterable[str]) -> list[str]:
    """The names that plots of these workloads can have; there may be fewer plots."""
    return [name for workload in workloads for name in _of_workload(workload)]


def _of_workload(workload: str) -> tuple[str, str]:
    slug = workload.replace(":", "-").replace("/", "-")
    return f"lost-{slug}", f"faults-{slug}"


def plots(comparison: Comparison) -> Iterator[Plot]:
    """For each workload the time lost over N, and the latency of faults at the largest N."""
    import matplotlib as mpl

    plan = comparison.plan
    rows = [row for row in comparison.rows() if not row.reason]
    first = plan.profiles[0].name
    largest = max(plan.ns)
    with mpl.rc_context(_SETTINGS):
        for name in plan.workloads:
            mine = [row for row in rows if row.combination.workload == name]
            if not mine:
                continue
            lost, faults = _of_workload(name)
            caption = (
                f"{name}: time lost on all processors for each permission change, at {first} "
                f"prices; the bands reach over {_names(comparison)}"
            )
            yield _saved(lost, caption, _lost(comparison, mine))
            at_largest = [row for row in mine if row.combination.n == largest]
            if any(row.figures[first].m.latency for row in at_largest):
                caption = (
                    f"{name}, {largest} processors: latency of an innocent's page fault, "
                    f"{first} prices, from {_samples(at_largest, first)} faults each; a curve ends "
                    "where there are too few of them"
                )
                yield _saved(faults, caption, _latency(comparison, at_largest))


def _samples(rows: Sequence[Row], profile: str) -> str:
    faults = [row.figures[profile].m.faults for row in rows]
    return f"{min(faults)} to {max(faults)}"


def _names(comparison: Comparison) -> str:
    return ", ".join(profile.name for profile in comparison.plan.profiles)


def _saved(name: str, caption: str, figure: Figure) -> Plot:
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", metadata={"Software": None})
    return Plot(name, caption, svg.getvalue(), png.getvalue())


def _panels(comparison: Comparison, x: str, y: str) -> tuple[Figure, dict[str, Axes]]:
    """One panel for each runtime, side by side."""
    from matplotlib.figure import Figure

    runtimes = comparison.plan.runtimes
    figure = Figure(figsize=(3.7 * len(runtimes) + 0.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(runtimes), sharey=True, squeeze=False)[0]
    for ax, runtime in zip(axes, runtimes, strict=True):
        ax.set_title(runtime)
        ax.set_xlabel(x)
    axes[0].set_ylabel(y)
    return figure, dict(zip(runtimes, axes, strict=True))


def _legend(figure: Figure, axes: dict[str, Axes]) -> None:
    """One legend with the designs of all panels."""
    handles: dict[str, Any] = {}
    for ax in axes.values():
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            [*handles.values()], [*handles], loc="outside upper center", ncols=len(handles)
        )


def look(comparison: Comparison, design: str) -> tuple[str, bool]:
    """The colour of a design in every plot, and whether its line is dashed."""
    at = comparison.plan.designs.index(design)
    return _COLOURS[at % len(_COLOURS)], at % len(_COLOURS) % 2 == 1


def _style(comparison: Comparison, design: str) -> dict[str, Any]:
    at = comparison.plan.designs.index(design) % len(_COLOURS)
    return {
        "color": _COLOURS[at],
        "marker": _MARKERS[at],
        "markersize": 4,
        "linestyle": _DASHES[at % 2],
        "label": design,
    }


def _lost(comparison: Comparison, rows: Sequence[Row]) -> Figure:
    figure, axes = _panels(comparison, "logical processors", "us lost per change")
    plan = comparison.plan
    for runtime, ax in axes.items():
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ticks = apart(plan.ns)
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.minorticks_off()
        missing = []
        for design in plan.designs:
            line = [
                row
                for row in rows
                if (row.combination.runtime, row.combination.design) == (runtime, design)
            ]
            if not line:
                missing.append(design)
                continue
            ns = [row.combination.n for row in line]
            bands = [[_us(comparison, f) for f in row.figures.values()] for row in line]
            style = _style(comparison, design)
            ax.plot(ns, [band[0] for band in bands], **style)
            low, high = [min(band) for band in bands], [max(band) for band in bands]
            ax.fill_between(ns, low, high, color=style["color"], alpha=0.08, linewidth=0)
        _say(ax, "cannot work", missing)
    _decades(next(iter(axes.values())).yaxis)
    _legend(figure, axes)
    return figure


def apart(ns: Sequence[int]) -> list[int]:
    """Those of the numbers, ascending, whose labels do not collide on a logarithmic axis."""
    least = (ns[-1] / ns[0]) ** (1 / _LABELS_MAX)
    found = [ns[-1]]
    for n in reversed(ns[:-1]):
        if found[-1] >= n * max(least, 1.01):
            found.append(n)
    return found[::-1]


def _decades(axis: Axis) -> None:
    """Labels of a logarithmic axis: the more, the fewer decades there are; none between them."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < _DECADES_FEW else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _say(ax: Axes, what: str, designs: Sequence[str]) -> None:
    """Name designs that a panel does not show, under its axis."""
    if designs:
        names = textwrap.fill(", ".join(designs), 44, break_on_hyphens=False)
        ax.set_xlabel(f"{ax.get_xlabel()}\n{what}: {names}", fontsize=8)


def _us(comparison: Comparison, f: Figures) -> float:
    """Lost time in us, at least a nanosecond: the axis is logarithmic."""
    profile = next(p for p in comparison.plan.profiles if p.name == f.m.profile)
    return max(profile.us(f.lost), 1e-3)


def _latency(comparison: Comparison, rows: Sequence[Row]) -> Figure:
    figure, axes = _panels(comparison, "us", "part of the faults that took longer")
    profile = comparison.plan.profiles[0]
    for row in rows:
        ax = axes[row.combination.runtime]
        latencies = row.figures[profile.name].m.latencies
        known = [(q, c) for q, c in zip(QUANTILES, latencies, strict=False) if c is not None]
        if 1000 - _NEXT not in dict(known):
            known = known[:-1]  # the greatest of so few says nothing about one in a thousand
        if known:
            longer = [max(1 - q / 1000, 0.5e-3) for q, _ in known]
            style = {**_style(comparison, row.combination.design), "marker": ""}
            us = [profile.us(c) for _, c in known]
            ax.plot(us, longer, drawstyle="steps-post", **style)
    for runtime, ax in axes.items():
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(0.5e-3, 1.1)
        _decades(ax.xaxis)
        _decades(ax.yaxis)
        works = {r.combination.design for r in rows if r.combination.runtime == runtime}
        _say(ax, "cannot work", [name for name in comparison.plan.designs if name not in works])
    _legend(figure, axes)
    return figure
