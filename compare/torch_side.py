"""The PyTorch twin, numpy in and numpy out. Twin of compare/mlx_side.py."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from compare.sides import BatchAt, Curve, Pass, State
from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.generation import Forward
from gpt_core.noise import drawn_at
from gpt_core.schedule import lr_at
from torch_gpt import device as devices
from torch_gpt import generate, optim, state, step
from torch_gpt.model import GPT


@dataclass(frozen=True)
class TorchSide:
    """The twin on a device."""

    device: torch.device
    name: str = "PyTorch"

    @classmethod
    def on(cls, device: str) -> "TorchSide":
        """On the CPU or the best device ("auto")."""
        return cls(devices.pick(device))

    def versions(self) -> dict[str, str]:
        """Packages and versions, and the device."""
        return {"PyTorch": torch.__version__, "PyTorch device": f"{self.device.type}, {devices.describe(self.device)}"}

    def forward_backward(self, config: GPTConfig, weights: Arrays, tokens: np.ndarray) -> Pass:
        """The pass over tokens (B, T+1)."""
        return _forward_backward(self._model(config, weights), tokens, self.device)

    def train(
        self, config: GPTConfig, recipe: TrainConfig, start: State, batch_at: BatchAt, stops: list[int], total: int
    ) -> Curve:
        """Trains from `start` to the last of `stops` (step counts, rising), of `total` steps for the schedule."""
        model = self._model(config, start.weights)
        optimizer = optim.make_optimizer(model, recipe)
        if start.moments:
            state.load_moments(model, optimizer, start.moments, start.step)
        train_step = step.make_train_step(model, optimizer, recipe, self.device)
        rows, states, begin = [], {}, time.perf_counter()
        for done in range(start.step + 1, stops[-1] + 1):
            batch = batch_at(done - 1)
            drawn = drawn_at(done - 1, batch, config, recipe)
            rows.append(train_step(batch, lr_at(done - 1, recipe, total), drawn))
            if done in stops:  # copies, since what is read shares the memory that training goes on to change
                weights, moments = state.read_weights(model), state.read_moments(model, optimizer)
                states[done] = State(done, _copied(weights), _copied(moments))
        losses, norms = np.array(rows).T
        return Curve(losses, norms, states, time.perf_counter() - begin)

    def forward(self, config: GPTConfig, weights: Arrays) -> Forward:
        """The forward pass with a cache, for generation."""
        return generate.make_forward(self._model(config, weights), self.device)

    def _model(self, config: GPTConfig, weights: Arrays) -> GPT:
        model = GPT(config).to(self.device)
        state.load_weights(model, weights)
        return model


def float64_pass(config: GPTConfig, weights: Arrays, tokens: np.ndarray) -> Pass:
    """The same pass on the CPU with weights and sums in float64 (logits are still returned in float32)."""
    model = GPT(config)
    state.load_weights(model, weights)
    return _forward_backward(model.double(), tokens, torch.device("cpu"))


def _forward_backward(model: GPT, tokens: np.ndarray, device: torch.device) -> Pass:
    inputs, targets = (torch.from_numpy(part).long().to(device) for part in (tokens[:, :-1], tokens[:, 1:]))
    with torch.no_grad():
        logits = model(inputs)
    loss = step.nats(model, inputs, targets).mean()
    loss.backward()
    gradients = {name: p.grad.cpu().numpy() for name, p in model.named_parameters() if p.grad is not None}
    return Pass(logits.cpu().numpy(), loss.item(), gradients)


def _copied(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}
