"""A run folder while it is written: records, checkpoints, and the wish to stop."""

import errno
import gc
import importlib.util
import json
import os
import signal
import weakref

import numpy as np
import pytest

from gpt_core import checkpoint, plan
from gpt_core.errors import InputError
from gpt_core.init import initial_weights
from gpt_core.metrics import read_metrics
from gpt_core.plan import Plan, make_plan
from gpt_core.run import Run, open_run

WORDS = "--preset tiny --vocab-size 512 --block-size 16 --n-layer 1 --n-head 2 --n-embd 6 --micro-batch-size 2 --steps 30 "
WORDS += "--accumulation 1 --val-every 8 --checkpoint-every 12 --warmup-steps 0 --grad-clip 0.5 --peak-tflops 0.001"


@pytest.fixture
def planned(small_dataset, tmp_path):
    """The plan of a run in tmp_path/run."""

    def call(*more: str) -> Plan:
        words = ["--data", str(small_dataset), "--run", str(tmp_path / "run"), *WORDS.split(" "), *more]
        return make_plan(plan.parser("mlx_gpt", ("auto",)).parse_args(words), "mlx_gpt", None)

    return call


def moments(weights: checkpoint.Arrays) -> checkpoint.Arrays:
    return {f"{name}.{moment}": value for name, value in weights.items() for moment in "mv"}


def steps(run: Run, first: int, last: int) -> None:
    """Records of steps first to last, saved where they are due."""
    weights = initial_weights(run._plan.model, 1)
    for step in range(first, last + 1):
        record = run.record(step, 5.0 - step / 10, 1e-3, 2.0, 0.25, 3 * 2**29)
        run.heed()
        run.log(record)
        if run.saves(step):
            run.save(step, weights, moments(weights))
        if run.stop_signal:
            break


def test_a_record_by_hand(planned):
    """32 tokens in 0.25 s are 128 tok/s; 21 steps an epoch; 6 x 3558 + 12 x 6 x 16 FLOPs a token; clip 0.5."""
    with open_run(planned(), {}) as run:
        record = run.record(7, 5.5, 2e-3, 2.0, 0.25, 3 * 2**29)
        steps(run, 1, 1)
    # N: embedding 512 x 6, a block 510 (see test_core_names), final norm 12; no position table
    flops = 6 * (3072 + 510 + 12) + 12 * 6 * 16
    expected = {
        "step": 7, "epoch": 0.3333, "tokens": 224, "loss": 5.5, "lr": 2e-3, "grad_norm": 2.0,
        "clipped_grad_norm": pytest.approx(0.5, rel=1e-6), "step_ms": 250.0, "tokens_per_s": 128.0,
        "mfu_pct": round(100 * 128 * flops / 1e9, 2), "peak_mem_gib": 1.5,
    }  # fmt: skip
    assert record == expected and list(record) == list(expected)


def test_without_a_known_peak_mfu_is_null(planned):
    ready = planned()
    object.__setattr__(ready, "peak_tflops", None)
    with open_run(ready, {}) as run:
        assert run.record(1, 5.5, 2e-3, 2.0, 0.25, 0)["mfu_pct"] is None


def test_what_is_no_number_stops_and_names_the_last_good_checkpoint(planned, tmp_path):
    with pytest.raises(InputError, match=r"step 15 .*step_000012"), open_run(planned(), {}) as run:
        assert run.last_good == "none"
        steps(run, 1, 14)
        run.record(15, float("nan"), 1e-3, 2.0, 0.25, 0)
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 14


def test_when_to_validate_and_to_save(planned):
    with open_run(planned(), {}) as run:
        assert [step for step in range(1, 31) if run.validates(step)] == [8, 16, 24, 30]
        assert [step for step in range(1, 31) if run.saves(step)] == [12, 24, 30]


def test_a_new_run_starts_from_the_seed_without_moments(planned):
    ready = planned("--seed", "5")
    with open_run(ready, {}) as run:
        weights, none = run.start()
    expected = initial_weights(ready.model, 5)
    assert none == {} and all((weights[name] == expected[name]).all() for name in expected)


def test_a_run_from_other_weights_says_how_it_goes_on(planned, tmp_path, capsys):
    """Its own checkpoint, not the weights it began with, is what the next command starts from."""
    with open_run(planned("--run", str(tmp_path / "base")), {}) as run:
        steps(run, 1, 12)
    capsys.readouterr()
    ready = planned("--init-from", str(tmp_path / "base"))
    with open_run(ready, {}) as run:
        weights, none = run.start()
        os.kill(os.getpid(), signal.SIGTERM)
        steps(run, 1, 30)
    expected = initial_weights(planned().model, 1)
    assert none == {} and all((weights[name] == expected[name]).all() for name in expected)
    assert "the same command without --init-from goes on from it" in capsys.readouterr().out
    assert planned().first_step == 1
    full = pytest.raises(InputError, match="put that right, then the same command without --init-from goes on; last good")
    with full, open_run(ready, {}):
        raise OSError(errno.ENOSPC, "No space left on device", "x")


def test_the_folder_of_a_whole_run_is_the_contract(planned, tmp_path, capsys):
    with open_run(planned(), {"framework": "none"}) as run:
        steps(run, 1, 30)
    folder = tmp_path / "run"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "step_" not in path.parent.name}
    assert {
        "config.json",
        "manifest.json",
        "metrics.jsonl",
        "plots/loss.png",
        "plots/grad_norm.png",
        "latest",
        "step_000030",
    } <= names
    assert (folder / "latest").read_text().strip() == "step_000030"
    assert not [name for name in names if "tmp" in name]
    assert (folder / "manifest.json").read_bytes() == (planned().dataset.folder / "manifest.json").read_bytes()
    state = json.loads((folder / "step_000030" / "state.json").read_text())
    assert (state["step"], state["tokens"], state["versions"]["framework"]) == (30, 960, "none")
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("done; checkpoint: ") and out[-2].startswith("step 30 | loss: 2.000000")


def test_a_resumed_run_writes_the_lost_records_again(planned, tmp_path):
    """Killed after step 17, with a checkpoint of step 12: records 13 to 17 go, and come again."""
    with pytest.raises(RuntimeError), open_run(planned(), {}) as run:
        steps(run, 1, 17)
        raise RuntimeError("killed")
    path = tmp_path / "run" / "metrics.jsonl"
    assert len(read_metrics(path)) == 17
    ready = planned()
    with open_run(ready, {}) as run:
        assert ready.first_step == 12 and [r["step"] for r in read_metrics(path)] == list(range(1, 13))
        weights, saved = run.start()
        assert run.last_good.endswith("step_000012") and saved.keys() == moments(weights).keys()
        steps(run, 13, 30)
    assert [r["step"] for r in read_metrics(path)] == list(range(1, 31))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(planned, tmp_path, capsys, number):
    before = signal.getsignal(number)
    with open_run(planned(), {}) as run:
        steps(run, 1, 4)
        os.kill(os.getpid(), number)
        run.heed()
        assert run.stop_signal == number.name and run.saves(5)
        assert signal.getsignal(number) == signal.SIG_DFL  # a second one ends the process
        steps(run, 5, 30)
    assert signal.getsignal(number) == before
    assert (tmp_path / "run" / "latest").read_text().strip() == "step_000005"
    assert f"stopped by {number.name}; checkpoint: {tmp_path / 'run' / 'step_000005'}" in capsys.readouterr().out
    assert planned().first_step == 5


def test_handlers_return_after_a_failure(planned):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), open_run(planned(), {}):
        assert signal.getsignal(signal.SIGTERM) != before
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_checkpoint_of_a_run_loads_as_it_was_saved(planned, tmp_path):
    ready = planned()
    with open_run(ready, {}) as run:
        steps(run, 1, 12)
    found = checkpoint.load(checkpoint.find(tmp_path / "run", "--run"))
    assert (found.step, found.model, found.train) == (12, ready.model, ready.train)
    assert found.manifest_sha256 == ready.dataset.manifest_sha256
    assert np.array_equal(found.weights["wpe.weight"], initial_weights(ready.model, 1)["wpe.weight"])


def test_tensorboard_without_its_package_is_one_line_before_any_work(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--tensorboard needs .*pip install tensorboardX"):
        planned("--tensorboard")
    assert not (tmp_path / "run").exists()


def test_the_plan_lets_go_of_what_a_run_starts_from(planned):
    """A checkpoint's arrays are freed once the model has them: 12 bytes a parameter for the whole run otherwise."""
    with open_run(planned(), {}) as run:
        steps(run, 1, 12)
    ready = planned()
    assert ready.start is not None and ready.start.weights and ready.start.moments
    with open_run(ready, {}) as run:
        weights, moments = run.start()
        held = [weakref.ref(array) for array in (*weights.values(), *moments.values())]
        assert all(reference() is not None for reference in held)
        del weights, moments
        gc.collect()
        assert all(reference() is None for reference in held)


def test_tensorboard_files_lie_in_the_run_folder(planned, tmp_path):
    pytest.importorskip("tensorboardX")
    with open_run(planned("--tensorboard"), {}) as run:
        steps(run, 1, 3)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
