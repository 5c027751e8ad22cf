"""--init-from: a new run from a checkpoint's weights, in both trainers; what does not fit is refused before anything runs."""

import json
import shutil

import numpy as np
import pytest
from weights_samples import MODEL, run_command, size_flags, write_dataset, write_run, write_tokenizer

from gpt_core import checkpoint
from gpt_core.errors import InputError
from gpt_core.files import sha256
from gpt_core.plan import make_plan, parser
from gpt_core.run import open_run
from weights.card import card
from weights.source import read_twin

SIZES = size_flags(MODEL)
RECIPE = ["--steps", "2", "--val-every", "2", "--val-batches", "1", "--checkpoint-every", "2", "--lr", "1e-9"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init")
    write_run(folder / "base")
    write_dataset(folder / "data", folder / "base" / "step_000030" / "tokenizer.json")
    return folder


def planned(home, run, *extra):
    arguments = ["--data", home / "data", "--run", run, "--init-from", home / "base", *SIZES, *RECIPE, *extra]
    return make_plan(parser("twin", ("auto",)).parse_args([str(argument) for argument in arguments]), "twin", None)


@pytest.mark.parametrize("twin", ["torch_gpt", "mlx_gpt"])
def test_training_starts_from_the_weights(home, tmp_path, twin):
    """With a learning rate of 1e-9 two steps move a weight by 2e-9 at most, so the checkpoint is where it began."""
    arguments = ["--data", home / "data", "--run", tmp_path / "run", "--init-from", home / "base", "--device", "cpu"]
    done = run_command(f"{twin}.train", *arguments, *SIZES, *RECIPE)
    assert done.returncode == 0, done.stderr
    assert "from the weights of" in done.stdout
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    before, after = checkpoint.load(home / "base" / "step_000030"), checkpoint.load(tmp_path / "run" / "step_000002")
    for name, values in before.weights.items():
        np.testing.assert_allclose(after.weights[name], values, rtol=0, atol=1e-6)
    assert max(moment.max() for moment in after.moments.values()) < 1, "the base's moments are all above 1: none is taken over"
    assert (tmp_path / "run" / "manifest.json").read_bytes() == (home / "data" / "manifest.json").read_bytes()
    base = sha256(home / "base" / "step_000030" / "model.safetensors")
    assert after.versions["init_from"] == base
    assert f"Began with the weights of another model (`model.safetensors`, SHA-256 `{base[:12]}`)" in card(
        read_twin(tmp_path / "run"), "tuned"
    )
    assert "Began with" not in card(read_twin(home / "base"), "base")


def test_the_base_is_known_after_a_resume(home, tmp_path):
    with open_run(planned(home, tmp_path / "run"), {"framework": "twin"}) as run:
        weights, moments = run.start()
        moments = {f"{name}.{moment}": value for name, value in weights.items() for moment in "mv"}
        run.save(2, weights, moments)
    arguments = [str(word) for word in ("--data", home / "data", "--run", tmp_path / "run", *SIZES, *RECIPE, "--steps", "4")]
    with open_run(make_plan(parser("twin", ("auto",)).parse_args(arguments), "twin", None), {"framework": "twin"}) as run:
        run.save(4, *run.start())
    for step in (2, 4):
        versions = checkpoint.load(checkpoint.step_folder(tmp_path / "run", step)).versions
        assert versions["init_from"] == sha256(home / "base" / "step_000030" / "model.safetensors")


def test_a_run_that_is_there_is_not_started_anew(home, tmp_path):
    shutil.copytree(home / "base", tmp_path / "run")
    with pytest.raises(InputError, match=r"starts a new run, --run .* has checkpoints already: .* drop --init-from"):
        planned(home, tmp_path / "run")


def test_resume_required_and_init_from_contradict(home, tmp_path):
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        planned(home, tmp_path / "run", "--resume", "required")


def test_another_architecture_is_refused(home, tmp_path):
    with pytest.raises(InputError, match=r"--n-layer 3 differs from 2 in .*base.*: give the same, or another --init-from"):
        planned(home, tmp_path / "run", "--n-layer", "3")


def test_another_tokenizer_is_refused(home, tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", vocab_size=280)
    data = write_dataset(tmp_path / "data", tokenizer, rows=200)
    with pytest.raises(InputError, match=r"--init-from .* has the tokenizer .* --data .* has"):
        planned(home, tmp_path / "run", "--data", str(data))


def test_what_is_no_checkpoint_is_refused(home, tmp_path):
    for path, named in ((tmp_path / "nowhere", "does not exist"), (home / "data", "is no checkpoint")):
        with pytest.raises(InputError, match=f"--init-from .* {named}"):
            planned(home, tmp_path / "run", "--init-from", str(path))


def test_a_checkpoint_without_moments_cannot_be_resumed(home, tmp_path):
    base = checkpoint.load(home / "base" / "step_000030")
    run = tmp_path / "run"
    run.mkdir()
    data = json.loads((home / "base" / "step_000030" / "state.json").read_text())
    assert data["step"] == 30
    tokenizer = base.folder / "tokenizer.json"
    checkpoint.write(run / "step_000030", base.model, base.train, 30, 0, base.weights, {}, tokenizer.read_bytes(), "", {})
    arguments = [
        "--data",
        home / "data",
        "--run",
        run,
        *SIZES,
        "--steps",
        "40",
        "--micro-batch-size",
        "2",
        "--accumulation",
        "1",
    ]
    args = parser("twin", ("auto",)).parse_args([str(argument) for argument in arguments])
    with pytest.raises(InputError, match="has no moments: start with --init-from"):
        make_plan(args, "twin", None)
