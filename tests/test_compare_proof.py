"""The checks pass on the twins as they are, and each negative control fails the check that is meant for it."""

import math

import numpy as np
import pytest
from compare_samples import small_setup

pytest.importorskip("mlx_gpt", reason="compare needs MLX")
pytest.importorskip("torch", reason="compare needs PyTorch")

from compare import controls, curves, forward, generate, proof
from compare.controls import CONTROLS
from compare.setup import HALF, STEPS
from compare.sides import load_twins


@pytest.fixture(scope="module")
def twins():
    return load_twins("cpu")


@pytest.fixture(scope="module")
def setup(small_dataset):
    return small_setup(small_dataset)


@pytest.fixture(scope="module")
def drawn(setup, twins):
    return curves.train_curves(setup, twins)


@pytest.fixture(scope="module")
def trained(setup, twins):
    return setup.trained(twins.torch)


def failed(checks):
    return [f"{c.section}: {c.quantity} {c.value} over {c.limit}" for c in checks if not c.passed]


def test_forward_passes_agree(setup, twins, trained):
    results = [
        forward.compare_forward(twins, forward.INITIAL, setup.config, setup.initial, setup.tokens()),
        forward.compare_scaled(twins, setup.config, setup.initial, setup.tokens()),
        forward.compare_forward(twins, forward.TRAINED, setup.config, trained, setup.tokens()),
    ]
    for result in results:
        assert not failed(result.checks)
        errors = [tensor.error for tensor in result.tensors]
        assert errors == sorted(errors, reverse=True) and len(errors) == len(setup.initial)


def test_curves_and_hand_over_agree(drawn):
    assert not failed(drawn.checks())
    assert len(drawn.torch.losses) == len(drawn.mlx.norms) == STEPS
    assert len(drawn.torch_then_mlx.losses) == STEPS - HALF
    assert {check.section for check in drawn.checks()} == {
        "curves",
        "handover, PyTorch then MLX",
        "handover, MLX then PyTorch",
    }


def test_training_trains(drawn, trained, setup):
    assert drawn.torch.losses[-1] < drawn.torch.losses[0] - 0.5
    assert all(np.isfinite(w).all() and not np.array_equal(w, setup.initial[n]) for n, w in trained.items())


def test_states_are_copies_of_their_own_step(drawn, setup):
    middle, end = drawn.torch.states[HALF], drawn.torch.states[STEPS]
    assert middle.step == HALF and not np.array_equal(middle.weights["wte.weight"], end.weights["wte.weight"])
    assert set(middle.moments) == {f"{name}.{moment}" for name in setup.initial for moment in "mv"}


def test_generation_agrees(setup, twins, trained):
    samples, checks = generate.compare_generation(twins, "trained", setup.config, trained, setup.dataset.tokenizer)
    assert not failed(checks)
    assert len(samples) == len(generate.SETTINGS) * 4 and all(
        len(s.mlx.ids) == generate.MAX_TOKENS for s in samples if not s.setting.ends
    )


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_fails_the_check_meant_for_it(name, setup, twins, drawn):
    caught = proof.Caught(name, CONTROLS[name], controls.meant_checks(CONTROLS[name], setup, twins, drawn))
    assert caught.found, caught.checks


def test_a_control_leaves_nothing_behind(setup, twins):
    for control in CONTROLS.values():
        with pytest.raises(KeyError), control.patch():
            raise KeyError
    assert not failed(forward.compare_forward(twins, "again", setup.config, setup.initial, setup.tokens()).checks)


def test_a_control_is_found_only_by_a_check_meant_for_it():
    bad = proof.Check("curves", "loss", math.nan, 1.0)
    assert not proof.Caught("gelu", CONTROLS["gelu"], [bad]).found
    assert proof.Caught("decay", CONTROLS["decay"], [bad]).found


def test_texts_that_differ_are_counted(setup, twins, trained):
    with CONTROLS["mask"].patch():
        samples, checks = generate.compare_generation(twins, "broken", setup.config, trained, setup.dataset.tokenizer)
    assert checks[0].value == sum(not sample.same for sample in samples)
    assert failed(checks)


def test_scaling_leaves_embeddings_norms_and_biases(setup):
    scaled = forward.scaled(setup.initial)
    changed = {name for name, w in scaled.items() if not np.array_equal(w, setup.initial[name])}
    assert changed == {name for name, w in setup.initial.items() if w.ndim == 2 and name.startswith("h.")}
