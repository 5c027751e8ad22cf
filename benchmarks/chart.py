"""Bar charts of results and of the roofline."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.rows import Row

if TYPE_CHECKING:
    from benchmarks.growth import Point
    from benchmarks.roofline import Prediction
    from benchmarks.scaling import Scaled

TITLES = {
    ("train", "tok/s"): "training (tok/s)",
    ("prefill", "tok/s"): "prefill, batch 1 (tok/s)",
    ("decode", "tok/s"): "decode, batch 1, KV cache (tok/s)",
    ("data", "rows/s"): "data_prep by stage (rows/s, logarithmic axis)",
}
COLORS = {"mlx": "tab:orange", "torch": "tab:blue"}
OTHER = "0.6"
PART_COLORS = ("tab:blue", "tab:cyan", "tab:orange", "tab:red", "0.6", "0.35", "tab:green")


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """One panel for each kind of rate that was measured; whiskers reach from the slowest to the fastest trial."""
    panels = {key: [row for row in rows if (row.part, row.unit) == key] for key in TITLES}
    panels = {key: found for key, found in panels.items() if found}
    heights = [0.8 + 0.36 * len(found) for found in panels.values()]
    figure = Figure(figsize=(8, 0.6 + sum(heights)), layout=ConstrainedLayoutEngine(hspace=0.06))
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (key, found) in zip(axes, panels.items(), strict=True):
        _bars(axis, found, logarithmic=key[0] == "data")
        axis.set_title(TITLES[key], loc="left", fontsize=10)
    save(figure, path)


def _bars(axis, rows: Sequence[Row], logarithmic: bool) -> None:  # type: ignore[no-untyped-def]
    places = range(len(rows))
    rates = [row.rate for row in rows]
    whiskers = [[r.median - r.low for r in rates], [r.high - r.median for r in rates]]
    colors = [COLORS.get(row.details.get("engine", ""), OTHER) for row in rows]
    medians, line = [r.median for r in rates], {"ecolor": "black", "elinewidth": 1, "capsize": 3}
    if logarithmic:  # such an axis has no zero for a bar to start from
        axis.errorbar(medians, places, xerr=whiskers, fmt="o", color="black", **line)
        axis.set_xscale("log")
    else:
        axis.barh(places, medians, xerr=whiskers, color=colors, height=0.7, error_kw=line)
        axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set_xlim(right=max(r.high for r in rates) * (4 if logarithmic else 1.15))
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_yticks(places, [row.name for row in rows])
    axis.invert_yaxis()
    for place, r in zip(places, rates, strict=True):
        axis.annotate(f"{r.median:,.0f}", (r.high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", alpha=0.25)


def draw_roofline(predictions: Sequence["Prediction"], path: Path) -> None:
    """Stacked parts of the bound of each chip, the expected step, and the reference run's measured one."""
    from benchmarks.roofline import REFERENCE_CHIP, REFERENCE_MS

    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    places = range(len(predictions))
    left = [0.0] * len(predictions)
    for name, color in zip(predictions[0].part_ms, PART_COLORS, strict=True):
        widths = [p.part_ms[name] for p in predictions]
        axis.barh(places, widths, left=left, color=color, height=0.7, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.scatter([p.expected_ms for p in predictions], places, marker="|", s=160, color="black", label="expected", zorder=3)
    row = [p.chip for p in predictions].index(REFERENCE_CHIP)
    axis.scatter([REFERENCE_MS], [row], marker="*", s=110, color="black", label="measured (reference run)", zorder=3)
    for place, p in zip(places, predictions, strict=True):
        measured = f"; measured {REFERENCE_MS:.0f} ms" if place == row else ""
        axis.annotate(
            f"expected {p.expected_ms:,.0f} ms, MFU {p.expected_mfu_pct:.0f} %{measured}",
            (max(p.expected_ms, REFERENCE_MS if place == row else 0), place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(places, [p.chip for p in predictions])
    axis.invert_yaxis()
    axis.set_xlim(right=1.35 * max(p.expected_ms for p in predictions))
    axis.set_xlabel("ms a step of 2,048 tokens, float32")
    axis.set_title("Preset seed: predicted from FLOPs and bytes, not measured; bars at nominal peaks", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, path)


def draw_growth(points: Sequence["Point"], title: str, path: Path) -> None:
    """A panel an axis: tok/s measured, with whiskers, and as they would be if cost grew only as the FLOPs a token do."""
    axes = list(dict.fromkeys(point.axis for point in points))
    figure = Figure(figsize=(3.6 * len(axes) + 0.6, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, len(axes), squeeze=False, sharey=True)[0]
    for panel, axis in zip(panels, axes, strict=True):
        found = [point for point in points if point.axis == axis]
        places, rates = [point.value for point in found], [point.tokens_per_s for point in found]
        medians = [rate.median for rate in rates]
        whiskers = [[r.median - r.low for r in rates], [r.high - r.median for r in rates]]
        color = COLORS[found[0].twin]
        panel.plot(places, [p.tokens_per_s.median / p.of_flops for p in found], "--", color=OTHER, label="as FLOPs grow")
        panel.errorbar(places, medians, yerr=whiskers, marker="o", capsize=3, color=color, label="measured")
        for place, median in zip(places, medians, strict=True):
            panel.annotate(
                f"{median:,.0f}", (place, median), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8
            )
        panel.set_xscale("log", base=2)
        panel.set_xticks(places, [str(place) for place in places])
        panel.minorticks_off()
        panel.margins(x=0.12)
        panel.set_title(axis, loc="left", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    panels[0].set_ylim(0, 1.2 * max(point.tokens_per_s.high for point in points))
    panels[0].yaxis.set_major_formatter("{x:,.0f}")
    panels[0].set_ylabel("tok/s")
    panels[0].legend(frameon=False, fontsize=8)
    save(figure, path)


def draw_scaling(rows: Sequence["Scaled"], title: str, path: Path) -> None:
    """Tokens a second of each twin over its ranks; whiskers from the slowest to the fastest trial."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for twin in dict.fromkeys(row.twin for row in rows):
        found = [row for row in rows if row.twin == twin]
        counts, speeds = [row.ranks for row in found], [row.tokens_per_s for row in found]
        medians = [speed.median for speed in speeds]
        whiskers = [[s.median - s.low for s in speeds], [s.high - s.median for s in speeds]]
        axis.errorbar(counts, medians, yerr=whiskers, marker="o", capsize=3, color=COLORS[twin], label=twin)
        for row in found:
            text = f"{row.tokens_per_s.median:,.0f}"
            axis.annotate(text, (row.ranks, row.tokens_per_s.median), xytext=(0, 7), textcoords="offset points", ha="center")
    axis.set_xticks(sorted({row.ranks for row in rows}))
    axis.set_xlabel("ranks")
    axis.set_ylabel("tok/s, all ranks")
    axis.set_ylim(0, 1.15 * max(row.tokens_per_s.high for row in rows))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG in one move."""
    beside = path.with_suffix(".tmp.png")
    figure.savefig(beside, dpi=120)
    beside.replace(path)
