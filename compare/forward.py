"""Forward: same weights, same batch; logits, loss and the gradient of every tensor."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from compare import tolerances
from compare.checks import Check, difference, tensor_differences, worst
from compare.sides import Pass, Twins
from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig

INITIAL, SCALED, TRAINED = "initial weights", f"weights x {tolerances.SCALE:g}", "trained weights"


class Limits(NamedTuple):
    """Tolerances of one comparison."""

    logits: float
    loss: float
    gradient: float


LIMITS = Limits(tolerances.LOGITS, tolerances.LOSS, tolerances.GRADIENT)


@dataclass(frozen=True)
class Tensor:
    """The gradient of one tensor: the twins against each other, PyTorch against itself in float64."""

    name: str
    error: float
    noise: float


@dataclass(frozen=True)
class Forward:
    """The comparison on one set of weights; tensors with the worst first."""

    section: str
    checks: list[Check]
    tensors: list[Tensor]


def scaled(weights: Arrays) -> Arrays:
    """Weights with the matrices of the blocks SCALE times as large: activations as large as after long training."""
    factor = np.float32(tolerances.SCALE)
    return {name: w * factor if name.startswith("h.") and w.ndim == 2 else w for name, w in weights.items()}


def compare_scaled(twins: Twins, config: GPTConfig, weights: Arrays, tokens: np.ndarray) -> Forward:
    """Both twins on scaled-up weights, where rounding is larger and mistakes in GELU or attention are larger still."""
    limits = Limits(tolerances.SCALED_LOGITS, tolerances.LOSS, tolerances.SCALED_GRADIENT)
    return compare_forward(twins, SCALED, config, scaled(weights), tokens, limits)


def compare_forward(
    twins: Twins, label: str, config: GPTConfig, weights: Arrays, tokens: np.ndarray, limits: Limits = LIMITS
) -> Forward:
    """Both twins on tokens (B, T+1), and PyTorch in float64 for the noise."""
    from compare.torch_side import float64_pass

    torch, mlx = (side.forward_backward(config, weights, tokens) for side in twins.both)
    exact = float64_pass(config, weights, tokens)
    gradients = tensor_differences(mlx.gradients, torch.gradients)
    noise = tensor_differences(torch.gradients, exact.gradients)
    section = f"forward, {label}"
    checks = [
        Check(section, "logits", difference(mlx.logits, torch.logits), limits.logits, difference(torch.logits, exact.logits)),
        Check(section, "loss", _loss_difference(mlx, torch), limits.loss, _loss_difference(torch, exact)),
        Check(section, "worst gradient", worst(gradients), limits.gradient, worst(noise)),
    ]
    tensors = [Tensor(name, error, noise[name]) for name, error in gradients.items()]
    return Forward(section, checks, sorted(tensors, key=lambda tensor: -np.nan_to_num(tensor.error, nan=np.inf)))


def _loss_difference(a: Pass, b: Pass) -> float:
    return abs(a.loss - b.loss) / abs(b.loss)
