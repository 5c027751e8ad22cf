"""The command line of python -m benchmarks."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import data_speed, generate_speed, machine, report, train_speed
from benchmarks.pool import Turns, workers
from benchmarks.rows import Row
from benchmarks.spec import BACKENDS, ENGINES, Spec, engines, specs
from gpt_core.cli import Parser, add_config_flags, overrides
from gpt_core.config import GPTConfig, TrainConfig, presets
from gpt_core.errors import InputError
from gpt_core.files import checked_folder, write_text
from gpt_core.flops import tokens_per_step
from gpt_core.progress import bar
from gpt_core.shards import write_shard

PARTS = ("train", "generate", "data")
FEWEST_TRIALS = 5
FEWEST_CONTEXT = 4
"""Tokens: two to read and two to generate, of which the second is timed as decoding."""
SHARD_TOKENS, SHARD_STEPS = 1_000_000, 16
"""Random tokens to train on: as many as the larger of the two needs. Speed does not depend on what they are."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints tables, writes JSON and PNG; the last line of stdout is the JSON object."""
    args = parser().parse_args(arguments)
    model, train = presets()[args.preset]
    model = dataclasses.replace(model, **overrides(args, GPTConfig))
    batch = {name: value for name in ("micro_batch_size", "accumulation") if (value := getattr(args, name)) is not None}
    train = dataclasses.replace(train, **batch)
    wanted = checked_parts(args.parts)
    if args.trials < FEWEST_TRIALS:
        raise InputError(f"--trials {args.trials}: expected {FEWEST_TRIALS} or more, or the spread says nothing")
    if not 0 < args.trial_seconds < math.inf:
        raise InputError(f"--trial-seconds {args.trial_seconds} is not positive: give seconds")
    if "generate" in wanted and model.block_size < FEWEST_CONTEXT:
        raise InputError(f"--block-size {model.block_size} is below {FEWEST_CONTEXT}: raise it, or leave out --parts generate")
    if args.peak_tflops is not None and not 0 < args.peak_tflops < math.inf:
        raise InputError(f"--peak-tflops {args.peak_tflops} is not positive: give the chip's peak in 1e12 FLOP/s")
    chosen = engines(args.backends, args.peers)
    out = checked_folder(args.out, "--out")
    earlier = report.read_earlier(args.against, args.preset, model, train) if args.against else None
    facts = machine.facts()  # before the run puts its own load on the machine
    with TemporaryDirectory() as temporary:
        shard = Path(temporary) / "random.bin"
        tasks = specs(chosen, args.device, args.dtype, model, train, shard)
        write_random_shard(shard, model, train)
        rows, chips, failed = measure(tasks, wanted, args.trials, args.trial_seconds, args.peak_tflops)
    found = report.result(args.preset, model, train, args.trials, machine.chip(chips), facts, rows, failed)
    path = out / report.file_name(found)
    print(f"{found['chip']}; {', '.join(f'{name} {value}' for name, value in facts.items())}")
    print(report.tables(rows))
    for reason in failed.values():
        print(f"left out: {reason}")
    if earlier:
        print(report.against(rows, earlier))
    from benchmarks import chart  # here: its library takes a second to load, which bad input should not wait for

    out.mkdir(exist_ok=True)
    chart.draw(rows, f"{args.preset}, {found['chip']}, {found['date']}", path.with_suffix(".png"))
    write_text(path, json.dumps(found, indent=1) + "\n")
    print(f"result: {path}, chart: {path.with_suffix('.png')}")
    print(json.dumps(found))


def parser() -> Parser:
    """The flags of python -m benchmarks."""
    made = Parser(
        prog="python -m benchmarks",
        description="Measures tokens a second and MFU of both twins and of other libraries, in turns. Each runs in a process "
        "of its own, and all of them are in memory at once.",
    )
    made.add_argument("--preset", choices=sorted(presets()), default="seed", help="model and batch")
    made.add_argument("--backends", default=",".join(BACKENDS), metavar="LIST", help="mlx, torch or both, parted by commas")
    made.add_argument("--device", default="auto", metavar="LIST", help="auto, cpu, gpu (mlx), mps, cuda (torch)")
    made.add_argument("--dtype", default="float32", metavar="LIST", help="float32, bfloat16, float16, parted by commas")
    made.add_argument(
        "--peers", metavar="LIST", help="also transformers, mlx-lm, mlx-plain, nanogpt=PATH (a folder with its model.py)"
    )
    made.add_argument("--parts", default=",".join(PARTS), metavar="LIST", help="what to measure")
    made.add_argument("--trials", type=int, default=FEWEST_TRIALS, metavar="N", help=f"trials of each, {FEWEST_TRIALS} or more")
    made.add_argument(
        "--trial-seconds", type=float, default=1.0, metavar="X", help="a training trial repeats the step to last so long"
    )
    made.add_argument(
        "--peak-tflops", type=float, metavar="X", help="nominal peak for MFU, 1e12 FLOP/s, instead of the table's"
    )
    made.add_argument("--against", type=Path, metavar="FILE", help="an earlier result of the same preset, to print ratios with")
    made.add_argument("--out", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="folder of the result")
    for name in ("micro_batch_size", "accumulation"):
        help = next(item.metadata["help"] for item in dataclasses.fields(TrainConfig) if item.name == name)
        made.add_argument("--" + name.replace("_", "-"), type=int, metavar="N", help=f"{help}, instead of the preset's")
    add_config_flags(made, GPTConfig)
    return made


def checked_parts(given: str) -> list[str]:
    """The parts of --parts, or InputError for one that does not exist."""
    wanted = given.split(",")
    for part in wanted:
        if part not in PARTS:
            raise InputError(f"--parts {part}: choose among {', '.join(PARTS)}, parted by commas")
    return wanted


def write_random_shard(path: Path, model: GPTConfig, train: TrainConfig) -> None:
    """Tokens that every vocabulary of the model has, evenly drawn."""
    count = max(SHARD_TOKENS, SHARD_STEPS * tokens_per_step(model, train)) + 1
    write_shard(path, np.random.default_rng(0).integers(0, model.vocab_size, count).astype(np.uint16))


def measure(
    tasks: Sequence[Spec], wanted: Sequence[str], trials: int, trial_s: float, peak_tflops: float | None
) -> tuple[list[Row], list[str], dict[str, str]]:
    """All rows, the chips that they were computed on, and who failed in the trials, with the reason."""
    rows: list[Row] = []
    chips: list[str] = []
    generating = sum(ENGINES[task.engine].generates for task in tasks)
    total = ("train" in wanted) * len(tasks) * (1 + trials) + ("generate" in wanted) * generating * trials + ("data" in wanted)
    with bar(total=total, desc="benchmarks", unit="trial") as progress:

        def say(line: str) -> None:
            progress.update()
            progress.write(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stdout)
            sys.stdout.flush()

        turns = Turns(say)
        if wanted != ["data"]:
            with workers(tasks) as started:
                chips = [worker.facts["chip"] for worker in started]
                if "generate" in wanted:
                    for worker in started:  # a failure here would cost the training trials if it came after them
                        worker.ask("generate", **generate_speed.request(worker.spec.model))
                if "train" in wanted:
                    rows += train_speed.measure(started, trials, trial_s, peak_tflops, turns, say)
                if "generate" in wanted:
                    rows += generate_speed.measure(started, trials, turns, say)
            if not rows:
                raise InputError(next(iter(turns.failed.values())))
        if "data" in wanted:
            rows += data_speed.measure(trials, time.perf_counter)
            say("data_prep measured")
    return rows, chips, turns.failed
