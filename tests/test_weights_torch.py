"""PyTorch files: nanoGPT checkpoints and state dicts come in with their moments; files that carry code do not."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from torch.optim import AdamW
from weights_samples import MODEL, SIZES, last_json, run_command, size_flags, write_dataset, write_run, write_tokenizer

from gpt_core import checkpoint, cli
from gpt_core.errors import InputError
from gpt_core.init import initial_weights
from torch_gpt.model import GPT
from torch_gpt.optim import make_optimizer
from torch_gpt.state import load_weights, read_moments, read_weights
from weights.convert import convert, main
from weights.source import TrainConfig


def stepped(bias=True):
    """A torch twin and its optimizer after two steps; without `bias`, biases stay zero as if they were not there."""
    model = GPT(MODEL)
    load_weights(model, initial_weights(MODEL, seed=3))
    optimizer = make_optimizer(model, TrainConfig())
    for _ in range(2):
        model(torch.arange(1, 90)[None]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    if not bias:
        with torch.no_grad():
            [parameter.zero_() for name, parameter in model.named_parameters() if name.endswith("bias")]
    return model, optimizer


def nanogpt(path, model, optimizer, bias=True, **config):
    """A checkpoint as nanoGPT's train.py saves it: prefixed names, the tied head, matrices numbered before vectors."""
    state = {f"_orig_mod.transformer.{name}": value for name, value in model.state_dict().items()}
    if not bias:
        state = {name: value for name, value in state.items() if not name.endswith("bias")}
    state["_orig_mod.lm_head.weight"] = state["_orig_mod.transformer.wte.weight"]
    sizes = {name: getattr(MODEL, name) for name in SIZES}
    arguments = sizes | {"bias": bias, "dropout": 0.0}  # all that nanoGPT has
    saved = {"model": state, "optimizer": optimizer, "model_args": arguments, "iter_num": 2, "best_val_loss": torch.tensor(3.0)}
    torch.save(saved | {"config": config}, path)
    write_tokenizer(path.parent / "tokenizer.json")
    return path


def test_a_nanogpt_checkpoint_keeps_weights_moments_and_recipe(tmp_path):
    model, optimizer = stepped()
    config = {"learning_rate": 6e-4, "decay_lr": True, "min_lr": 6e-5, "max_iters": 50, "batch_size": 4, "warmup_iters": 5}
    path = nanogpt(tmp_path / "ckpt.pt", model, optimizer.optimizers[0].state_dict(), **config)
    convert(path, tmp_path / "twin", "twin")
    loaded = checkpoint.load(tmp_path / "twin")
    assert loaded.step == 2
    assert (loaded.train.lr, loaded.train.schedule, loaded.train.steps, loaded.train.micro_batch_size) == (
        6e-4,
        "cosine",
        50,
        4,
    )
    for found, expected in ((loaded.weights, read_weights(model)), (loaded.moments, read_moments(model, optimizer))):
        assert set(found) == set(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_another_optimizers_state_is_left_behind(tmp_path):
    model, optimizer = stepped()
    state = optimizer.optimizers[0].state_dict()
    momentum = {index: {"momentum_buffer": values["exp_avg"]} for index, values in state["state"].items()}
    convert(nanogpt(tmp_path / "ckpt.pt", model, state | {"state": momentum}), tmp_path / "twin", "twin")
    loaded = checkpoint.load(tmp_path / "twin")
    assert loaded.moments == {} and np.array_equal(loaded.weights["wte.weight"], read_weights(model)["wte.weight"])


def test_masks_and_other_names_in_a_state_dict(tmp_path):
    """A mask of bytes is left out; names of another wrapper are one line."""
    model, _ = stepped()
    masked = nanogpt(tmp_path / "ckpt.pt", model, None)
    saved = torch.load(masked, weights_only=True)
    saved["model"]["_orig_mod.transformer.h.0.attn.bias"] = torch.ones(1, 1, 96, 96, dtype=torch.uint8)
    torch.save(saved, masked)
    convert(masked, tmp_path / "twin", "twin")
    assert np.array_equal(checkpoint.load(tmp_path / "twin").weights["wte.weight"], read_weights(model)["wte.weight"])
    saved["model"] = {name.replace("_orig_mod.transformer", "net"): value for name, value in saved["model"].items()}
    torch.save(saved, masked)
    with pytest.raises(InputError, match=r"ckpt\.pt"):
        convert(masked, tmp_path / "other", "twin")
    assert not (tmp_path / "other").exists()


def test_a_nanogpt_checkpoint_without_biases_gets_zeros(tmp_path):
    model, _ = stepped(bias=False)
    named = [(name, p) for name, p in model.named_parameters() if not name.endswith("bias")]
    groups = [{"params": [p for _, p in named if (p.ndim >= 2) == matrix]} for matrix in (True, False)]
    optimizer = AdamW(groups)
    model(torch.arange(1, 90)[None]).square().mean().backward()
    optimizer.step()
    convert(nanogpt(tmp_path / "ckpt.pt", model, optimizer.state_dict(), bias=False), tmp_path / "twin", "twin")
    loaded = checkpoint.load(tmp_path / "twin")
    for name, parameter in named:
        assert np.array_equal(loaded.weights[name], parameter.detach().numpy())
        assert np.array_equal(loaded.moments[f"{name}.v"], optimizer.state[parameter]["exp_avg_sq"].numpy())
    assert not any(loaded.weights[name].any() for name in loaded.weights if name.endswith("bias"))


def test_a_run_goes_on_from_an_imported_checkpoint(tmp_path):
    model, optimizer = stepped()
    path = nanogpt(tmp_path / "ckpt.pt", model, optimizer.optimizers[0].state_dict())
    run = tmp_path / "run"
    convert(path, run / "step_000002", "twin")
    data = write_dataset(tmp_path / "data", tmp_path / "tokenizer.json")
    sizes = size_flags(MODEL)
    recipe = ["--steps", "4", "--val-every", "4", "--val-batches", "1", "--checkpoint-every", "4"]
    arguments = ["--data", data, "--run", run, "--resume", "required", "--device", "cpu", *sizes, *recipe]
    done = run_command("torch_gpt.train", *arguments)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [3, 4]
    assert (run / "step_000004").is_dir()


@pytest.mark.parametrize("kind", ["twin", "hf"])
def test_a_state_dict_needs_its_config_beside_it(tmp_path, kind):
    folder = write_run(tmp_path / "run")
    weights = checkpoint.load(folder).weights
    home = tmp_path / "home"
    if kind == "hf":
        convert(folder, home, "hf")
        conv = [name for name in weights if "c_" in name and weights[name].ndim == 2]
        state = {f"transformer.{n}": torch.from_numpy(w.T.copy() if n in conv else w) for n, w in weights.items()}
        (home / "model.safetensors").unlink()
    else:
        home.mkdir()
        for name in ("config.json", "tokenizer.json"):
            shutil.copy(folder / name, home / name)
        state = {name: torch.from_numpy(value) for name, value in weights.items()}
    torch.save(state, home / "pytorch_model.bin")
    convert(home / "pytorch_model.bin", tmp_path / "back", "twin")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    (home / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        convert(home / "pytorch_model.bin", tmp_path / "again", "twin")


class Code:
    def __reduce__(self):
        return os.system, ("touch written-by-the-file",)


def command(monkeypatch, capfd, *arguments):
    """Exit code and output of weights.convert, in this process: importing torch anew takes seconds."""
    monkeypatch.setattr("sys.argv", ["convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.run(main)
    return end.value.code, capfd.readouterr()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_carries_code_is_refused(tmp_path, monkeypatch, capfd, legacy):
    write_tokenizer(tmp_path / "tokenizer.json")
    torch.save({"model": Code()}, tmp_path / "ckpt.pt", _use_new_zipfile_serialization=not legacy)
    monkeypatch.chdir(tmp_path)
    code, shown = command(monkeypatch, capfd, tmp_path / "ckpt.pt", tmp_path / "twin", "--to", "twin")
    assert code == 2 and shown.out == ""
    assert shown.err.count("\n") == 1 and "it calls posix.system" in shown.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.pt", "tokenizer.json"]


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no archive", b"\x80\x02garbage", "zip cut in half", "a tensor", "a list"]
)
def test_files_that_hold_no_model_are_refused(tmp_path, content):
    path = tmp_path / "ckpt.pt"
    write_tokenizer(tmp_path / "tokenizer.json")
    if isinstance(content, str):
        torch.save({"a tensor": torch.ones(2), "a list": [1]}.get(content, {"model": {"w": torch.ones(99)}}), path)
        path.write_bytes(path.read_bytes()[: 300 if "half" in content else None])
    else:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        convert(path, tmp_path / "twin", "twin")
    assert "\n" not in str(error.value) and not (tmp_path / "twin").exists()


def test_moments_of_other_shapes_are_refused(tmp_path):
    model, optimizer = stepped()
    state = optimizer.optimizers[0].state_dict()
    state["state"][0], state["state"][1] = state["state"][1], state["state"][0]
    with pytest.raises(InputError, match=r"moment of shape \[96, 64\] for wte\.weight"):
        convert(nanogpt(tmp_path / "ckpt.pt", model, state), tmp_path / "twin", "twin")


def test_the_command_reports_moments(tmp_path, monkeypatch, capfd):
    model, optimizer = stepped()
    path = nanogpt(tmp_path / "ckpt.pt", model, optimizer.optimizers[0].state_dict())
    code, shown = command(monkeypatch, capfd, path, tmp_path / "twin", "--to", "twin")
    assert code == 0 and last_json(shown.out) | {"moments": True, "step": 2} == last_json(shown.out)
