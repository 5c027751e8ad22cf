"""The plots of the report."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compare import tolerances
from compare.curves import Curves
from compare.runs import FinishedRun, Runs
from compare.setup import HALF
from gpt_core.curves import running_mean

COLOURS = ("#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#5f3dc4", "#a61e4d")
SMALLEST = 1e-8
"""What equal numbers are drawn as on a logarithmic axis."""


def draw(curves: Curves, runs: Runs | None, folder: Path) -> list[tuple[str, str, bytes]]:
    """Writes the PNGs into `folder`; name, caption and bytes of each."""
    figures = [
        ("losses.png", "Training loss of both twins, and how far apart the curves are", _losses(curves)),
        ("grad_norms.png", "Global gradient norm before clipping", _norms(curves)),
    ]
    if runs:
        figures.append(("runs_loss.png", "Training loss of the finished runs, running mean", _run_losses(runs.losses)))
        figures.append(("runs_bpb.png", "Bits a byte on validation rows", _run_bits(runs.all)))
    drawn = []
    for name, caption, figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=130, format="png")
        (folder / name).write_bytes(buffer.getvalue())
        drawn.append((name, caption, buffer.getvalue()))
    return drawn


def _losses(curves: Curves) -> Figure:
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps = np.arange(1, len(curves.torch.losses) + 1)
    above.plot(steps, curves.torch.losses, color=COLOURS[0], linewidth=5, alpha=0.35, label="PyTorch")
    above.plot(steps, curves.mlx.losses, color=COLOURS[1], linewidth=1.4, label="MLX")
    _finish(above, "", "loss (nats a token)")
    pairs = (
        ("MLX - PyTorch", curves.mlx.losses, curves.torch.losses, COLOURS[1]),
        (f"PyTorch to step {HALF}, then MLX", curves.torch_then_mlx.losses, curves.torch.losses[HALF:], COLOURS[2]),
        (f"MLX to step {HALF}, then PyTorch", curves.mlx_then_torch.losses, curves.torch.losses[HALF:], COLOURS[3]),
        ("PyTorch, weights moved by 1e-7", curves.perturbed.losses, curves.torch.losses, "#868e96"),
    )
    for label, a, b, colour in pairs:
        apart = np.maximum.accumulate(np.maximum(np.abs(a - b), SMALLEST))
        below.plot(steps[-len(apart) :], apart, color=colour, linewidth=1.2, label=label)
    below.axhline(tolerances.CURVE_LOSS, color="black", linestyle="--", linewidth=1, label="limit")
    below.set_yscale("log")
    below.set_ylim(SMALLEST / 2, tolerances.CURVE_LOSS * 1e3)
    _finish(below, "optimizer step", "largest difference so far")
    return figure


def _norms(curves: Curves) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(curves.torch.norms) + 1)
    axes.plot(steps, curves.torch.norms, color=COLOURS[0], linewidth=5, alpha=0.35, label="PyTorch")
    axes.plot(steps, curves.mlx.norms, color=COLOURS[1], linewidth=1.4, label="MLX")
    _finish(axes, "optimizer step", "gradient norm")
    return figure


def _run_losses(runs: Sequence[FinishedRun]) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for run, colour in zip(runs, _colours(runs), strict=True):
        steps, losses = run.series("loss")
        axes.plot(steps, losses, color=colour, linewidth=0.6, alpha=0.25)
        axes.plot(steps, running_mean(losses.tolist()), color=colour, linewidth=1.6, label=run.name)
    _finish(axes, "optimizer step", "loss (nats a token)")
    return figure


def _run_bits(runs: Sequence[FinishedRun]) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for run, colour in zip(runs, _colours(runs), strict=True):
        axes.plot(*run.series("val_bpb"), color=colour, marker="o", markersize=3, label=run.name)
    _finish(axes, "optimizer step", "val_bpb (bits a byte)")
    return figure


def _colours(runs: Sequence[FinishedRun]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(runs))]


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
