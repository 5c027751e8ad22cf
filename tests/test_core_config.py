"""Configuration, presets, and what a resumed run may change."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from gpt_core.config import GPTConfig, TrainConfig, from_dict, presets, refuse_other_model, refuse_other_recipe
from gpt_core.errors import InputError
from gpt_core.loader import Loader
from gpt_core.names import parameter_count
from gpt_core.shards import TokenStream


def test_seed_is_the_reference_run():
    """Every number of DESIGN.md section 2."""
    model, train = presets()["seed"]
    assert dataclasses.astuple(model)[:5] == (10_240, 512, 12, 12, 768)
    assert dataclasses.astuple(model)[5:] == ("learned", "layernorm", False, "gelu", True)
    assert (train.optimizer, train.dropout, train.token_noise, train.document_mask) == ("adamw", 0.0, 0.0, False)
    assert parameter_count(model) == 93_313_536
    assert (train.micro_batch_size, train.accumulation, train.epochs, train.steps) == (2, 2, 2, None)
    assert (train.schedule, train.lr, train.warmup_steps, train.grad_clip) == ("constant", 1e-3, 0, 1.0)
    assert (train.val_every, train.val_batches, train.dtype, train.seed) == (20, 4, "float32", 1337)
    loader = Loader(TokenStream([np.zeros(3_003_656, dtype=np.uint16)]), model, train)
    assert (loader.sequences, loader.steps_per_epoch, loader.total_steps()) == (5_866, 1_466, 2_932)


def test_tiny_is_small_and_short():
    """600 steps with checkpoints every 200; of the size of two CPU cores."""
    model, train = presets()["tiny"]
    assert parameter_count(model) < 3e6 and (train.steps, train.checkpoint_every) == (600, 200)
    assert train.sequences_per_step * model.block_size <= 1024


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"n_layer": 0}, ["--n-layer 0"]),
        ({"vocab_size": -3}, ["--vocab-size -3"]),
        ({"block_size": 0}, ["--block-size 0"]),
        ({"n_head": 0}, ["--n-head 0"]),
        ({"n_embd": 770, "n_head": 12}, ["--n-embd 770", "--n-head 12"]),
        ({"vocab_size": 65_537}, ["--vocab-size 65537", "65536"]),
    ],
)
def test_model_errors_name_flags_and_values(given, parts):
    with pytest.raises(InputError) as error:
        GPTConfig(**given)
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        *(({name: 0}, [f"--{name.replace('_', '-')} 0"]) for name in
          ("micro_batch_size", "accumulation", "epochs", "steps", "val_every", "val_batches", "checkpoint_every", "keep_last",
           "grad_clip", "lr")),
        *(({name: -1}, [f"--{name.replace('_', '-')} -1"]) for name in
          ("min_lr", "warmup_steps", "weight_decay", "seed")),
        ({"lr": float("nan")}, ["--lr nan"]),
        ({"weight_decay": float("nan")}, ["--weight-decay nan"]),
        ({"beta1": 1.0}, ["--beta1 1.0"]),
        ({"beta2": -0.1}, ["--beta2 -0.1"]),
        ({"schedule": "cosine", "lr": 0.01, "min_lr": 0.02}, ["--min-lr 0.02", "--lr 0.01"]),
        ({"schedule": "constant", "min_lr": 1e-4}, ["--min-lr 0.0001", "--schedule constant"]),
        ({"dropout": 1.0}, ["--dropout 1.0"]),
        ({"dropout": -0.1}, ["--dropout -0.1"]),
        ({"token_noise": 1.0}, ["--token-noise 1.0"]),
        ({"token_noise": -0.1}, ["--token-noise -0.1"]),
        ({"optimizer": "muon", "muon_lr": 0.0}, ["--muon-lr 0.0"]),
        ({"muon_lr": 0.01}, ["--muon-lr 0.01", "--optimizer adamw"]),
    ],
)  # fmt: skip
def test_recipe_errors_name_flags_and_values(given, parts):
    with pytest.raises(InputError) as error:
        TrainConfig(**given)
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_infinite_numbers_are_refused(name):
    given: Any = {name: float("inf")}
    with pytest.raises(InputError):
        TrainConfig(**given)


def test_the_edges_are_allowed():
    """Negative control of the checks above: values on the right side of each limit."""
    GPTConfig(vocab_size=65_536, n_embd=770, n_head=11)
    TrainConfig(schedule="linear", lr=0.01, min_lr=0.01, warmup_steps=40, steps=30, beta1=0, weight_decay=0, seed=0)


@pytest.mark.parametrize("config", [GPTConfig(n_layer=3), TrainConfig(lr=0.5, steps=7), *presets()["tiny"]])
def test_from_dict_inverts_asdict_through_json(config):
    assert from_dict(type(config), json.loads(json.dumps(dataclasses.asdict(config))), "f") == config


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"learning_rate": 1}, "learning_rate"),
        ({"accumulation": 2.0}, "accumulation = 2.0, expected int"),
        ({"accumulation": True}, "accumulation = True, expected int"),
        ({"lr": "0.1"}, "lr = '0.1', expected float"),
        ({"lr": False}, "lr = False"),
        ({"dtype": "float64"}, "dtype = 'float64', expected float32 or bfloat16 or float16"),
        ({"schedule": None}, "schedule = None"),
        ({"steps": "9"}, "steps = '9', expected int or None"),
        ({"epochs": None}, "epochs = None, expected int"),
        ({"epochs": -2}, "--epochs -2"),
    ],
)
def test_from_dict_refuses_unknown_and_wrong(change, part):
    with pytest.raises(InputError, match=r"a/config\.json") as error:
        from_dict(TrainConfig, dataclasses.asdict(TrainConfig()) | change, "a/config.json")
    assert part in str(error.value)


def test_from_dict_lists_missing_keys_and_refuses_other_json():
    values = dataclasses.asdict(GPTConfig())
    del values["n_head"], values["n_embd"]
    with pytest.raises(InputError, match=r"\['n_embd', 'n_head'\]"):
        from_dict(GPTConfig, values, "f")
    others: list[object] = [[], None, 3, "text"]
    for other in others:
        with pytest.raises(InputError, match="GPTConfig"):
            from_dict(GPTConfig, other, "f")


def test_a_file_of_an_earlier_version_means_the_default_of_a_field_that_was_added_since():
    values = dataclasses.asdict(TrainConfig(lr=2e-3))
    del values["document_mask"]
    assert from_dict(TrainConfig, values, "f") == TrainConfig(lr=2e-3)
    with pytest.raises(InputError, match=r"f has document_mask = 1, expected bool"):
        from_dict(TrainConfig, values | {"document_mask": 1}, "f")


def test_from_dict_names_the_choices():
    with pytest.raises(InputError, match="bfloat16"):
        from_dict(TrainConfig, dataclasses.asdict(TrainConfig()) | {"dtype": "float64"}, "f")


# A value for every field that differs from the linear recipe below, and the rule on resuming by hand.
LINEAR = TrainConfig(schedule="linear", steps=100, min_lr=1e-5, optimizer="muon")
OTHER: dict[str, tuple[object, str]] = {
    "micro_batch_size": (3, "fixed"), "accumulation": (3, "fixed"), "epochs": (5, "horizon"), "steps": (200, "horizon"),
    "schedule": ("cosine", "fixed"), "lr": (2e-3, "fixed"), "min_lr": (2e-5, "fixed"), "warmup_steps": (4, "fixed"),
    "beta1": (0.8, "fixed"), "beta2": (0.99, "fixed"), "weight_decay": (0.2, "fixed"), "grad_clip": (2.0, "fixed"),
    "seed": (1, "fixed"), "dtype": ("bfloat16", "free"), "val_every": (3, "free"), "val_batches": (3, "free"),
    "checkpoint_every": (3, "free"), "keep_last": (9, "free"), "document_mask": (True, "fixed"),
    "dropout": (0.1, "fixed"), "token_noise": (0.1, "fixed"), "optimizer": ("adamw", "fixed"), "muon_lr": (0.01, "fixed"),
}  # fmt: skip


def test_the_table_of_rules_is_whole():
    assert set(OTHER) == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("name", OTHER)
def test_what_a_resumed_run_may_change(name):
    """Fixed fields never; free ones always; the horizon only under a constant rate, which does not look ahead."""
    value, rule = OTHER[name]
    steps = None if name == "epochs" else 100  # epochs are the horizon where no steps are given
    linear, constant = dataclasses.replace(LINEAR, steps=steps), TrainConfig(schedule="constant", steps=steps, optimizer="muon")
    for stored, allowed in ((linear, rule == "free"), (constant, rule != "fixed")):
        change = {name: value} if stored is linear or name not in ("schedule", "min_lr") else {"schedule": "cosine"}
        given = dataclasses.replace(stored, **change)
        if allowed:
            refuse_other_recipe(stored, given, "step_000010")
            continue
        with pytest.raises(InputError) as error:
            refuse_other_recipe(stored, given, "step_000010")
        changed = next(iter(change))
        flag = "--" + changed.replace("_", "-")
        for part in (f"{flag} {change[changed]}", str(getattr(stored, changed)), "step_000010"):
            assert part in str(error.value)


def test_the_same_recipe_goes_on():
    refuse_other_recipe(LINEAR, dataclasses.replace(LINEAR), "x")


def test_epochs_do_not_matter_when_steps_are_given():
    refuse_other_recipe(LINEAR, dataclasses.replace(LINEAR, epochs=7), "x")


def test_another_model_is_refused_by_its_first_difference():
    model = GPTConfig()
    refuse_other_model(model, GPTConfig(), "x")
    with pytest.raises(InputError, match="--n-layer 6 differs from 12 in step_000010"):
        refuse_other_model(model, GPTConfig(n_layer=6, n_embd=384), "step_000010")


def test_presets_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        presets()["seed"][1].lr = 1.0  # type: ignore[misc]
    assert presets() == presets()
