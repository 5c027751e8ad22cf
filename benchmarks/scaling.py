"""python -m benchmarks.scaling: the same training on 1, 2, ... ranks of this machine, and what the ranks cost."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine, tables
from benchmarks.spec import BACKENDS
from benchmarks.timing import Spread, rounds, spread
from gpt_core import cli
from gpt_core.cli import Parser
from gpt_core.config import GPTConfig, TrainConfig, presets
from gpt_core.errors import InputError
from gpt_core.files import make_parents, write_text
from gpt_core.flops import tokens_per_step
from gpt_core.metrics import read_metrics
from gpt_core.ranks import Ranks, refuse_uneven

WARM_UP = 3
"""Steps of each trial that are not counted: the first ones build kernels and connections."""
PLAIN = (
    "Every row trains the same batches. The cores are dealt out: on C cores each of N ranks computes on max(1, C // N) "
    "threads, so more ranks are another use of the same cores and `against 1` compares those two uses; with more ranks "
    "than cores they take turns. Between machines or GPUs of their own, each rank would bring its own."
)


@dataclass(frozen=True)
class Scaled:
    """Trials of one twin on some ranks: tokens a second, over all ranks."""

    twin: str
    ranks: int
    threads: int
    tokens_per_s: Spread
    step_ms: float
    last_loss: float
    against_1: float
    """Tokens a second over those of one rank."""


def parser() -> Parser:
    """The command line."""
    made = Parser(prog="python -m benchmarks.scaling", description=PLAIN)
    made.add_argument("--preset", choices=sorted(presets()), default="tiny", help="what to train")
    made.add_argument("--data", type=Path, default=Path("data/sample"), metavar="DIR", help="dataset folder")
    made.add_argument("--backends", default=",".join(BACKENDS), help="twins, parted by commas")
    made.add_argument("--ranks", default="1,2", help="numbers of ranks, parted by commas; 1 comes first")
    made.add_argument("--device", default="cpu", help="as the twins' --device")
    made.add_argument(
        "--steps", type=int, default=20, metavar="N", help=f"optimizer steps of a trial, the first {WARM_UP} untimed"
    )
    made.add_argument("--trials", type=int, default=3, metavar="N", help="trials of each row, in turns")
    made.add_argument("--micro-batch-size", type=int, metavar="N", help="instead of the preset's")
    made.add_argument("--accumulation", type=int, metavar="N", help="instead of the preset's")
    made.add_argument("--out", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="folder of PNG and JSON")
    return made


def numbers(args: argparse.Namespace, train: TrainConfig) -> list[int]:
    """--ranks as integers, after all that can be checked before training."""
    try:
        found = [int(word) for word in args.ranks.split(",")]
    except ValueError:
        found = []
    if not found or found[0] != 1 or min(found) < 1 or len(set(found)) < len(found):
        raise InputError(f"--ranks {args.ranks}: give numbers parted by commas, 1 first, each once")
    if args.steps <= WARM_UP or args.trials < 1:
        raise InputError(f"--steps {args.steps} --trials {args.trials}: give more than {WARM_UP} steps and at least 1 trial")
    for name in args.backends.split(","):
        if name not in BACKENDS:
            raise InputError(f"--backends {name}: choose among {', '.join(BACKENDS)}, parted by commas")
    for count in found:
        refuse_uneven(train, Ranks(0, count))
    return found


def command(twin: str, ranks: int, flags: Sequence[str]) -> list[str]:
    """How training is started on some ranks; one rank needs no launcher."""
    folder, module = Path(sys.executable).parent, f"{twin}_gpt.train"
    if ranks == 1:
        return [sys.executable, "-m", module, *flags]
    if twin == "torch":  # --local-addr: by its own name, as torchrun calls it, many a Mac cannot be reached (pytorch #174513)
        here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(ranks)]
        return [str(folder / "torchrun"), *here, "-m", module, "--", *flags]
    return [str(folder / "mlx.launch"), "-n", str(ranks), "--", sys.executable, "-m", module, *flags]


def trial(twin: str, ranks: int, threads: int, flags: Sequence[str]) -> tuple[list[float], float]:
    """Milliseconds of each timed step of a run, and its last loss."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        line = command(twin, ranks, [*flags, "--run", str(run)])
        # mlx.launch reads stdin without end, and spins where it has one
        with subprocess.Popen(
            line, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout
            told = process.stdout.read()
        if process.returncode or not (run / "latest").is_file():
            raise InputError(f"{' '.join(line[:8])} ... ended with code {process.returncode}: {told[-300:]}")
        records = read_metrics(run / "metrics.jsonl")
    return [record["step_ms"] for record in records[WARM_UP:]], records[-1]["loss"]


def measure(args: argparse.Namespace, model: GPTConfig, train: TrainConfig, counts: Sequence[int]) -> list[Scaled]:
    """All rows, trials in turns."""
    flags = ["--preset", args.preset, "--data", str(args.data), "--device", args.device, "--steps", str(args.steps)]
    flags += ["--micro-batch-size", str(train.micro_batch_size), "--accumulation", str(train.accumulation)]
    flags += ["--warmup-steps", "0", "--val-every", "1000000", "--val-batches", "1", "--checkpoint-every", "1000000"]
    cores = os.cpu_count() or 1
    tasks = [(twin, count, max(1, cores // count)) for twin in args.backends.split(",") for count in counts]
    times: list[list[float]] = [[] for _ in tasks]
    losses = [0.0] * len(tasks)
    for turn in rounds(len(tasks), args.trials):
        for index in turn:
            found, losses[index] = trial(*tasks[index], flags)
            times[index].append(statistics.median(found))
            print(f"{tasks[index][0]}, ranks {tasks[index][1]}: {times[index][-1]:.1f} ms a step", file=sys.stderr)
    rows: list[Scaled] = []
    for (twin, count, threads), medians, loss in zip(tasks, times, losses, strict=True):
        speed = spread(medians).scaled(0.001).rate(tokens_per_step(model, train))
        one = next((row.tokens_per_s.median for row in rows if row.twin == twin), speed.median)
        rows.append(Scaled(twin, count, threads, speed, statistics.median(medians), loss, speed.median / one))
    return rows


def table(rows: Sequence[Scaled]) -> str:
    """The rows as people read them."""
    lines = [["twin", "ranks", "threads each", "ms a step", "tok/s", "slowest", "fastest", "against 1", "loss, last step"]]
    for row in rows:
        speeds = [f"{value:,.0f}" for value in (row.tokens_per_s.median, row.tokens_per_s.low, row.tokens_per_s.high)]
        ends = [f"{row.step_ms:.1f}", *speeds, f"{row.against_1:.2f}", f"{row.last_loss:.6f}"]
        lines.append([row.twin, str(row.ranks), str(row.threads), *ends])
    return tables.aligned(lines)


def main() -> None:
    """The command: a table, scaling_PRESET.png, scaling_PRESET.json, one JSON line last."""
    args = parser().parse_args()
    model, train = presets()[args.preset]
    train = TrainConfig(
        **asdict(train)
        | {"steps": args.steps, "warmup_steps": 0}
        | {name: getattr(args, name) for name in ("micro_batch_size", "accumulation") if getattr(args, name) is not None}
    )
    counts = numbers(args, train)
    if not (args.data / "manifest.json").is_file():
        raise InputError(f"--data {args.data} holds no manifest.json: python -m data_prep --source sample --out data/sample")
    make_parents(args.out / "scaling.json", "--out")
    rows = measure(args, model, train, counts)
    from benchmarks import chart  # matplotlib takes a second to load

    name = f"scaling_{args.preset}"
    chart.draw_scaling(rows, f"Preset {args.preset} on ranks of one machine, {machine.processor()}", args.out / f"{name}.png")
    result = {"preset": args.preset, "device": args.device, "what": PLAIN, "machine": machine.facts(), "train": asdict(train)}
    result["rows"] = [asdict(row) for row in rows]
    write_text(args.out / f"{name}.json", json.dumps(result, indent=1) + "\n")
    print(PLAIN)
    print(table(rows))
    print(f"chart: {args.out / f'{name}.png'}")
    print(json.dumps(result))


if __name__ == "__main__":
    cli.run(main)
