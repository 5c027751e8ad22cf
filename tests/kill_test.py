"""python tests/kill_test.py --twin torch|mlx --kills 100 --out DIR: training that is killed again and again.

Each process is ended by SIGKILL in one of six phases: start-up, an optimizer step, validation, writing of a checkpoint,
drawing of the plots, data preparation; the moment within the phase is random. The next process goes on with --resume auto.
In the end weights, moments, records and the list of files must be those of a run that nobody killed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from commands import train_flags
from helpers import TRAIN_ROWS, make_dataset

from gpt_core import checkpoint
from gpt_core.metrics import Record, read_metrics

PHASES = ("checkpoint", "step", "validation", "checkpoint", "plot", "start", "data")
CLOCKS = ("step_ms", "tokens_per_s", "mfu_pct", "peak_mem_gib")
FLAGS = ("--schedule", "constant", "--checkpoint-every", 2, "--keep-last", 2, "--val-every", 3, "--resume", "auto")
LONGEST_S = 300
NOT_MOVED = "latest names step_"
"""In the one warning there may be: a kill came after the new checkpoint was there, before `latest` named it."""


class Trainer:
    """A training process whose phases can be followed."""

    def __init__(self, twin: str, data: Path, run: Path, steps: int):
        reading, writing = os.pipe()
        flags = map(str, train_flags(data, run, *FLAGS, "--steps", steps))
        command = [sys.executable, str(ROOT / "tests" / "kill_child.py"), str(writing), f"{twin}_gpt.train", *flags]
        self._said = open(run.parent / "said", "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(command, cwd=ROOT, pass_fds=[writing], stdout=self._said, stderr=self._said)
        os.close(writing)
        self._phases = os.fdopen(reading)

    def wait_for(self, phase: str, count: int = 1) -> None:
        """Returns when `phase` begins for the `count`th time, or fails where the process ends before that."""
        for line in self._phases:
            count -= line.strip() == phase
            if count == 0:
                return
        raise AssertionError(f"ended before {phase}: {self.said()}")

    def said(self) -> str:
        """What it wrote to stdout and stderr; a warning or an error is a failure."""
        self._said.seek(0)
        return self._said.read()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.close()

    def finish(self) -> None:
        """Waits for its own end."""
        for _ in self._phases:
            pass
        assert self.process.wait(LONGEST_S) == 0, self.said()
        self.close()

    def close(self) -> None:
        """Closes what belongs to it; fails if it complained of anything."""
        said = "\n".join(line for line in self.said().split("\n") if NOT_MOVED not in line)
        assert not any(word in said for word in ("warning:", "error:", "Traceback")), said
        self._phases.close()
        self._said.close()


def durations(twin: str, data: Path, run: Path) -> dict[str, float]:
    """Seconds that each phase takes, measured on a short run."""
    begin = time.perf_counter()
    trainer = Trainer(twin, data, run, 9)
    took: dict[str, float] = {}
    began: dict[str, float] = {}
    for line in trainer._phases:
        phase, _, done = line.strip().partition(" ")
        now = time.perf_counter()
        took.setdefault("start", now - begin)
        if done:
            took[phase] = max(took.get(phase, 0.0), now - began[phase])
        else:
            took["step"] = now - began.get("step", now) if phase == "step" else took.get("step", 0.0)
            began[phase] = now
    trainer.finish()
    return took


def prepare(rows: Path, out: Path, kill_after: float | None = None) -> bool:
    """Runs data_prep, killed after so many seconds; whether it was."""
    command = [sys.executable, "-m", "data_prep", "--source", str(rows), "--out", str(out), "--overwrite"]
    command += ["--latin", "keep", "--vocab-size", "300", "--shards", "3", "--val-fraction", "0.3", "--test-fraction", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=kill_after)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, said
    return False


def files(folder: Path) -> dict[str, bytes]:
    """Names and contents of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trajectory(run: Path) -> list[Record]:
    """All records without their clocks."""
    records = read_metrics(run / "metrics.jsonl")
    return [{name: value for name, value in record.items() if name not in CLOCKS} for record in records]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, moments, records and file names."""
    found, expected = (checkpoint.load(checkpoint.find(run, "--run")) for run in (one, other))
    assert (found.step, found.model, found.train) == (expected.step, expected.model, expected.train)
    for these, those in ((found.weights, expected.weights), (found.moments, expected.moments)):
        assert these.keys() == those.keys()
        for name, value in those.items():
            np.testing.assert_array_equal(these[name], value, err_msg=name, strict=True)
    assert trajectory(one) == trajectory(other)
    assert [record["step"] for record in trajectory(one)] == list(range(1, found.step + 1))
    names = [sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) for run in (one, other)]
    assert names[0] == names[1]


def kill_and_compare(twin: str, kills: int, out: Path, seed: int = 0) -> dict[str, object]:
    """Does all of it in `out`; returns the figures. Raises AssertionError for whatever was lost."""
    draw = np.random.default_rng(seed)
    data, run, rows = make_dataset(out / "data"), out / "killed", out / "rows.txt"
    rows.write_text("\n".join(TRAIN_ROWS) + "\n", encoding="utf-8")
    took = durations(twin, data, out / "trial")
    begin = time.perf_counter()
    prepare(rows, out / "prepared")
    took["data"] = time.perf_counter() - begin
    expected = files(out / "prepared")

    survived: Counter[str] = Counter()
    reached = lost = 0
    while survived.total() < kills:
        phase = PHASES[survived.total() % len(PHASES)]
        moment = float(draw.uniform(0, took[phase]))
        if phase == "data":
            if not prepare(rows, out / "prepared", moment):
                continue  # it was done before its time had come
            prepare(rows, out / "prepared")
            assert files(out / "prepared") == expected
        else:
            trainer = Trainer(twin, data, run, 1_000_000)
            if phase != "start":
                trainer.wait_for(phase, int(draw.integers(1, 4)))
            time.sleep(moment)
            trainer.kill()
            if checkpoint.step_folders(run):
                whole = checkpoint.load(checkpoint.find(run, "--run"))
                lost += max(0, reached - whole.step)
                reached = whole.step
        survived[phase] += 1
    steps = reached + 3
    for folder in (run, out / "undisturbed"):
        Trainer(twin, data, folder, steps).finish()
    assert_same_run(run, out / "undisturbed")
    left = sorted(path.name for path in out.iterdir())
    assert left == ["data", "killed", "prepared", "rows.txt", "said", "trial", "undisturbed"], left
    assert lost == 0, f"{lost} steps of whole checkpoints were lost"
    seconds = {phase: round(value, 3) for phase, value in took.items()}
    return {"twin": twin, "survived": survived.total(), "in": dict(survived), "steps": steps, "seconds of a phase": seconds}


def main() -> None:
    """Prints the figures as one JSON object."""
    parser = argparse.ArgumentParser(description="Kills training and data preparation at random moments.")
    parser.add_argument("--twin", choices=("torch", "mlx"), required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    print(json.dumps(kill_and_compare(arguments.twin, arguments.kills, arguments.out, arguments.seed)))


if __name__ == "__main__":
    main()
