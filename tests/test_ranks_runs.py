"""Training on several ranks: the same curve on 1, 2 and 4, one writer, stopping, a killed rank, resuming on another number."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, train_flags
from launches import ONE_THREAD, launched, members

from gpt_core import checkpoint
from gpt_core.metrics import read_metrics

# Losses (nats), gradient norms and validation against one rank: 0 on 2 ranks, at most 9.5e-7 (MLX) and 4.8e-7 (torch)
# on 4, 9.5e-7 where the number of ranks changes. The mistakes below: 3.1 (no sum), 0.61 (the same part), 12 steps.
CURVE_TOLERANCE = 1e-5
STEPS = 8
TWINS = ("mlx", "torch")
Outcome = dict[str, Any]
Order = Callable[..., Outcome]


@pytest.fixture(scope="module", params=TWINS)
def twin(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def order(twin: str, small_dataset: Path) -> Iterator[Order]:
    """Runs the training command on some ranks; see forked_ranks.py."""
    if sys.platform != "linux":
        pytest.skip("forks, after which the libraries of macOS may not be used")
    command = [sys.executable, "tests/forked_ranks.py", twin]
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin and process.stdout

        def ask(ranks: int, run: Path | str, steps: int, *more: object, **options: object) -> Outcome:
            flags = train_flags(small_dataset, Path(run), "--schedule", "constant", "--steps", steps)
            flags += ["--micro-batch-size", 4, "--val-every", 4, *more]
            assert process.stdin and process.stdout
            print(json.dumps({"ranks": ranks, "flags": list(map(str, flags)), **options}), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def alone(order: Order, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one rank."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert order(1, run, STEPS)["codes"] == [0]
    return run


def curve(run: Path) -> np.ndarray:
    """Every number of a run that does not come from a clock."""
    names = ("step", "tokens", "loss", "grad_norm", "val_loss", "val_bpb", "val_bpb_stream")
    return np.array([[record.get(name, 0) for name in names] for record in read_metrics(run / "metrics.jsonl")])


def assert_same_curve(run: Path, other: Path) -> None:
    one, two = curve(run), curve(other)
    assert one.shape == two.shape
    difference = np.abs(one - two).max()
    assert difference < CURVE_TOLERANCE


def assert_bitwise_equal(run: Path, other: Path) -> None:
    one, two = (checkpoint.load(checkpoint.find(folder, "--run")) for folder in (run, other))
    assert one.step == two.step
    for part in ("weights", "moments"):
        for name, value in getattr(one, part).items():
            assert np.array_equal(value, getattr(two, part)[name]), name


@pytest.mark.parametrize("ranks", [2, 4])
def test_more_ranks_have_the_same_curve_and_only_rank_0_writes(order: Order, alone: Path, ranks: int, tmp_path: Path) -> None:
    """4 ranks split the two micro-batches as well."""
    done = order(ranks, tmp_path / "FOLDER", STEPS)
    assert done["codes"] == [0] * ranks, done["err"]
    assert_same_curve(tmp_path / "rank0", alone)
    assert [path.name for path in tmp_path.iterdir()] == ["rank0"]
    assert done["out"][1:] == done["err"][1:] == [""] * (ranks - 1)
    assert "done; checkpoint" in done["out"][0]
    assert sorted(path.name for path in (tmp_path / "rank0").iterdir()) == sorted(path.name for path in alone.iterdir())


@pytest.mark.parametrize("more", [[], ["--optimizer", "muon", "--dropout", 0.3, "--token-noise", 0.3]])
def test_packed_rows_are_counted_over_all_ranks(order: Order, more: list[object], tmp_path: Path) -> None:
    """Padding makes the number of targets differ between ranks. With noise, each rank draws what one alone would there."""
    for ranks in (1, 2):
        done = order(ranks, tmp_path / str(ranks) / "FOLDER", 4, "--document-mask", *more)
        assert done["codes"] == [0] * ranks, done["err"]
    assert_same_curve(tmp_path / "2" / "rank0", tmp_path / "1" / "rank0")


@pytest.mark.parametrize("mistake", ["forget_to_sum", "read_the_same_part"])
def test_the_curve_shows_mistakes(order: Order, alone: Path, mistake: str, tmp_path: Path) -> None:
    assert order(2, tmp_path / "run", STEPS, mistake=mistake)["codes"] == [0, 0]
    with pytest.raises(AssertionError):
        assert_same_curve(tmp_path / "run", alone)


def test_a_run_goes_on_on_another_number_of_ranks(order: Order, alone: Path, tmp_path: Path) -> None:
    """1 rank for 3 steps, 4 ranks for one, 2 ranks to the end; ranks other than 0 have no checkpoint of their own."""
    for ranks, steps in ((1, 3), (4, 4), (2, STEPS)):
        done = order(ranks, tmp_path / "FOLDER", steps)
        assert done["codes"] == [0] * ranks, done["err"]
    # the last step of each part is validated as well
    one, two = curve(tmp_path / "rank0")[:, :4], curve(alone)[:, :4]
    assert np.abs(one - two).max() < CURVE_TOLERANCE


def test_a_run_goes_on_bitwise_on_the_same_number_of_ranks(order: Order, tmp_path: Path) -> None:
    """4 ranks: a sum of two has no order that could change."""
    order(4, tmp_path / "whole" / "FOLDER", 3)
    for steps in (2, 3):
        order(4, tmp_path / "parts" / "FOLDER", steps)
    assert_bitwise_equal(tmp_path / "parts" / "rank0", tmp_path / "whole" / "rank0")


def test_a_signal_to_any_rank_stops_all_with_a_checkpoint(order: Order, tmp_path: Path) -> None:
    done = order(2, tmp_path / "FOLDER", 5000, send=[int(signal.SIGTERM), 1, 6])
    assert done["codes"] == [0, 0], done["err"]
    assert "stopped by SIGTERM" in done["out"][0]
    stopped = checkpoint.load(checkpoint.find(tmp_path / "rank0", "--run")).step
    assert 6 <= stopped < 5000 and len(curve(tmp_path / "rank0")) == stopped


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_others_with_one_line(order: Order, killed: int, alone: Path, tmp_path: Path) -> None:
    done = order(2, tmp_path / "FOLDER", 5000, "--checkpoint-every", 3, send=[int(signal.SIGKILL), killed, 7])
    assert done["codes"][killed] == -signal.SIGKILL and done["codes"][1 - killed] == 2
    lines = [line for line in done["err"][1 - killed].splitlines() if not line.startswith("[ring]")]
    assert len(lines) == 1 and lines[0].startswith(f"error: rank {1 - killed} of 2 lost another one"), lines
    newest = checkpoint.load(checkpoint.find(tmp_path / "rank0", "--run")).step
    assert newest >= 6 and newest % 3 == 0
    if killed:
        assert order(4, tmp_path / "FOLDER", newest + 1)["codes"] == [0] * 4
        one, two = (curve(run)[: min(newest + 1, STEPS), :4] for run in (tmp_path / "rank0", alone))
        assert np.abs(one - two).max() < CURVE_TOLERANCE


def test_shards_have_the_same_curve_and_whole_checkpoints(order: Order, twin: str, alone: Path, tmp_path: Path) -> None:
    """Begun on one rank, sharded over 2 with its moments, ended on one; MLX refuses."""
    if twin == "mlx":
        done = order(2, tmp_path / "FOLDER", STEPS, "--shard")
        assert done["codes"] == [2, 2] and done["err"][0].startswith("error: --shard") and done["err"][1] == ""
        return
    done = order(2, tmp_path / "none" / "FOLDER", STEPS, "--shard", "--optimizer", "muon")
    assert done["codes"] == [2, 2] and "Muon needs whole ones" in done["err"][0] and not (tmp_path / "none").exists()
    for ranks, steps, more in ((1, 2, []), (2, 6, ["--shard"]), (1, STEPS, [])):
        done = order(ranks, tmp_path / "FOLDER", steps, *more)
        assert done["codes"] == [0] * ranks, done["err"]
    one, two = curve(tmp_path / "rank0"), curve(alone)
    assert np.abs(one - two)[:, :4].max() < CURVE_TOLERANCE
    assert np.abs(one - two)[3].max() < CURVE_TOLERANCE  # validated by sharded weights


def test_bad_launches_are_one_line(order: Order, tmp_path: Path, small_dataset: Path) -> None:
    odd = order(3, tmp_path / "FOLDER", 5)
    assert odd["codes"] == [2] * 3 and "".join(odd["out"] + odd["err"][1:]) == ""
    assert odd["err"][0].count("\n") == 1
    assert "--micro-batch-size 4 x --accumulation 2 is 8 sequences a step, which 3 ranks" in odd["err"][0]
    other = order(2, tmp_path / "FOLDER", 5, mistake="have_other_data")
    assert other["codes"] == [2, 2] and "".join(other["out"][1:] + other["err"][1:]) == ""
    assert (
        other["err"][0].count("\n") == 1
        and "rank 1 has another manifest (--data) than rank 0, 000000000000..." in other["err"][0]
    )
    assert not list(tmp_path.glob("*/*"))


def test_the_launcher_starts_ranks_and_its_end_stops_them(twin: str, small_dataset: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun, which passes it on; mlx.launch just ends, and its ranks notice."""
    run = tmp_path / "run"
    flags = train_flags(small_dataset, run, "--schedule", "constant", "--steps", 100_000, "--checkpoint-every", 100_000)
    with launched(twin, 2, *flags) as process:
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").is_file() or (run / "metrics.jsonl").stat().st_size < 2000:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        assert len(members(process.pid)) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
        while not (run / "latest").is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert checkpoint.load(checkpoint.find(run, "--run")).step == len(curve(run)) > 5
