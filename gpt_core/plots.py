"""The two plots of a run, redrawn from its curves while it trains."""

import gc
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gpt_core.curves import Curves
from gpt_core.files import new_file


def draw(curves: Curves, folder: Path) -> None:
    """Writes loss.png and grad_norm.png into `folder`."""
    folder.mkdir(exist_ok=True)
    _save(loss_figure(curves), folder / "loss.png")
    _save(grad_norm_figure(curves), folder / "grad_norm.png")
    gc.collect()  # figures refer to themselves: until Python looked for such cycles a run would hold 140 MiB of old ones


def loss_figure(curves: Curves) -> Figure:
    """Training loss, faint, with its running mean, and validation loss."""
    figure, axes = _axes("loss (nats a token)")
    steps, losses, means = curves.loss.columns() or ([], [], [])
    each = "each step" if curves.loss.stride == 1 else f"one step in {curves.loss.stride}"
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label=f"train, {each}")
    axes.plot(steps, means, color="tab:blue", linewidth=1.6, label="train, running mean")
    steps, validated = curves.validation.columns() or ([], [])
    axes.plot(steps, validated, color="tab:orange", marker="o", markersize=3, label="validation")
    axes.legend(frameon=False)
    return figure


def grad_norm_figure(curves: Curves) -> Figure:
    """Global gradient norm before and after clipping, on a logarithmic axis; of many steps the largest."""
    figure, axes = _axes("global gradient norm")
    steps, before, after = curves.norm.columns() or ([], [], [])
    axes.plot(steps, before, color="tab:red", linewidth=0.8, label="before clipping")
    axes.plot(steps, after, color="tab:green", linewidth=0.8, label="after clipping")
    norms = [norm for norm in before if norm > 0]
    if norms:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # 0.6 and 2, where the default has 6 x 10^-1
        axes.yaxis.set_minor_formatter("{x:g}" if max(norms) < 20 * min(norms) else NullFormatter())
    axes.legend(frameon=False)
    return figure


def _axes(label: str):  # type: ignore[no-untyped-def]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with new_file(path) as beside:
        figure.savefig(beside, dpi=120, format="png")
