"""Muon: momentum whose matrices are made orthogonal before they are applied. Twin of mlx_gpt/muon.py.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". Written here since torch.optim.Muon
orthogonalizes in bfloat16 and MLX's decays by way of the gradient: the twins need the same numbers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from gpt_core.flops import MUON_ITERATIONS

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""a, b, c of s -> a s + b s^3 + c s^5, which takes singular values from (0, 1] to about 1."""


def norm(values: Tensor) -> Tensor:
    """The root of the sum of squares, a scalar.

    Summed axis by axis: in one go, torch's CPU norm of a million float32 values is wrong by 4e-5.
    """
    return torch.linalg.vector_norm(values if values.ndim < 2 else torch.linalg.vector_norm(values, dim=-1))


def orthogonalized(matrix: Tensor) -> Tensor:
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

    def __init__(self, matrices: Sequence[Tensor], lr: float, weight_decay: float, scale: float):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "scale": scale})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all matrices that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                momentum.mul_(MOMENTUM).add_(parameter.grad)
                update = orthogonalized(parameter.grad + MOMENTUM * momentum)
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)
