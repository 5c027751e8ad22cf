"""Muon: momentum whose matrices are made orthogonal before they are applied. Twin of torch_gpt/muon.py.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". Written here since torch.optim.Muon
orthogonalizes in bfloat16 and MLX's decays by way of the gradient: the twins need the same numbers.
"""

import mlx.core as mx
from mlx.core import array
from mlx.optimizers import Optimizer

from gpt_core.flops import MUON_ITERATIONS

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""a, b, c of s -> a s + b s^3 + c s^5, which takes singular values from (0, 1] to about 1."""


def norm(values: array) -> array:
    """The root of the sum of squares, a scalar.

    Summed axis by axis: in one go, MLX's CPU sum of a million float32 squares is wrong by up to 4e-3.
    """
    return mx.linalg.norm(values if values.ndim < 2 else mx.linalg.norm(values, axis=-1))


def orthogonalized(matrix: array) -> array:
    """The matrix with its singular values near 1 (0.7 to 1.2): five Newton-Schulz iterations, float32."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (norm(matrix) + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(MUON_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(Optimizer):
    """Nesterov momentum, orthogonalized; decoupled weight decay; a step of a tall matrix is larger by sqrt(rows / columns)."""

    def __init__(self, lr: float, weight_decay: float, scale: float):
        super().__init__()
        self._maybe_schedule("learning_rate", lr)
        self.weight_decay, self.scale = weight_decay, scale

    def init_single(self, parameter: array, state: dict) -> None:
        """The momentum of a matrix."""
        state["m"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: array, parameter: array, state: dict) -> array:
        """The matrix after one update."""
        state["m"] = MOMENTUM * state["m"] + gradient
        update = orthogonalized(gradient + MOMENTUM * state["m"])
        rows, columns = parameter.shape
        decayed = parameter * (1 - self.learning_rate * self.weight_decay)
        return decayed - update * (self.learning_rate * max(1, rows / columns) ** 0.5)
