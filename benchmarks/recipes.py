"""python -m benchmarks.recipes: what each recipe reached for how many FLOPs, as a table and a plot; one JSON object a run."""

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean, median
from typing import Any

from matplotlib.figure import Figure

from benchmarks.chart import save
from gpt_core import checkpoint, cli
from gpt_core.cli import Parser
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.flops import flops_per_token, optimizer_flops, tokens_per_step
from gpt_core.metrics import read_metrics
from gpt_core.names import parameter_count

RECORDS, PLOT = Path("docs/recipes.jsonl"), Path("docs/images/recipes.png")
COLORS = {"seed": "tab:red", "seed-tuned": "tab:orange", "fast": "tab:blue", "best": "tab:green"}
OTHER = "0.55"


@dataclass(frozen=True)
class Recipe:
    """A finished run, or an anchor that takes no training (`flops` 0)."""

    name: str
    """What the table calls it; runs of one name differ by seed."""
    family: str
    """seed, seed-tuned, fast, best, anchor or trial: how it is drawn."""
    date: str
    by: str
    """What trained it: torch, mlx, or a prototype of the same arithmetic."""
    parameters: int
    epochs: float
    tokens: int
    flops: float
    """Of the model, forward and backward, and of the optimizer."""
    minutes: float
    """Steps times the median of their times, so that a machine asleep or busy for a while does not count."""
    rows: float
    """Bits a byte of all validation rows, each alone."""
    stream: float
    """Bits a byte of packed validation text."""
    nats: float
    """Nats a token of the same."""
    seed: int
    what: str = ""
    """What sets it apart, in a few words."""


def from_run(run: Path, evaluation: Path, name: str, family: str, day: str, what: str) -> Recipe:
    """The record of a run folder, with what `evaluate --data` said last about its checkpoint. Raises InputError."""
    loaded = checkpoint.load(checkpoint.find(run, "--add"), moments=False)
    found = _last_line(evaluation)
    missing = [key for key in ("val_bpb", "val_bpb_stream", "val_loss") if not isinstance(found.get(key), float)]
    if missing:
        raise InputError(f"--evaluation {evaluation} has no {', '.join(missing)}: give what `evaluate --data` printed")
    log = run / "metrics.jsonl"
    records = [record for record in read_metrics(log) if record["step"] <= loaded.step] if log.is_file() else []
    if not records:
        raise InputError(f"--add {run} has no records of its steps in metrics.jsonl: give a run folder, not a checkpoint")
    return Recipe(
        name=name,
        family=family,
        date=day,
        by=loaded.versions["framework"],
        parameters=parameter_count(loaded.model),
        epochs=records[-1]["epoch"],
        tokens=loaded.step * tokens_per_step(loaded.model, loaded.train),
        flops=float(total_flops(loaded.model, loaded.train, loaded.step)),
        minutes=round(loaded.step * median(record["step_ms"] for record in records) / 60_000, 1),
        rows=round(found["val_bpb"], 4),
        stream=round(found["val_bpb_stream"], 4),
        nats=round(found["val_loss"], 4),
        seed=loaded.train.seed,
        what=what,
    )


def total_flops(model: GPTConfig, train: TrainConfig, steps: int) -> int:
    """FLOPs of a run, the optimizer's among them."""
    return steps * (flops_per_token(model) * tokens_per_step(model, train) + optimizer_flops(model, train))


def read(path: Path) -> list[Recipe]:
    """The records of a file, one JSON object a line. Raises InputError."""
    names = ", ".join(item.name for item in dataclasses.fields(Recipe))
    recipes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            recipes.append(Recipe(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} line {number} is not a record with {names}: {error}") from error
    return recipes


def table(recipes: Sequence[Recipe]) -> str:
    """A Markdown table, the fewest bits a byte last."""
    lines = [
        "| run | by | parameters | epochs | FLOPs | minutes | bits a byte, rows | stream | nats a token | seed | what |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in sorted(recipes, key=lambda recipe: -recipe.rows):
        trained = (f"{r.parameters / 1e6:.1f}M", f"{r.epochs:g}", f"{r.flops:.2e}", f"{r.minutes:g}") if r.flops else ("-",) * 4
        stream, nats = (f"{value:.4f}" if value else "-" for value in (r.stream, r.nats))
        seed = str(r.seed) if r.flops else "-"
        lines.append("| " + " | ".join((r.name, r.by, *trained, f"{r.rows:.4f}", stream, nats, seed, r.what)) + " |")
    return "\n".join(lines)


def draw(recipes: Sequence[Recipe], path: Path) -> None:
    """Bits a byte of the rows against FLOPs, on a logarithmic axis; presets with their means, anchors as lines."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    trained = [recipe for recipe in recipes if recipe.flops]
    for r in trained:
        color = COLORS.get(r.family, OTHER)
        axes.plot(r.flops, r.rows, "o", color=color, markersize=5 if r.family == "trial" else 8)
    for family in COLORS:
        of_family = [recipe for recipe in trained if recipe.family == family]
        if of_family:
            flops, rows = (fmean(values) for values in zip(*((r.flops, r.rows) for r in of_family), strict=True))
            axes.annotate(
                f"{family} {rows:.3f}", (flops, rows), xytext=(6, -8), textcoords="offset points",
                ha="right", va="top", fontsize=10, fontweight="bold", color=COLORS[family],
            )  # fmt: skip
    for anchor in (recipe for recipe in recipes if not recipe.flops):
        axes.axhline(anchor.rows, color="black", linewidth=0.8, linestyle="--", alpha=0.6)
        axes.annotate(
            f"{anchor.name} {anchor.rows:.3f}", (1, anchor.rows), xycoords=("axes fraction", "data"), xytext=(-4, 3),
            textcoords="offset points", ha="right", fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.08)
    axes.set_xlabel("training FLOPs, the optimizer's among them")
    axes.set_ylabel("validation, bits a byte (rows)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _last_line(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8").strip().splitlines()[-1])
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"--evaluation {path} does not end in a JSON object: give what `evaluate --data` printed") from error
    return value if isinstance(value, dict) else {}


def _added(args: argparse.Namespace) -> Recipe:
    if not (args.evaluation and args.name and args.date):
        raise InputError("--add needs --evaluation FILE, --name TEXT and --date YYYY-MM-DD too")
    try:
        date.fromisoformat(args.date)
    except ValueError as error:
        raise InputError(f"--date {args.date} is no date: give YYYY-MM-DD") from error
    return from_run(args.add, args.evaluation, args.name, args.family, args.date, args.what)


def main() -> None:
    """The command."""
    parser = Parser(prog="python -m benchmarks.recipes", description="Bits a byte against FLOPs: a table, and a plot.")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FILE", help="one JSON object a run")
    parser.add_argument("--out", type=Path, default=PLOT, metavar="FILE", help="PNG to write")
    parser.add_argument("--add", type=Path, metavar="DIR", help="run folder whose record is added to the file first")
    parser.add_argument("--evaluation", type=Path, metavar="FILE", help="what evaluate --data printed about that run")
    parser.add_argument("--name", metavar="TEXT", help="what the table calls that run")
    parser.add_argument("--family", default="trial", choices=(*COLORS, "trial"), help="how that run is drawn")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="when it ran")
    parser.add_argument("--what", default="", metavar="TEXT", help="what sets it apart")
    args = parser.parse_args()
    for flag, path in (("--records", args.records), ("--out", args.out)):
        if not path.parent.is_dir():
            raise InputError(f"{flag} {path}: there is no folder {path.parent}, make it or name another")
        if path.exists() and not path.is_file():
            raise InputError(f"{flag} {path} is there and is no regular file: name a file")
    if not args.records.is_file() and not args.add:
        raise InputError(f"--records {args.records} does not exist: add a run with --add DIR")
    recipes = read(args.records) if args.records.is_file() else []
    if args.add:
        recipes.append(_added(args))
        with open(args.records, "a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(recipes[-1]), ensure_ascii=False) + "\n")
    draw(recipes, args.out)
    print(table(recipes))
    lowest = min((r.rows for r in recipes if r.flops), default=math.nan)
    print(json.dumps({"runs": sum(1 for r in recipes if r.flops), "lowest_rows": lowest, "plot": str(args.out)}))


if __name__ == "__main__":
    cli.run(main)
