"""The MLX twin, numpy in and numpy out. Twin of compare/torch_side.py.

Functions of mlx_gpt are called through their modules, where the negative controls replace them.
"""

import time
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from compare.sides import BatchAt, Curve, Pass, State
from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.generation import Forward
from gpt_core.noise import drawn_at
from gpt_core.schedule import lr_at
from mlx_gpt import device as devices
from mlx_gpt import generate, optim, state, step
from mlx_gpt.model import GPT


@dataclass(frozen=True)
class MLXSide:
    """The twin on a device."""

    device: mx.Device
    name: str = "MLX"

    @classmethod
    def on(cls, device: str) -> "MLXSide":
        """On the CPU or the best device ("auto")."""
        return cls(devices.pick(device))

    def versions(self) -> dict[str, str]:
        """Packages and versions, and the device."""
        return {"MLX": devices.versions()["mlx"], "MLX device": f"{self.device.type.name}, {devices.describe(self.device)}"}

    def forward_backward(self, config: GPTConfig, weights: Arrays, tokens: np.ndarray) -> Pass:
        """The pass over tokens (B, T+1)."""
        model = self._model(config, weights)
        inputs, targets = mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:])
        loss, gradients = nn.value_and_grad(model, lambda x, y: step.nats(model, x, y).mean())(inputs, targets)
        named = {name: np.array(gradient) for name, gradient in state.flat(gradients).items()}
        return Pass(np.array(model(inputs)), float(loss), named)

    def train(
        self, config: GPTConfig, recipe: TrainConfig, start: State, batch_at: BatchAt, stops: list[int], total: int
    ) -> Curve:
        """Trains from `start` to the last of `stops` (step counts, rising), of `total` steps for the schedule."""
        model = self._model(config, start.weights)
        optimizer = optim.make_optimizer(model, recipe)
        if start.moments:
            state.load_moments(optimizer, start.moments, start.step)
        train_step = step.make_train_step(model, optimizer, recipe)
        rows, states, begin = [], {}, time.perf_counter()
        for done in range(start.step + 1, stops[-1] + 1):
            batch = batch_at(done - 1)
            drawn = drawn_at(done - 1, batch, config, recipe)
            rows.append(train_step(batch, lr_at(done - 1, recipe, total), drawn))
            if done in stops:
                states[done] = State(done, state.read_weights(model), state.read_moments(optimizer))
        losses, norms = np.array(rows).T
        return Curve(losses, norms, states, time.perf_counter() - begin)

    def forward(self, config: GPTConfig, weights: Arrays) -> Forward:
        """The forward pass with a cache, for generation."""
        return generate.make_forward(self._model(config, weights))

    def _model(self, config: GPTConfig, weights: Arrays) -> GPT:
        model = GPT(config)
        state.load_weights(model, weights)
        return model
