"""Sixty steps side by side, and the mistakes that such a comparison must catch."""

import dataclasses

import numpy as np
import pytest
from twins import CONFIG, TWINS, Twin, fresh, learnable_batches, losses, mlx_twin, torch_twin

from gpt_core.config import GPTConfig, TrainConfig, presets
from gpt_core.schedule import lr_at

# Sixty steps of `tiny` at a learning rate of 1e-3, three seeds: the twins differ by 2.3e-5 to 3.0e-5, torch and torch
# started 1e-7 apart by 2e-6. Decay on biases and norms gives 7e-3, no bias correction 3.9.
CURVE_TOLERANCE = 1e-4
STEPS = 60


def tiny() -> tuple[GPTConfig, TrainConfig]:
    """The preset, shortened. (At twice its learning rate loss spikes magnify rounding, in one framework as between two.)"""
    model, train = presets()["tiny"]
    return model, dataclasses.replace(train, steps=STEPS)


def tiny_curve(twin: Twin, train: TrainConfig, config: GPTConfig, steps: int = STEPS) -> np.ndarray:
    """The losses of the first steps."""
    batches, lrs = learnable_batches(config, train, STEPS), [lr_at(step, train, STEPS) for step in range(STEPS)]
    return losses(twin, batches[:steps], lrs[:steps])


@pytest.fixture(scope="module")
def torch_curve() -> np.ndarray:
    """The curve that the others are compared with."""
    config, train = tiny()
    return tiny_curve(torch_twin(fresh(config), config, train), train, config)


def test_sixty_steps_of_tiny_agree(torch_curve: np.ndarray) -> None:
    config, train = tiny()
    curve = tiny_curve(mlx_twin(fresh(config), config, train), train, config)
    assert torch_curve[0] - torch_curve[-1] > 4  # it learns: 9.2 -> 3.3
    assert np.abs(curve - torch_curve).max() < CURVE_TOLERANCE


def test_decay_on_biases_is_caught(torch_curve: np.ndarray) -> None:
    config, train = tiny()
    twin = torch_twin(fresh(config), config, train)
    twin.optimizer.optimizers[0].param_groups[1]["weight_decay"] = train.weight_decay
    assert np.abs(tiny_curve(twin, train, config) - torch_curve).max() > 10 * CURVE_TOLERANCE


def test_missing_bias_correction_is_caught(torch_curve: np.ndarray) -> None:
    config, train = tiny()
    twin = mlx_twin(fresh(config), config, train)
    for group in twin.optimizer.optimizers:
        group.bias_correction = False
    assert np.abs(tiny_curve(twin, train, config, 10) - torch_curve[:10]).max() > 1000 * CURVE_TOLERANCE


@pytest.mark.parametrize("name", TWINS)
def test_the_way_a_step_is_accumulated_does_not_matter(name: str) -> None:
    """Four sequences a step as 4 x 1, 2 x 2 and 1 x 4: twelve steps, losses to 1e-5 (measured 9.5e-7)."""
    curves = {}
    for micro_batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        train = TrainConfig(micro_batch_size=micro_batch, accumulation=accumulation)
        batches = [
            tokens.reshape(accumulation, micro_batch, -1)
            for tokens in learnable_batches(CONFIG, TrainConfig(micro_batch_size=4, accumulation=1), 12)
        ]
        curves[accumulation] = losses(TWINS[name](fresh(), CONFIG, train), batches, [1e-3] * 12)
    assert np.abs(curves[2] - curves[1]).max() < 1e-5
    assert np.abs(curves[4] - curves[1]).max() < 1e-5
    assert curves[1][0] - curves[1][-1] > 0.1


@pytest.mark.parametrize("name", TWINS)
def test_the_loss_is_the_mean_over_all_micro_batches(name: str) -> None:
    """Not that of the last one, as many logs have it."""
    twin, other = TWINS[name](fresh()), TWINS[name](fresh())
    tokens = learnable_batches(CONFIG, TrainConfig(micro_batch_size=2, accumulation=3), 1)[0]
    expected = [other.gradients(part)[0] for part in tokens]
    assert twin.train_step(tokens, 1e-3)[0] == pytest.approx(np.mean(expected), abs=1e-6)
    assert abs(np.mean(expected) - expected[-1]) > 1e-3
