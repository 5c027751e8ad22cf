"""The two plots of a run, redrawn from its metrics while it trains."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gpt_core.metrics import Record


def draw(records: list[Record], folder: Path) -> None:
    """Writes loss.png and grad_norm.png into `folder`."""
    folder.mkdir(exist_ok=True)
    _save(loss_figure(records), folder / "loss.png")
    _save(grad_norm_figure(records), folder / "grad_norm.png")


def loss_figure(records: list[Record]) -> Figure:
    """Training loss, faint, with its running mean, and validation loss."""
    figure, axes = _axes("loss (nats a token)")
    steps, losses = [r["step"] for r in records], [r["loss"] for r in records]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="train, each step")
    axes.plot(steps, running_mean(losses), color="tab:blue", linewidth=1.6, label="train, running mean")
    validated = [r for r in records if "val_loss" in r]
    axes.plot(
        [r["step"] for r in validated],
        [r["val_loss"] for r in validated],
        color="tab:orange",
        marker="o",
        markersize=3,
        label="validation",
    )
    axes.legend(frameon=False)
    return figure


def grad_norm_figure(records: list[Record]) -> Figure:
    """Global gradient norm before and after clipping, on a logarithmic axis."""
    figure, axes = _axes("global gradient norm")
    steps = [r["step"] for r in records]
    axes.plot(steps, [r["grad_norm"] for r in records], color="tab:red", linewidth=0.8, label="before clipping")
    axes.plot(steps, [r["clipped_grad_norm"] for r in records], color="tab:green", linewidth=0.8, label="after clipping")
    norms = [r["grad_norm"] for r in records if r["grad_norm"] > 0]
    if norms:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # 0.6 and 2, where the default has 6 x 10^-1
        axes.yaxis.set_minor_formatter("{x:g}" if max(norms) < 20 * min(norms) else NullFormatter())
    axes.legend(frameon=False)
    return figure


def running_mean(values: list[float], weight: float = 0.05) -> list[float]:
    """Exponential running mean, started without bias (Adam's correction; Kingma and Ba 2015, section 3)."""
    means, mean, decay = [], 0.0, 1.0
    for value in values:
        mean = (1 - weight) * mean + weight * value
        decay *= 1 - weight
        means.append(mean / (1 - decay))
    return means


def _axes(label: str):  # type: ignore[no-untyped-def]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    beside = path.with_suffix(".tmp.png")
    figure.savefig(beside, dpi=120)
    beside.replace(path)
