"""The plots of a comparison, by matplotlib: curves over N with their bands, and latencies.

The same comparison gives the same bytes: no date, no random ids. matplotlib is an optional
dependency (`softsgx[plots]`) and is imported when a plot is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from softsgx.lab.compare import Comparison, Figures, Row
from softsgx.lab.measurement import QUANTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
                    f"{first} prices"
                )
                yield _saved(faults, caption, _latency(comparison, at_largest))


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
    figure = Figure(figsize=(3.4 * len(runtimes) + 1.6, 3.4), layout="constrained")
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
        figure.legend([*handles.values()], [*handles], loc="outside right center")


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
        ax.set_xticks(plan.ns, [str(n) for n in plan.ns])
        for design in plan.designs:
            line = [
                row
                for row in rows
                if (row.combination.runtime, row.combination.design) == (runtime, design)
            ]
            if not line:
                continue
            ns = [row.combination.n for row in line]
            bands = [[_us(comparison, f) for f in row.figures.values()] for row in line]
            style = _style(comparison, design)
            ax.plot(ns, [band[0] for band in bands], **style)
            low, high = [min(band) for band in bands], [max(band) for band in bands]
            ax.fill_between(ns, low, high, color=style["color"], alpha=0.08, linewidth=0)
    _legend(figure, axes)
    return figure


def _us(comparison: Comparison, f: Figures) -> float:
    """Lost time in us, at least a nanosecond: the axis is logarithmic."""
    profile = next(p for p in comparison.plan.profiles if p.name == f.m.profile)
    return max(profile.us(f.lost), 1e-3)


def _latency(comparison: Comparison, rows: Sequence[Row]) -> Figure:
    figure, axes = _panels(comparison, "us", "part of the faults that took longer")
    profile = comparison.plan.profiles[0]
    for row in rows:
        ax = axes[row.combination.runtime]
        latency = row.figures[profile.name].m.latency
        if latency:
            longer = [max(1 - q / 1000, 0.5e-3) for q in QUANTILES]
            style = {**_style(comparison, row.combination.design), "marker": ""}
            ax.plot([profile.us(c) for c in latency], longer, drawstyle="steps-post", **style)
    for ax in axes.values():
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(0.5e-3, 1.1)
        for axis_format in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
            axis_format("{x:g}")
        ax.tick_params(axis="x", which="both", labelsize=7)
    _legend(figure, axes)
    return figure
