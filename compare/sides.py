"""What compare asks of a twin, and loading both; every number goes in and out as numpy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.generation import Forward

BatchAt = Callable[[int], np.ndarray]
"""Optimizer step (0-based) -> its batch, (accumulation, B, T+1) int32."""


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass: logits (B, T, V), loss in nats a token, gradients by contract name."""

    logits: np.ndarray
    loss: float
    gradients: Arrays


@dataclass(frozen=True)
class State:
    """Where training stands after `step` optimizer steps; a new run has no moments."""

    step: int
    weights: Arrays
    moments: Arrays


@dataclass(frozen=True)
class Curve:
    """Losses (nats a token) and gradient norms before clipping, one a step, and the states that were asked for."""

    losses: np.ndarray
    norms: np.ndarray
    states: dict[int, State]
    seconds: float


class Side(Protocol):
    """A twin as compare uses it."""

    @property
    def name(self) -> str:
        """The framework's name."""

    def versions(self) -> dict[str, str]:
        """Packages and versions, and the device."""

    def forward_backward(self, config: GPTConfig, weights: Arrays, tokens: np.ndarray) -> Pass:
        """The pass over tokens (B, T+1)."""

    def train(
        self, config: GPTConfig, recipe: TrainConfig, start: State, batch_at: BatchAt, stops: list[int], total: int
    ) -> Curve:
        """Trains from `start` to the last of `stops` (step counts, rising), of `total` steps for the schedule."""

    def forward(self, config: GPTConfig, weights: Arrays) -> Forward:
        """The forward pass with a cache, for generation."""


@dataclass(frozen=True)
class Twins:
    """Both sides; negative controls break the MLX one."""

    torch: Side
    mlx: Side

    @property
    def both(self) -> tuple[Side, Side]:
        """In the order of the tables."""
        return self.torch, self.mlx


def load_twins(device: str) -> Twins:
    """Imports both twins, on the CPU or each on its best device ("auto"). InputError says what cannot be compared."""
    try:
        from compare.mlx_side import MLXSide  # before torch: mlx_gpt loads the BLAS that MLX is to use
    except ImportError as error:
        raise _missing(error, "mlx", 'pip install "mlx[cpu]" on Linux, pip install mlx on a Mac') from error
    try:
        from compare.torch_side import TorchSide
    except ImportError as error:
        raise _missing(error, "torch", "pip install torch==2.13.0") from error
    return Twins(TorchSide.on(device), MLXSide.on(device))


def _missing(error: ImportError, framework: str, remedy: str) -> ImportError | InputError:
    """One line for a framework that is absent or cannot be loaded; any other failed import is a bug and stays itself."""
    if error.name and error.name.partition(".")[0] != framework:
        return error
    return InputError(
        f"not compared: forward passes, training curves, hand-over and generation, since {framework} cannot be imported "
        f"here ({error}) and each needs both twins: {remedy}"
    )
