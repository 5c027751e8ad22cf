"""Whole runs: what they leave behind, stopping and resuming, and handing a run from one twin to the other."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from commands import call, start, train_flags
from twins import TWINS

from gpt_core import checkpoint
from gpt_core.metrics import FIELDS, VALIDATION_FIELDS, Record, read_metrics

# One run of 20 steps handed over after 10, against either twin alone: measured 1.4e-6 and 1.9e-6.
HANDOVER_TOLERANCE = 1e-4
OTHER = {"mlx": "torch", "torch": "mlx"}


def train(monkeypatch: pytest.MonkeyPatch, name: str, data: Path, run: Path, steps: int = 20, *more: object) -> list[Record]:
    """Trains with a constant learning rate, so that a run may end early and be continued."""
    flags = train_flags(data, run, "--schedule", "constant", "--steps", steps, *more)
    assert call(monkeypatch, f"{name}_gpt.train", *flags) == 0
    return read_metrics(run / "metrics.jsonl")


def assert_bitwise_equal(one: Path, other: Path) -> None:
    """Weights and moments of the latest checkpoints."""
    first, second = (checkpoint.load(checkpoint.find(run, "--run")) for run in (one, other))
    assert first.step == second.step
    for found, expected in ((first.weights, second.weights), (first.moments, second.moments)):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name, strict=True)


def trajectory(records: list[Record]) -> list[dict[str, float]]:
    """Records without their clocks."""
    return [{k: v for k, v in r.items() if k not in ("step_ms", "tokens_per_s", "mfu_pct", "peak_mem_gib")} for r in records]


@pytest.mark.parametrize("name", TWINS)
def test_what_a_run_leaves_behind(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    records = train(monkeypatch, name, small_dataset, run, 12, "--checkpoint-every", 5, "--keep-last", 2, "--peak-tflops", 5.2)
    assert sorted(path.name for path in run.iterdir()) == [
        ".lock",
        "config.json",
        "latest",
        "manifest.json",
        "metrics.jsonl",
        "plots",
        "step_000010",
        "step_000012",
    ]
    assert (run / "latest").read_text() == "step_000012\n"
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["grad_norm.png", "loss.png"]
    assert [record["step"] for record in records] == list(range(1, 13))
    assert all(list(record)[: len(FIELDS)] == list(FIELDS) for record in records)
    assert [r["step"] for r in records if set(VALIDATION_FIELDS) <= set(r)] == [5, 10, 12]
    assert records[-1]["tokens"] == 12 * 3 * 2 * 16
    for record in records:
        assert record["clipped_grad_norm"] <= 1.0 + 1e-6
        assert record["tokens_per_s"] == pytest.approx(96 / (record["step_ms"] / 1000), rel=1e-3)
        assert record["mfu_pct"] is not None and record["peak_mem_gib"] > 0
    assert records[-1]["loss"] < records[0]["loss"] - 0.05
    assert "done; checkpoint:" in capsys.readouterr().out
    state = json.loads((run / "step_000012" / "state.json").read_text())
    assert state["versions"]["framework"] == name and state["step"] == 12


@pytest.mark.parametrize("packing", ["--no-document-mask", "--document-mask"])
@pytest.mark.parametrize("name", TWINS)
def test_resuming_is_exact(
    name: str, packing: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(monkeypatch, name, small_dataset, tmp_path / "whole", 20, packing)
    train(monkeypatch, name, small_dataset, tmp_path / "parts", 7, packing)
    parts = train(monkeypatch, name, small_dataset, tmp_path / "parts", 20, packing)
    assert_bitwise_equal(tmp_path / "parts", tmp_path / "whole")
    first = {record["step"]: record for record in trajectory(parts)}
    for record in trajectory(whole):  # step 7 was a last one, and validated, in the short run only
        found = first[record["step"]]
        assert {key: found[key] for key in record} == record


@pytest.mark.parametrize("name", TWINS)
def test_resuming_without_moments_is_not_exact(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the bitwise comparison must catch."""
    train(monkeypatch, name, small_dataset, tmp_path / "whole", 10)
    train(monkeypatch, name, small_dataset, tmp_path / "parts", 7)
    load = checkpoint.load

    def forgetful(folder: Path) -> checkpoint.Checkpoint:
        found = load(folder)
        return checkpoint.Checkpoint(**(vars(found) | {"moments": {k: v * 0 for k, v in found.moments.items()}}))

    monkeypatch.setattr(checkpoint, "load", forgetful)
    train(monkeypatch, name, small_dataset, tmp_path / "parts", 10)
    monkeypatch.setattr(checkpoint, "load", load)
    with pytest.raises(AssertionError):
        assert_bitwise_equal(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("name", TWINS)
def test_records_after_the_checkpoint_are_written_again(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between checkpoints leaves records that the resumed run replaces, and maybe half a line."""
    run = tmp_path / "run"
    whole = train(monkeypatch, name, small_dataset, run, 8)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(whole[-1] | {"step": 9, "loss": 99.0}) + "\n" + '{"step": 10, "lo')
    resumed = train(monkeypatch, name, small_dataset, run, 11)
    assert [record["step"] for record in resumed] == list(range(1, 12))
    assert resumed[8]["loss"] < 10


@pytest.mark.parametrize("signal_sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", TWINS)
def test_a_signal_saves_and_the_run_goes_on_exactly(
    name: str, signal_sent: signal.Signals, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, run = 4000, tmp_path / "run"
    flags = train_flags(small_dataset, run, "--schedule", "constant", "--checkpoint-every", 100_000)
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    process = start(f"{name}_gpt.train", *flags, "--steps", steps)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").is_file() or (run / "metrics.jsonl").stat().st_size < 2000:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal_sent)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"stopped by {signal_sent.name}" in out
    stopped = checkpoint.load(checkpoint.find(run, "--run")).step
    assert 5 < stopped < steps
    assert len(read_metrics(run / "metrics.jsonl")) == stopped
    train(monkeypatch, name, small_dataset, run, stopped + 3)
    train(monkeypatch, name, small_dataset, tmp_path / "whole", stopped + 3)
    assert_bitwise_equal(run, tmp_path / "whole")


@pytest.mark.parametrize("packing", ["--no-document-mask", "--document-mask"])
@pytest.mark.parametrize("name", TWINS)
def test_a_run_handed_to_the_other_twin_keeps_its_curve(
    name: str, packing: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = train(monkeypatch, name, small_dataset, tmp_path / "alone", 20, packing)
    train(monkeypatch, OTHER[name], small_dataset, tmp_path / "shared", 10, packing)
    shared = train(monkeypatch, name, small_dataset, tmp_path / "shared", 20, packing)
    difference = np.abs([one["loss"] - other["loss"] for one, other in zip(alone, shared, strict=True)])
    assert difference.max() < HANDOVER_TOLERANCE
    versions = json.loads((tmp_path / "shared" / "step_000020" / "state.json").read_text())["versions"]
    assert versions["framework"] == name


def test_the_handover_test_sees_lost_moments(small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = checkpoint.load

    def forgetful(folder: Path) -> checkpoint.Checkpoint:
        found = load(folder)
        return checkpoint.Checkpoint(**(vars(found) | {"moments": {k: v * 0 for k, v in found.moments.items()}}))

    monkeypatch.setattr(checkpoint, "load", forgetful)
    with pytest.raises(AssertionError):
        test_a_run_handed_to_the_other_twin_keeps_its_curve("torch", "--no-document-mask", small_dataset, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", TWINS)
def test_a_finished_run_has_nothing_to_do(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(monkeypatch, name, small_dataset, tmp_path / "run", 3)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}
    assert len(train(monkeypatch, name, small_dataset, tmp_path / "run", 3)) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")} == before


@pytest.mark.parametrize("name", TWINS)
def test_a_corrupt_latest_checkpoint_falls_back_to_the_one_before(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(monkeypatch, name, small_dataset, tmp_path / "whole", 12)
    train(monkeypatch, name, small_dataset, tmp_path / "run", 9, "--checkpoint-every", 4)
    damaged = tmp_path / "run" / "step_000009" / "optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-7] ^= 4
    damaged.write_bytes(content)
    capsys.readouterr()
    resumed = train(monkeypatch, name, small_dataset, tmp_path / "run", 12)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "step_000009" in err and "going on from" in err and "step_000008" in err
    assert [record["loss"] for record in resumed] == [record["loss"] for record in whole]
    assert_bitwise_equal(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("name", TWINS)
def test_a_folder_in_use_is_refused_until_its_process_is_dead(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    run = tmp_path / "run"
    flags = train_flags(small_dataset, run, "--schedule", "constant")
    process = start(f"{name}_gpt.train", *flags, "--steps", 100_000)
    try:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").is_file() or (run / "metrics.jsonl").stat().st_size == 0:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        assert call(monkeypatch, f"{name}_gpt.train", *flags, "--steps", 5) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "in use" in err
    finally:
        process.kill()
        process.communicate()
    train(monkeypatch, name, small_dataset, run, 5)


@pytest.mark.parametrize("name", TWINS)
def test_tensorboard_shows_the_records(name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX")
    train(monkeypatch, name, small_dataset, tmp_path / "run", 3, "--tensorboard")
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", TWINS)
def test_a_loss_that_is_not_finite_stops_before_the_update(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(monkeypatch, name, small_dataset, run, 4)
    load = checkpoint.load

    def poisoned(folder: Path) -> checkpoint.Checkpoint:
        found = load(folder)
        found.weights["wpe.weight"][3, 3] = np.inf
        return found

    monkeypatch.setattr(checkpoint, "load", poisoned)
    capsys.readouterr()
    flags = train_flags(small_dataset, run, "--schedule", "constant", "--steps", 9)
    assert call(monkeypatch, f"{name}_gpt.train", *flags) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "step 5" in message and "step_000004" in message
    assert len(read_metrics(run / "metrics.jsonl")) == 4 and (run / "latest").read_text() == "step_000004\n"
