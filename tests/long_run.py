"""python tests/long_run.py --twin torch|mlx --steps 20000: is the memory of a long run flat, and is nothing of it lost?

A model of a minute's training; the resident memory of the process is read at a twentieth of the steps (250 at least),
half-way and at the end. Plots are drawn every second, so that what they need once is there at the first reading.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from helpers import make_dataset

from gpt_core import cli, run
from gpt_core.checkpoint import step_folders
from gpt_core.curves import LIMIT
from gpt_core.metrics import Record, records_of

MODEL = "--preset tiny --vocab-size 512 --block-size 16 --n-layer 1 --n-head 1 --n-embd 8 --micro-batch-size 1"
RECIPE = "--device cpu --schedule constant --val-every 100 --val-batches 1 --checkpoint-every 200 --keep-last 3 --resume never"
LIMIT_PCT = 5.0
SETTLED = 250
"""Steps after which a validation, a checkpoint and a plot have been."""


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(said.stdout) / 1024


def measure(twin: str, steps: int, folder: Path) -> dict[str, Any]:
    """Trains and returns the figures."""
    first = max(steps // 20, SETTLED)
    at = {first, steps // 2, steps}
    memory: dict[int, float] = {}
    began: dict[int, float] = {}
    log = run.Run.log

    def watched(running: run.Run, record: Record) -> None:
        log(running, record)
        if record["step"] in at:
            memory[record["step"]], began[record["step"]] = resident_mib(), time.perf_counter()
            points = (len(series.points) for series in (running._curves.loss, running._curves.norm, running._curves.validation))
            assert max(points) <= LIMIT

    vars(run).update(SECONDS_BETWEEN_PLOTS=1.0)
    type.__setattr__(run.Run, "log", watched)
    data, where = make_dataset(folder / "data"), folder / "run"
    words = f"{MODEL} --accumulation 1 {RECIPE} --steps {steps}".split(" ")
    sys.argv = ["train", *words, "--data", str(data), "--run", str(where)]
    try:
        cli.run(importlib.import_module(f"{twin}_gpt.train").main)
    except SystemExit as end:
        assert end.code == 0
    written = [record["step"] for record, _ in records_of(where / "metrics.jsonl")]
    assert written == list(range(1, steps + 1)), "records are missing"
    assert len(step_folders(where)) == min(3, -(-steps // 200))
    before, last = memory[first], memory[steps]
    return {
        "twin": twin,
        "steps": steps,
        "resident_mib": {step: round(size, 1) for step, size in memory.items()},
        "growth_pct": round(100 * (last - before) / before, 2),
        "ms_a_step": round(1000 * (began[steps] - began[first]) / (steps - first), 3),
        "metrics_bytes_a_step": round((where / "metrics.jsonl").stat().st_size / steps),
    }


def main() -> None:
    """Prints the figures as one JSON object, last; exit code 1 where memory grew by more than LIMIT_PCT."""
    parser = argparse.ArgumentParser(description="A long run of a minute model.")
    parser.add_argument("--twin", choices=("torch", "mlx"), required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        figures = measure(arguments.twin, arguments.steps, Path(temporary))
    print(json.dumps(figures))
    sys.exit(0 if abs(figures["growth_pct"]) <= LIMIT_PCT else 1)


if __name__ == "__main__":
    main()
