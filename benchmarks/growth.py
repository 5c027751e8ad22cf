"""python -m benchmarks.growth: how training speed changes with context, width and batch, beside how its FLOPs do."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import machine, tables
from benchmarks.command import FEWEST_TRIALS, write_random_shard
from benchmarks.pool import Worker, workers
from benchmarks.report import slug
from benchmarks.spec import BACKENDS, Spec, engines, specs
from benchmarks.timing import Spread, rounds, spread
from gpt_core import cli
from gpt_core.cli import Parser
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.files import checked_folder, write_text
from gpt_core.flops import flops_per_token, tokens_per_step
from gpt_core.progress import bar

AXES = {"context": (128, 256, 512, 1024), "width": (256, 512, 768, 1024), "batch": (1, 2, 4, 8, 16)}
"""What is varied, one at a time; the others keep the middle of theirs. Tokens, values, sequences."""
HEAD_WIDTH = 64
FORMAT_VERSION = 1
PLAIN = (
    "One of context, width and batch is varied at a time, around the middle of each; one micro-batch a step. `of FLOPs` is "
    "tok/s over what the middle point's FLOP/s would give at this point: 1.00 where cost grows as the count of FLOPs does."
)

Open = Callable[[Sequence[Spec]], AbstractContextManager[list[Worker]]]


@dataclass(frozen=True)
class Point:
    """One model and batch of one twin, measured."""

    twin: str
    device: str
    axis: str
    value: int
    tokens_per_s: Spread
    step_ms: float
    flops_per_token: int
    gflops: float
    """1e9 FLOP/s at the median speed."""
    of_flops: float
    matmul_gflops: float
    """The matmul peak of this framework, measured at the middle point."""
    chip: str = ""
    """What it computed on; files of earlier versions do not say."""


def parser() -> Parser:
    """The flags."""
    made = Parser(prog="python -m benchmarks.growth", description=PLAIN)
    made.add_argument("--backends", default=",".join(BACKENDS), metavar="LIST", help="mlx, torch or both, parted by commas")
    made.add_argument("--device", default="auto", metavar="LIST", help="auto, cpu, gpu (mlx), mps, cuda (torch)")
    made.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    made.add_argument("--vary", default=",".join(AXES), metavar="LIST", help="which of context, width and batch")
    for axis, values in AXES.items():
        made.add_argument(f"--{axis}", default=",".join(map(str, values)), metavar="LIST", help=f"values of the {axis}")
    made.add_argument("--n-layer", type=int, default=2, metavar="N", help="transformer blocks")
    made.add_argument("--vocab-size", type=int, default=4096, metavar="N", help="rows of the embedding, tokens")
    made.add_argument("--trials", type=int, default=FEWEST_TRIALS, metavar="N", help="trials of each point, in turns")
    made.add_argument("--trial-seconds", type=float, default=0.3, metavar="X", help="a trial repeats the step to last so long")
    made.add_argument("--add", type=Path, metavar="FILE", help="a result of this command, to take over what is not varied here")
    made.add_argument("--out", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="folder of PNG and JSON")
    return made


def values(given: str, flag: str) -> list[int]:
    """Positive integers parted by commas, rising. Raises InputError."""
    try:
        found = [int(word) for word in given.split(",")]
    except ValueError:
        found = []
    if not found or found != sorted(set(found)) or found[0] < 1:
        raise InputError(f"{flag} {given}: give rising numbers above 0, parted by commas")
    return found


def middle(axis: Sequence[int]) -> int:
    """The value that an axis keeps while others are varied."""
    return axis[(len(axis) - 1) // 2]


def settings(axes: dict[str, list[int]], n_layer: int, vocab_size: int) -> dict[tuple[str, int], tuple[GPTConfig, TrainConfig]]:
    """(axis, value) -> model and recipe. Raises InputError for what is no model."""
    made = {}
    for axis, choices in axes.items():
        for value in choices:
            at = {name: middle(others) for name, others in axes.items()} | {axis: value}
            heads = max(1, at["width"] // HEAD_WIDTH)
            if at["width"] % heads:
                raise InputError(f"--width {at['width']} cannot be parted into {heads} heads: give multiples of {HEAD_WIDTH}")
            model = GPTConfig(vocab_size, at["context"], n_layer, heads, at["width"])
            made[axis, value] = model, TrainConfig(micro_batch_size=at["batch"], accumulation=1)
    return made


def measure(
    tasks: dict[tuple[str, int], list[Spec]],
    centre: list[Spec],
    trials: int,
    trial_s: float,
    say: Callable[[str], None],
    opened: Open = workers,
) -> list[Point]:
    """Every point, each in workers of its own, the twins in turns; first the middle, which all are held against."""
    base = speeds(centre, trials, trial_s, say, "middle", opened, with_matmul=True)
    found = []
    for (axis, value), specs_ in tasks.items():
        here = base if specs_ == centre else speeds(specs_, trials, trial_s, say, f"{axis} {value}", opened)
        for spec, (step, _, chip), (base_step, matmul, _) in zip(specs_, here, base, strict=True):
            rate, base_rate = (s.rate(tokens_per_step(c.model, c.train)) for s, c in ((step, spec), (base_step, centre[0])))
            flops, base_flops = flops_per_token(spec.model), flops_per_token(centre[0].model)
            gflops = flops * rate.median / 1e9
            of_flops = gflops / (base_flops * base_rate.median / 1e9)
            ms, peak = 1000 * step.median, 1000 * matmul
            found.append(Point(spec.engine, spec.device, axis, value, rate, ms, flops, gflops, of_flops, peak, chip))
    return found


def speeds(
    chosen: Sequence[Spec],
    trials: int,
    trial_s: float,
    say: Callable[[str], None],
    name: str,
    opened: Open,
    with_matmul: bool = False,
) -> list[tuple[Spread, float, str]]:
    """(seconds a step, matmul TFLOPS or 0, chip) of each task."""
    with opened(chosen) as started:
        steps = [worker.ask("warm_up", trial_s=trial_s)["steps"] for worker in started]
        taken: list[list[float]] = [[] for _ in started]
        for order in rounds(len(started), trials):
            for index in order:
                answer = started[index].ask("train", first=len(taken[index]) * steps[index], steps=steps[index])
                taken[index].append(answer["seconds"] / steps[index])
        peaks = [worker.ask("matmul")["tflops"] if with_matmul else 0.0 for worker in started]
        chips = [worker.facts["chip"] for worker in started]
    for spec, seconds in zip(chosen, taken, strict=True):
        say(f"{name}: {spec.label} {tokens_per_step(spec.model, spec.train) / min(seconds):,.0f} tok/s at best")
    return [(spread(seconds), peak, chip) for seconds, peak, chip in zip(taken, peaks, chips, strict=True)]


def table(points: Sequence[Point]) -> str:
    """A line a point."""
    cells = [["", "tok/s", "low..high", "step ms", "MFLOP a token", "GFLOP/s", "of matmul %", "of FLOPs"]]
    for p in points:
        rate = p.tokens_per_s
        figures = [
            f"{rate.median:,.0f}",
            f"{rate.low:,.0f}..{rate.high:,.0f}",
            f"{p.step_ms:.1f}",
            f"{p.flops_per_token / 1e6:.1f}",
        ]
        shares = [f"{p.gflops:,.0f}", f"{100 * p.gflops / p.matmul_gflops:.1f}", f"{p.of_flops:.2f}"]
        cells.append([f"{p.twin} {p.axis} {p.value}", *figures, *shares])
    return tables.aligned(cells)


def earlier(path: Path, same: dict[str, Any], processor: str, devices: dict[str, str]) -> list[Point]:
    """The points of an earlier result with the same settings, of this machine and on the same device of each twin.

    Raises InputError.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        points = [Point(**row | {"tokens_per_s": Spread(**row["tokens_per_s"])}) for row in found["points"]]
        found["processor"] = found["machine"]["processor"]
        same = same | {"processor": processor}
        differing = [name for name, value in same.items() if found[name] != value]
    except FileNotFoundError as error:
        raise InputError(f"--add {path} is missing: give a JSON file that python -m benchmarks.growth wrote") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--add {path} is no result of python -m benchmarks.growth: {type(error).__name__} {error}") from error
    if differing:
        name = differing[0]
        raise InputError(f"--add {path} has another {name}, {found[name]}, not {same[name]}: measure all of it anew")
    for point in points:
        if point.device != devices.get(point.twin, point.device):
            other = devices[point.twin]
            raise InputError(f"--add {path} has {point.twin} on --device {point.device}, not {other}: give the same")
    return points


def refuse_other_chips(old: Sequence[Point], centre: Sequence[Spec], opened: Open = workers) -> None:
    """Raises InputError if earlier points are of another chip than workers compute on now: a host may have two GPUs."""
    if not any(point.chip for point in old):
        return
    with opened(centre) as started:
        chips = {worker.spec.engine: worker.facts["chip"] for worker in started}
    for point in old:
        if point.chip and point.chip != chips.get(point.twin, point.chip):
            raise InputError(f"--add has points of {point.twin} on {point.chip}, not on {chips[point.twin]}: measure all anew")


def merged(old: Sequence[Point], new: Sequence[Point]) -> list[Point]:
    """All points, the new ones in place of old ones, in the order twin, axis, value."""
    by_name = {(p.twin, p.axis, p.value): p for p in [*old, *new]}
    return [by_name[key] for key in sorted(by_name, key=lambda key: (key[0], list(AXES).index(key[1]), key[2]))]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: a table, a PNG for each twin, growth_<chip>_<date>.json, one JSON line last."""
    args = parser().parse_args(arguments)
    axes = {axis: values(getattr(args, axis), f"--{axis}") for axis in AXES}
    varied = args.vary.split(",")
    for axis in varied:
        if axis not in AXES:
            raise InputError(f"--vary {axis}: choose among {', '.join(AXES)}, parted by commas")
    if args.trials < FEWEST_TRIALS:
        raise InputError(f"--trials {args.trials}: expected {FEWEST_TRIALS} or more, or the spread says nothing")
    if not 0 < args.trial_seconds < math.inf:
        raise InputError(f"--trial-seconds {args.trial_seconds} is not positive: give seconds")
    sizes = {key: size for key, size in settings(axes, args.n_layer, args.vocab_size).items() if key[0] in varied}
    chosen = engines(args.backends, None)
    out = checked_folder(args.out, "--out")
    same = {"format_version": FORMAT_VERSION, "dtype": args.dtype, "n_layer": args.n_layer, "vocab_size": args.vocab_size}
    same |= {"axes": axes}
    facts = machine.facts()
    with TemporaryDirectory() as temporary:
        shard = Path(temporary) / "random.bin"
        tasks = {key: specs(chosen, args.device, args.dtype, *size, shard) for key, size in sizes.items()}
        for specs_ in tasks.values():
            if len(specs_) > len(chosen):
                raise InputError(f"--device {args.device} --dtype {args.dtype}: give one of each for a twin")
        centre = tasks[varied[0], middle(axes[varied[0]])]
        devices = {spec.engine: spec.device for spec in centre}
        old = earlier(args.add, same, machine.processor(), devices) if args.add else []
        largest = max(sizes.values(), key=lambda size: tokens_per_step(*size))
        write_random_shard(shard, *largest)
        refuse_other_chips(old, centre)
        told = len(centre) * (1 + sum(specs_ != centre for specs_ in tasks.values()))
        with bar(total=told, desc="growth", unit="point") as progress:

            def say(line: str) -> None:
                progress.write(f"{time.strftime('%H:%M:%S')} {line}")
                progress.update()

            new = measure(tasks, centre, args.trials, args.trial_seconds, say)
    points = merged(old, new)
    found = same | {
        "chip": machine.chip([point.chip for point in points]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": facts,
        "trials": args.trials,
        "what": PLAIN,
        "points": [dataclasses.asdict(point) for point in points],
    }
    print(PLAIN)
    print(f"{args.n_layer} layers, vocabulary {args.vocab_size}, {args.dtype}; middle: ", end="")
    print(", ".join(f"{axis} {middle(choices)}" for axis, choices in axes.items()))
    print(table(points))
    from benchmarks import chart  # here: its library takes a second to load, which bad input should not wait for

    out.mkdir(exist_ok=True)
    name = f"{slug(found['chip'])}_{found['date']}"
    for twin in dict.fromkeys(point.twin for point in points):
        path = out / f"growth_{twin}_{name}.png"
        chart.draw_growth([p for p in points if p.twin == twin], f"{twin}, {found['chip']}, {found['date']}", path)
        print(f"chart: {path}")
    path = out / f"growth_{name}.json"
    write_text(path, json.dumps(found, indent=1) + "\n")
    print(f"result: {path}")
    print(json.dumps(found))


if __name__ == "__main__":
    cli.run(main)
