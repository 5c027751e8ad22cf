"""python -m benchmarks.roofline: how fast a step could be on each Apple chip, and what limits it. A prediction."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tables
from benchmarks.costs import Part, parts
from gpt_core import cli
from gpt_core.cli import Parser
from gpt_core.config import GPTConfig, TrainConfig, presets
from gpt_core.errors import InputError
from gpt_core.files import make_parents, write_text
from gpt_core.flops import flops_per_token, tokens_per_step
from gpt_core.peaks import APPLE

# GB/s of unified memory, as Apple announced them for the full chip.
BANDWIDTH = {
    "M1": 68, "M1 Pro": 200, "M1 Max": 400, "M1 Ultra": 800,
    "M2": 100, "M2 Pro": 200, "M2 Max": 400, "M2 Ultra": 800,
    "M3": 100, "M3 Pro": 150, "M3 Max": 400, "M3 Ultra": 819,
}  # fmt: skip
GEMM_SHARE = 0.82
"""Share of the nominal peak that a 4096^3 float32 product reaches: 4.28 of 5.2 TFLOPS on an M1 Pro with torch 2.7, 11.5 of
14.3 on an M3 Max (zzc0721/torch-performance-test-data, #191 and #33). Ours are smaller, so this is still optimistic."""
REFERENCE_CHIP, REFERENCE_MS = "M1 Pro", 396.05
"""The reference run's step, preset seed, PyTorch on MPS in float32."""
PLAIN = (
    "This is a prediction from FLOP and byte counts, nominal peaks and announced bandwidths; nothing here was measured, but "
    "for the reference run's step. No overhead, no caches, no overlap: `bound` cannot be beaten by an unfused step, "
    f"`expected` takes {100 * GEMM_SHARE:.0f} % of the peak for matrix products."
)


@dataclass(frozen=True)
class Prediction:
    """Milliseconds of each part of a step on one chip, and what each waits for: "compute" or "memory"."""

    chip: str
    tflops: float
    gb_per_s: float
    part_ms: dict[str, float]
    limits: dict[str, str]
    bound_ms: float
    expected_ms: float
    bound_mfu_pct: float
    expected_mfu_pct: float
    binds: str
    """What most of the bound's time is spent waiting for."""


def part_seconds(part: Part, tflops: float, gb_per_s: float) -> tuple[float, str]:
    """The roofline (Williams et al. 2009): the longer of computing and moving, and which it is."""
    compute, memory = part.flops / (tflops * 1e12), part.bytes / (gb_per_s * 1e9)
    return max(compute, memory), "compute" if compute >= memory else "memory"


def predict(config: GPTConfig, train: TrainConfig, chip: str) -> Prediction:
    """A step on a chip of the nominal table; parts follow one another."""
    tflops, gb_per_s = APPLE[chip], float(BANDWIDTH[chip])
    work = parts(config, train)
    found = {part.name: part_seconds(part, tflops, gb_per_s) for part in work}
    bound = sum(seconds for seconds, _ in found.values())
    expected = sum(part_seconds(p, tflops * (GEMM_SHARE if p.matmul else 1), gb_per_s)[0] for p in work)
    ideal = flops_per_token(config) * tokens_per_step(config, train) / (tflops * 1e12)
    computing = sum(seconds for seconds, limit in found.values() if limit == "compute")
    return Prediction(
        chip,
        tflops,
        gb_per_s,
        {name: 1000 * seconds for name, (seconds, _) in found.items()},
        {name: limit for name, (_, limit) in found.items()},
        1000 * bound,
        1000 * expected,
        100 * ideal / bound,
        100 * ideal / expected,
        "compute" if 2 * computing >= bound else "memory",
    )


def predicted_ms(config: GPTConfig, train: TrainConfig, chip: str) -> float | None:
    """`expected_ms` of a float32 step on a chip by its reported name, "Apple M1 Pro"; None for any other."""
    name = chip.removeprefix("Apple ")
    if not chip.startswith("Apple ") or name not in APPLE or train.dtype != "float32":
        return None
    return predict(config, train, name).expected_ms


def table(config: GPTConfig, train: TrainConfig, found: Sequence[Prediction]) -> str:
    """The parts with their costs, then the chips."""
    costs = [["part", "GFLOP a step", "GB a step", "FLOP a byte", REFERENCE_CHIP]]
    reference = next(p for p in found if p.chip == REFERENCE_CHIP)
    for part in parts(config, train):
        ms, limit = reference.part_ms[part.name], reference.limits[part.name]
        figures = [f"{part.flops / 1e9:.1f}", f"{part.bytes / 1e9:.2f}", f"{part.flops / part.bytes:.1f}"]
        costs.append([part.name, *figures, f"{ms:.1f} ms, {limit}"])
    chips = [["chip", "TFLOPS", "GB/s", "bound ms", "MFU %", "expected ms", "MFU %", "expected tok/s", "limit"]]
    for p in found:
        times = [p.bound_ms, p.bound_mfu_pct, p.expected_ms, p.expected_mfu_pct]
        speed = f"{tokens_per_step(config, train) / p.expected_ms * 1000:,.0f}"
        chips.append([p.chip, f"{p.tflops:g}", f"{p.gb_per_s:g}", *(f"{value:.1f}" for value in times), speed, p.binds])
    return f"{tables.aligned(costs)}\n\n{tables.aligned(chips)}"


def reference_line(config: GPTConfig, train: TrainConfig) -> str:
    """The reference run beside its prediction: the one measured figure here."""
    p = predict(config, train, REFERENCE_CHIP)
    ideal = flops_per_token(config) * tokens_per_step(config, train) / (p.tflops * 1e12)
    return (
        f"measured: the reference run, {REFERENCE_CHIP}, PyTorch on MPS, float32: {REFERENCE_MS} ms a step, "
        f"{100_000 * ideal / REFERENCE_MS:.0f} % MFU; bound {p.bound_ms:.0f} ms, {p.bound_mfu_pct:.0f} %; "
        f"expected {p.expected_ms:.0f} ms, {p.expected_mfu_pct:.0f} %"
    )


def main() -> None:
    """The command: a table, roofline_seed.png, roofline_seed.json, one JSON line last."""
    parser = Parser(prog="python -m benchmarks.roofline", description=f"Preset seed on each Apple chip. {PLAIN}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="folder of PNG and JSON")
    out = parser.parse_args().out
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: a folder is expected")
    make_parents(out / "roofline_seed.json", "--out")
    from benchmarks import chart  # matplotlib takes a second to load, and the workers' parent may not need it

    config, train = presets()["seed"]
    found = [predict(config, train, chip) for chip in APPLE]
    chart.draw_roofline(found, out / "roofline_seed.png")
    result = {
        "preset": "seed",
        "dtype": "float32",
        "what": PLAIN,
        "reference": {"chip": REFERENCE_CHIP, "step_ms": REFERENCE_MS},
        "parts": [part._asdict() for part in parts(config, train)],
        "chips": [dataclasses.asdict(prediction) for prediction in found],
    }
    write_text(out / "roofline_seed.json", json.dumps(result, indent=1) + "\n")
    print(PLAIN)
    print(table(config, train, found))
    print(reference_line(config, train))
    print(f"chart: {out / 'roofline_seed.png'}")
    print(json.dumps(result))


if __name__ == "__main__":
    cli.run(main)
