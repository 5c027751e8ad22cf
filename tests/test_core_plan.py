"""A training command before it starts: flags and presets resolved, data and run folder checked."""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import TRAIN_ROWS, make_dataset

from gpt_core import checkpoint, plan
from gpt_core.config import presets
from gpt_core.errors import InputError
from gpt_core.init import initial_weights
from gpt_core.plan import Plan, configs, describe, make_plan

SMALL = ["--preset=tiny", "--vocab-size=512", "--block-size=16", "--n-layer=1", "--n-head=2", "--n-embd=6"]
SMALL += ["--micro-batch-size=2", "--accumulation=1", "--lr=0.002", "--schedule=linear", "--warmup-steps=5", "--steps=30"]
TINY = presets()["tiny"][1]


def parse(*words: str) -> argparse.Namespace:
    return plan.parser("mlx_gpt", ("auto", "cpu")).parse_args([str(word) for word in words])


@pytest.fixture
def planned(small_dataset, tmp_path):
    """make_plan of a small model on the small dataset, with more flags; the last of a flag counts."""

    def call(*words: str, data: Path = small_dataset) -> Plan:
        return make_plan(parse("--data", str(data), "--run", str(tmp_path / "run"), *SMALL, *words), "mlx_gpt", None)

    return call


def save(ready: Plan, step: int) -> Path:
    """A checkpoint of a plan, as a run would write it."""
    ready.run.mkdir(exist_ok=True)
    weights = initial_weights(ready.model, 1)
    moments = {f"{name}.{moment}": value for name, value in weights.items() for moment in "mv"}
    tokenizer, manifest = ready.dataset.folder / "tokenizer.json", ready.dataset.manifest_sha256
    return checkpoint.save(ready.run, ready.model, ready.train, step, 0, weights, moments, tokenizer, manifest, {})


def test_flags_lie_on_top_of_the_preset():
    model, train = configs(parse("--preset", "tiny", "--n-layer", "2", "--lr", "0.5"))
    tiny_model, tiny_train = presets()["tiny"]
    assert model == dataclasses.replace(tiny_model, n_layer=2) != tiny_model
    assert train == dataclasses.replace(tiny_train, lr=0.5) != tiny_train


@pytest.mark.parametrize(
    ("words", "steps", "epochs"),
    [
        ([], TINY.steps, TINY.epochs),
        (["--epochs", "5"], None, 5),
        (["--epochs", "5", "--steps", "70"], 70, 5),
        (["--steps", "70"], 70, TINY.epochs),
    ],
)
def test_epochs_overrule_the_steps_of_the_preset(words, steps, epochs):
    _, train = configs(parse("--preset", "tiny", *words))
    assert (train.steps, train.epochs) == (steps, epochs)


@pytest.mark.parametrize("value", ["0", "-5.2", "nan"])
def test_peak_must_be_positive(value):
    with pytest.raises(InputError, match="--peak-tflops"):
        configs(parse(f"--peak-tflops={value}"))


def test_a_new_run(planned, tmp_path):
    """689 training tokens in windows of 16: 43 windows, 21 steps of 2 an epoch."""
    ready = planned("--peak-tflops", "5.2")
    assert (ready.loader.sequences, ready.loader.steps_per_epoch, ready.total_steps) == (43, 21, 30)
    assert (ready.start, ready.first_step, ready.peak_tflops, ready.run) == (None, 0, 5.2, tmp_path / "run")
    assert planned("--epochs", "3", "--steps", "64").total_steps == 64
    assert not ready.run.exists()


@pytest.mark.parametrize(("twin", "name"), [("mlx_gpt", "tiny-mlx"), ("torch_gpt", "tiny-torch")])
def test_the_default_run_folder(small_dataset, tmp_path, monkeypatch, twin, name):
    monkeypatch.chdir(tmp_path)
    assert make_plan(parse("--data", str(small_dataset), *SMALL), twin, 2.6).run == Path("runs") / name
    assert plan.default_run("seed", twin) == Path("runs") / name.replace("tiny", "seed")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--vocab-size", "399"], ["--vocab-size 399", "400 tokens"]),
        (["--micro-batch-size", "44"], ["--micro-batch-size 44", "689"]),
        (["--resume", "required"], ["--run", "no checkpoint to resume from"]),
    ],
)
def test_what_does_not_fit_is_named(planned, words, parts):
    with pytest.raises(InputError) as error:
        planned(*words)
    assert all(part in str(error.value) for part in parts)
    planned()  # negative control


def test_a_validation_split_not_longer_than_the_context(planned, small_dataset, tmp_path):
    """156 validation tokens: 155 are the longest context, which needs a target more. The run folder is not made."""
    data = make_dataset(tmp_path / "data", TRAIN_ROWS, ["واش"], shards=(1, 1))
    with pytest.raises(InputError, match=r"--block-size 16 .* validation tokens of .*data"):
        planned(data=data)
    run = ["--run", str(tmp_path / "runs" / "x")]
    with pytest.raises(InputError, match=f"--block-size 156 .* 156 validation tokens of {small_dataset}"):
        planned("--block-size", "156", *run)
    assert not (tmp_path / "runs").exists()
    assert planned("--block-size", "155", *run).model.block_size == 155


@pytest.fixture
def base(planned, tmp_path):
    """A checkpoint of another run to start from, its weights not those of the seed."""
    return save(planned("--run", str(tmp_path / "base")), 20)


def test_a_new_run_starts_from_the_weights_of_another(planned, base):
    """At step 0, without moments, with a recipe of its own; from the run folder or from its checkpoint."""
    for source in (base, base.parent):
        ready = planned("--init-from", str(source), "--lr", "0.25", "--steps", "7")
        assert (ready.start, ready.first_step, ready.total_steps, ready.train.lr) == (None, 0, 7, 0.25)
        assert ready.init and ready.init.folder == base and ready.init.moments == {}
        expected, seeded = initial_weights(ready.model, 1), initial_weights(ready.model, ready.train.seed)
        assert all(np.array_equal(ready.init.weights[name], expected[name]) for name in expected)
        assert not np.array_equal(expected["wte.weight"], seeded["wte.weight"])
        assert f"starts from the weights of {base}" in plan.banner(ready, "CPU")
    assert planned().init is None


def test_weights_of_another_architecture_are_refused(planned, base):
    with pytest.raises(InputError, match=r"--n-layer 2 differs from 1 in .*step_000020: .*--init-from"):
        planned("--init-from", str(base), "--n-layer", "2")


def test_weights_for_another_tokenizer_are_refused(planned, base, tmp_path):
    other = make_dataset(tmp_path / "other", TRAIN_ROWS[:30], TRAIN_ROWS[:9])
    with pytest.raises(InputError, match=rf"--init-from {base} has the tokenizer .*--data {other} has"):
        planned("--init-from", str(base), data=other)
    assert not (tmp_path / "run").exists()


def test_weights_are_not_taken_for_a_run_that_goes_on(planned, base, tmp_path):
    save(planned(), 10)
    with pytest.raises(InputError, match=rf"--init-from {base} starts a new run, --run {tmp_path / 'run'} has checkpoints"):
        planned("--init-from", str(base))
    assert planned().first_step == 10


def test_weights_that_are_not_there_are_named(planned, tmp_path):
    with pytest.raises(InputError, match=r"--init-from .*nowhere does not exist"):
        planned("--init-from", str(tmp_path / "nowhere"))


def test_a_run_goes_on_from_its_latest_checkpoint(planned):
    for step in (10, 20):
        save(planned(), step)
    ready = planned()
    assert ready.start and (ready.first_step, ready.start.folder.name) == (20, "step_000020")
    assert planned("--resume", "required").first_step == 20
    assert planned("--val-every", "3", "--keep-last", "9", "--dtype", "bfloat16").first_step == 20


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--resume", "never"], ["--run", "exists"]),
        (["--n-layer", "2"], ["--n-layer 2 differs from 1", "step_000020"]),
        (["--lr", "0.25"], ["--lr 0.25 differs from 0.002", "step_000020"]),
        (["--steps", "40"], ["--steps 40 differs from 30", "step_000020"]),  # a linear decay looks ahead
    ],
)
def test_another_run_is_not_gone_on_with(planned, words, parts):
    save(planned(), 20)
    with pytest.raises(InputError) as error:
        planned(*words)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_a_constant_rate_may_be_prolonged_but_not_ended_in_the_past(planned):
    constant = ["--schedule", "constant", "--warmup-steps", "0"]
    save(planned(*constant), 20)
    assert planned(*constant, "--steps", "400").total_steps == 400
    assert planned(*constant, "--steps", "21").total_steps == 21
    with pytest.raises(InputError, match="is at step 20, beyond the 19 steps"):
        planned(*constant, "--steps", "19")


def test_other_data_is_refused(planned, small_dataset, tmp_path):
    """Another tokenizer; the same tokenizer with another manifest."""
    save(planned(), 20)
    other = make_dataset(tmp_path / "other", TRAIN_ROWS[:30], TRAIN_ROWS[:9])
    with pytest.raises(InputError, match=r"--data .*tokenizer"):
        planned(data=other)
    copy = shutil.copytree(small_dataset, tmp_path / "copy")
    assert planned(data=copy).first_step == 20
    (copy / "manifest.json").write_text((copy / "manifest.json").read_text() + " ")
    with pytest.raises(InputError, match=r"--data .*manifest"):
        planned(data=copy)


def test_a_damaged_latest_checkpoint_is_named(planned):
    folder = save(planned(), 20)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"step_000020.model\.safetensors"):
        planned()


def test_a_run_that_is_a_file(planned, tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match=r"--run .* is a file"):
        planned()


def test_dry_run_without_data_knows_all_but_the_steps(tmp_path):
    """The reference run; its last line is JSON."""
    facts = json.loads(describe(parse("--data", str(tmp_path / "none")), "Apple M1 Pro").splitlines()[-1])
    assert (facts["parameters"], facts["tokens_per_step"], facts["flops_per_token"]) == (93_313_536, 2_048, 614_145_024)
    assert (facts["steps"], facts["flops"], facts["device"]) == (None, None, "Apple M1 Pro")
    assert facts["model"]["n_layer"] == 12 and facts["train"]["lr"] == 1e-3


def test_dry_run_with_data_knows_the_steps(small_dataset):
    text = describe(parse("--data", str(small_dataset), *SMALL[:-1], "--epochs", "3"), "CPU")
    facts = json.loads(text.splitlines()[-1])
    assert facts["steps"] == 63 and facts["flops"] == 63 * 32 * facts["flops_per_token"]
    assert "optimizer steps: 63" in text


def test_dry_run_refuses_what_the_run_refuses(small_dataset):
    with pytest.raises(InputError, match="--vocab-size 399"):
        describe(parse("--data", str(small_dataset), *SMALL, "--vocab-size", "399"), "CPU")
