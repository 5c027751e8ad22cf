"""Both twins behind the same few calls, for tests that compare them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
import torch

import mlx_gpt
import mlx_gpt.model
import mlx_gpt.optim
import mlx_gpt.state
import mlx_gpt.step
import torch_gpt.model
import torch_gpt.optim
import torch_gpt.state
import torch_gpt.step
from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.init import initial_weights

CPU = torch.device("cpu")

# Every axis has another size: a swapped one cannot pass.
CONFIG = GPTConfig(vocab_size=97, block_size=24, n_layer=3, n_head=3, n_embd=48)
QWEN = dataclasses.replace(CONFIG, positions="rope", norm="rmsnorm", qk_norm=True, mlp="swiglu", bias=False)
B, T = 5, 19


def batch(config: GPTConfig = CONFIG, shape: tuple[int, ...] = (B, T + 1), seed: int = 0) -> np.ndarray:
    """Random tokens, int32."""
    return np.random.default_rng(seed).integers(0, config.vocab_size, shape, dtype=np.int32)


def scaled_up(weights: Arrays, factor: float = 5.0) -> Arrays:
    """Weights as large as trained ones: on fresh ones of 0.02 a wrong activation is invisible."""
    return {name: value * np.float32(factor) if value.ndim == 2 else value for name, value in weights.items()}


@dataclass
class Twin:
    """One twin with a model of given weights."""

    logits: Callable[[np.ndarray], np.ndarray]
    gradients: Callable[[np.ndarray], tuple[float, Arrays]]
    train_step: Callable[..., tuple[float, float]]
    weights: Callable[[], Arrays]
    model: Any
    optimizer: Any


def torch_twin(
    weights: Arrays, config: GPTConfig = CONFIG, train: TrainConfig | None = None, device: torch.device = CPU
) -> Twin:
    """The torch model."""
    train = train or TrainConfig()
    model = torch_gpt.model.GPT(config).to(device)
    torch_gpt.state.load_weights(model, weights)
    optimizer = torch_gpt.optim.make_optimizer(model, train)

    def logits(idx: np.ndarray) -> np.ndarray:
        with torch.no_grad(), torch_gpt.step.precision(device, train.dtype):
            return model(torch.from_numpy(idx).long().to(device)).cpu().numpy()

    def gradients(tokens: np.ndarray) -> tuple[float, Arrays]:
        x, y = (torch.from_numpy(part).long().to(device) for part in (tokens[:, :-1], tokens[:, 1:]))
        model.zero_grad()
        loss = torch_gpt.step.nats(model, x, y).mean()
        loss.backward()
        found = {name: parameter.grad for name, parameter in model.named_parameters()}
        return loss.item(), {name: value.cpu().numpy().copy() for name, value in found.items() if value is not None}

    step = torch_gpt.step.make_train_step(model, optimizer, train, device)
    return Twin(logits, gradients, step, lambda: torch_gpt.state.read_weights(model), model, optimizer)


def mlx_twin(weights: Arrays, config: GPTConfig = CONFIG, train: TrainConfig | None = None) -> Twin:
    """The MLX model, on the default device."""
    train = train or TrainConfig()
    model = mlx_gpt.model.GPT(config, mlx_gpt.step.precision(train.dtype))
    mlx_gpt.state.load_weights(model, weights)
    optimizer = mlx_gpt.optim.make_optimizer(model, train)

    def gradients(tokens: np.ndarray) -> tuple[float, Arrays]:
        function = mlx.nn.value_and_grad(model, lambda x, y: mlx_gpt.step.nats(model, x, y).mean())
        loss, found = function(mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:]))
        return loss.item(), {name: np.array(value) for name, value in mlx_gpt.state.flat(found).items()}

    step = mlx_gpt.step.make_train_step(model, optimizer, train)
    return Twin(
        lambda idx: np.array(model(mx.array(idx))), gradients, step, lambda: mlx_gpt.state.read_weights(model), model, optimizer
    )


def float64_gradients(weights: Arrays, tokens: np.ndarray, config: GPTConfig = CONFIG) -> Arrays:
    """Neither twin is the judge of the other: torch in float64 is."""
    model = torch_twin(weights, config).model.double()
    x, y = (torch.from_numpy(part).long() for part in (tokens[:, :-1], tokens[:, 1:]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", lambda self: self)  # the model ends with .float()
        torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


TWINS: dict[str, Callable[..., Twin]] = {"mlx": mlx_twin, "torch": torch_twin}


def losses(twin: Twin, batches: list[np.ndarray], lrs: list[float]) -> np.ndarray:
    """Loss of each step of a short training."""
    return np.array([twin.train_step(tokens, lr)[0] for tokens, lr in zip(batches, lrs, strict=True)])


def fresh(config: GPTConfig = CONFIG, seed: int = 1) -> Arrays:
    """Initial weights."""
    return initial_weights(config, seed)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def learnable_batches(config: GPTConfig, train: TrainConfig, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Batches (accumulation, B, T+1) int32 in which each token makes five others likely: something to learn."""
    generator = np.random.default_rng(seed)
    successors = generator.zipf(1.3, size=(config.vocab_size, 5)) % config.vocab_size
    shape = (steps, train.accumulation, train.micro_batch_size)
    tokens = np.empty((*shape, config.block_size + 1), dtype=np.int32)
    tokens[..., 0] = generator.integers(0, config.vocab_size, shape)
    for position in range(config.block_size):
        tokens[..., position + 1] = successors[tokens[..., position], generator.integers(0, 5, shape)]
    return list(tokens)
