"""Long runs: memory that does not grow, records that are read one at a time, a Mac that is kept awake.

`python tests/long_run.py` takes 20,000 steps in each twin; docs/faults.md has its figures.
"""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from commands import call, train_flags
from twins import TWINS

from gpt_core import curves, metrics, run
from gpt_core.curves import Curves
from gpt_core.metrics import FIELDS, append, keep_until, records_of

SCRIPT = Path(__file__).parent / "long_run.py"
GROWTH_LIMIT_PCT = 5.0  # from step 250 to 600, measured: torch 0.23, MLX 0.06


@pytest.mark.parametrize("name", TWINS)
def test_memory_stays_flat(name: str) -> None:
    environment = os.environ | {"MLX_DISABLE_COMPILE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--twin", name, "--steps", "600"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    figures = json.loads(found.stdout.splitlines()[-1])
    assert found.returncode == 0 and abs(figures["growth_pct"]) <= GROWTH_LIMIT_PCT, figures


def write_records(path: Path, steps: int) -> None:
    line = json.dumps(dict.fromkeys(FIELDS, 1.5) | {"step": 0})
    path.write_text("".join(line.replace('"step": 0', f'"step": {step}') + "\n" for step in range(1, steps + 1)))


def test_a_long_log_is_read_and_cut_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 records take 2 MB on disk and 7 MB as a list. Control: the list."""
    monkeypatch.setattr(curves, "LIMIT", 500)
    path = tmp_path / "metrics.jsonl"
    write_records(path, 10_000)
    tracemalloc.start()
    try:
        keep_until(path, 9_000)
        found = Curves(record for record, _ in records_of(path))
        small = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        kept = metrics.read_metrics(path)
        large = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.loss.points[-1][0] > 8_900 and len(kept) == 9_000 == kept[-1]["step"]
    assert small < 2**20 < 5 * 2**20 < large


def test_cutting_the_log_leaves_what_is_kept_as_it_was(tmp_path: Path) -> None:
    """No byte of the kept records is written again, so none can be lost: the file stays the same one."""
    path = tmp_path / "metrics.jsonl"
    write_records(path, 50)
    before, inode = path.read_bytes(), path.stat().st_ino
    keep_until(path, 40)
    assert before.startswith(path.read_bytes()) and path.read_bytes().count(b"\n") == 40 and path.stat().st_ino == inode
    append(path, {"step": 41})
    assert path.read_bytes().endswith(b'{"step": 41}\n')


@pytest.mark.parametrize(("system", "seconds_left", "advised"), [("darwin", 7200, 1), ("darwin", 60, 0), ("linux", 7200, 0)])
def test_a_long_run_on_a_mac_is_told_of_caffeinate(
    system: str,
    seconds_left: float,
    advised: int,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once, when the speed is known, and only where hours are left."""
    monkeypatch.setattr(run.sys, "platform", system)
    monkeypatch.setattr(run.Run, "_seconds_left", lambda _run, _record: seconds_left)
    assert call(monkeypatch, "torch_gpt.train", *train_flags(small_dataset, tmp_path / "run", "--steps", 14)) == 0
    assert capsys.readouterr().out.count("caffeinate") == advised


def test_the_time_that_is_left_by_hand(small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 steps done of 30, 250 ms each: 5 s."""
    seen: list[float] = []
    left = run.Run._seconds_left

    def noted(running: run.Run, record: metrics.Record) -> float:
        seen.append(left(running, record | {"step_ms": 250.0}))
        return 0.0

    monkeypatch.setattr(run.sys, "platform", "darwin")
    monkeypatch.setattr(run.Run, "_seconds_left", noted)
    assert call(monkeypatch, "torch_gpt.train", *train_flags(small_dataset, tmp_path / "run", "--steps", 30)) == 0
    assert seen == [5.0]
