"""One optimizer step, and the nats of tokens. Twin of torch_gpt/step.py."""

import math
from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.core import array
from mlx.optimizers import MultiOptimizer
from mlx.utils import tree_map

from gpt_core.ahead import nothing
from gpt_core.config import DType, TrainConfig
from gpt_core.packing import split_batch
from gpt_core.ranks import ALONE, Ranks
from gpt_core.scoring import TokenNats
from mlx_gpt import functional as F
from mlx_gpt.model import GPT
from mlx_gpt.optim import clip, set_lr
from mlx_gpt.ranks import sum_gradients

TrainStep = Callable[..., tuple[float, float]]
"""(batch (accumulation, B, T+1) int32, learning rate, what `drawn_at` draws for it, or none of it, and what to do while the
device works) -> (loss in nats a token, gradient norm before clipping)."""


LOSS_SCALE = {"float32": 1.0, "bfloat16": 1.0, "float16": 1024.0}
"""Factor on the loss that keeps small float16 gradients from vanishing; gradients are divided by it again."""


def precision(dtype: DType) -> mx.Dtype:
    """What `GPT` multiplies in: products in `dtype`, weights and residual stream in float32."""
    return getattr(mx, dtype)


def nats(
    model: GPT, idx_BT: array, targets_BT: array, positions_BT: array | None = None, counted_BT: array | None = None
) -> array:
    """-ln p of each target, (B, T) float32. Of packed rows: positions as `GPT` takes them, and 0 for targets left out."""
    logits_BTV = model(idx_BT, positions_BT=positions_BT)
    nats_BT = F.cross_entropy(logits_BTV, targets_BT)
    return nats_BT if counted_BT is None else nats_BT * counted_BT


def make_train_step(model: GPT, optimizer: MultiOptimizer, config: TrainConfig, ranks: Ranks = ALONE) -> TrainStep:
    """The step as a function of a rank's part of the batch and of the learning rate; it changes model and optimizer."""
    scale = LOSS_SCALE[config.dtype]
    state = [model.state, optimizer.state]

    def loss_of(factor: array, micro_batch: dict[str, array]) -> array:
        kept = micro_batch["kept"] * (1 / (1 - config.dropout)) if "kept" in micro_batch else None
        scored = micro_batch["targets"], micro_batch["counted"] * factor
        return model(micro_batch["idx"], positions_BT=micro_batch.get("positions"), kept_BPTC=kept, loss_of=scored)

    loss_and_gradients = nn.value_and_grad(model, loss_of)

    @partial(mx.compile, inputs=state, outputs=state)
    def accumulate(factor: array, total: array, gradients: dict, micro_batch: dict[str, array]) -> tuple[array, dict]:
        loss, new = loss_and_gradients(factor, micro_batch)
        return total + loss / scale, tree_map(mx.add, gradients, new) if gradients else new

    @mx.compile
    def clipped(gradients: dict) -> tuple[dict, array]:
        if scale != 1.0:
            gradients = tree_map(lambda gradient: gradient / scale, gradients)
        return clip(gradients, config.grad_clip)

    @partial(mx.compile, inputs=state, outputs=state)
    def update(gradients: dict) -> None:
        optimizer.update(model, gradients)

    def train_step(
        batch: np.ndarray, lr: float, drawn: dict[str, np.ndarray] | None = None, meanwhile: Callable[[], None] = nothing
    ) -> tuple[float, float]:
        parts, targets = split_batch(batch, config.document_mask)
        factor = mx.array(scale / ranks.sum(targets), dtype=mx.float32)
        tensors = {name: mx.array(part) for name, part in (parts | (drawn or {})).items()}
        total = mx.zeros(())
        gradients: dict = {}
        set_lr(optimizer, lr)
        for index in range(len(batch)):
            mx.eval(total, gradients)  # one micro-batch after the other, so that only one graph is alive
            micro_batch = {name: values[index] for name, values in tensors.items()}
            total, gradients = accumulate(factor, total, gradients, micro_batch)
        mx.async_eval(total, gradients)
        total, gradients = sum_gradients(total, gradients, ranks)
        gradients, norm_before = clipped(gradients)
        mx.async_eval(norm_before)
        meanwhile()
        loss, norm = float(total), float(norm_before)
        if math.isfinite(loss) and math.isfinite(norm):
            update(gradients)
            mx.eval(state)
        return loss, norm

    return train_step


def make_token_nats(model: GPT) -> TokenNats:
    """The scoring function of a model, numpy in and out."""

    @partial(mx.compile, inputs=[model.state])
    def compiled_nats(x: array, y: array) -> array:
        return nats(model, x, y)

    def token_nats(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.array(compiled_nats(mx.array(inputs), mx.array(targets)))

    return token_nats
