"""The plain MLX loop, as MLX's documentation has it: its own layers and functions, and a compiled step.

What the twin is measured against on a CPU: the same model, clipping and AdamW, with the same BLAS.
"""

from collections.abc import Callable
from functools import partial

import mlx_gpt  # noqa: F401  # isort: skip
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.core import array
from mlx.optimizers import AdamW, clip_grad_norm
from mlx.utils import tree_map, tree_unflatten

from benchmarks.mlx_work import matmul
from benchmarks.spec import Spec
from benchmarks.work import Work, loader
from gpt_core.ahead import nothing
from gpt_core.config import GPTConfig
from gpt_core.errors import InputError
from gpt_core.init import initial_weights
from mlx_gpt import device as devices


class Attention(nn.Module):
    """Causal self-attention by MLX's fused function."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)

    def __call__(self, x: array) -> array:
        """(B, T, C) -> (B, T, C)."""
        heads = [y.reshape(*x.shape[:2], self.n_head, -1).swapaxes(1, 2) for y in mx.split(self.c_attn(x), 3, axis=2)]
        y = mx.fast.scaled_dot_product_attention(*heads, scale=heads[0].shape[3] ** -0.5, mask="causal")
        return self.c_proj(y.swapaxes(1, 2).reshape(x.shape))


class MLP(nn.Module):
    """Two layers around a tanh GELU."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def __call__(self, x: array) -> array:
        """(B, T, C) -> (B, T, C)."""
        return self.c_proj(nn.gelu_approx(self.c_fc(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attn, self.mlp = Attention(config), MLP(config)

    def __call__(self, x: array) -> array:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """GPT-2 with a tied head; parameters are named as in gpt_core/names.py."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = [Block(config) for _ in range(config.n_layer)]
        self.ln_f = nn.LayerNorm(config.n_embd)

    def __call__(self, tokens: array) -> array:
        """(B, T) -> logits (B, T, V)."""
        x = self.wte(tokens) + self.wpe(mx.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.wte.as_linear(self.ln_f(x))


def open_work(spec: Spec) -> Work:
    """The model with our weights, MLX's AdamW and its clipping."""
    if spec.dtype != "float32":
        raise InputError(f"--dtype {spec.dtype}: mlx-plain runs in float32 only, MLX has no autocast")
    device = devices.pick(spec.device, spec.dtype)
    batches, train = loader(spec), spec.train
    model = GPT(spec.model)
    weights = initial_weights(spec.model, train.seed)
    model.update(tree_unflatten([(name, mx.array(value)) for name, value in weights.items()]))
    optimizer = AdamW(train.lr, [train.beta1, train.beta2], weight_decay=train.weight_decay, bias_correction=True)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state]
    mx.eval(state)

    def mean_loss(inputs: array, targets: array) -> array:
        return nn.losses.cross_entropy(model(inputs), targets, reduction="mean")

    loss_and_gradients = nn.value_and_grad(model, mean_loss)

    @partial(mx.compile, inputs=state, outputs=state)
    def micro_step(tokens: array, gradients: dict | None, last: bool) -> tuple[array, dict | None]:
        loss, new = loss_and_gradients(tokens[:, :-1], tokens[:, 1:])
        if gradients is not None:
            new = tree_map(mx.add, new, gradients)
        if not last:
            return loss, new
        new = tree_map(lambda gradient: gradient / train.accumulation, new)
        optimizer.update(model, clip_grad_norm(new, train.grad_clip)[0])
        return loss, None

    def step(batch: np.ndarray, meanwhile: Callable[[], None] = nothing) -> float:
        losses, gradients = [], None
        for index, micro_batch in enumerate(batch):
            loss, gradients = micro_step(mx.array(micro_batch), gradients, index == len(batch) - 1)
            mx.async_eval(state, loss, gradients)
            if index == len(batch) - 1:
                meanwhile()
            mx.eval(state, loss, gradients)
            losses.append(loss.item())
        return float(np.mean(losses))

    return Work(
        chip=devices.describe(device),
        versions=devices.versions(),
        batch_at=batches.batch_at,
        step=step,
        peak_memory=devices.peak_memory,
        product=matmul(spec.dtype),
        generate=None,
    )
