"""AdamW with decay on matrices only, bias correction on, and clipping by the global norm. Twin of torch_gpt/optim.py."""

import mlx.core as mx
from mlx.core import array
from mlx.optimizers import AdamW, MultiOptimizer
from mlx.utils import tree_map

from gpt_core.config import TrainConfig
from mlx_gpt.model import GPT
from mlx_gpt.state import flat


def make_optimizer(model: GPT, config: TrainConfig) -> MultiOptimizer:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), eps 1e-8: decay for matrices, none for biases and norms."""
    groups = [
        AdamW(
            learning_rate=config.lr,
            betas=[config.beta1, config.beta2],
            eps=1e-8,
            weight_decay=weight_decay,
            bias_correction=True,
        )
        for weight_decay in (config.weight_decay, 0.0)
    ]
    optimizer = MultiOptimizer(groups, [lambda _name, parameter: parameter.ndim >= 2])
    optimizer.init(model.trainable_parameters())
    return optimizer


def set_lr(optimizer: MultiOptimizer, lr: float) -> None:
    """Learning rate of the next update, both groups; an array, since a compiled step takes numbers for constants."""
    for group in optimizer.optimizers:
        group.learning_rate = mx.array(lr)


def clip(gradients: dict, limit: float) -> tuple[dict, array]:
    """Scales the gradients by min(1, limit / (norm + 1e-6)) and returns them and their norm before that, a scalar.

    Summed axis by axis: in one go, MLX's CPU sum of a million float32 squares is wrong by up to 4e-3.
    """
    norm = mx.linalg.norm(mx.stack([_norm(gradient) for gradient in flat(gradients).values()]))
    factor = mx.minimum(limit / (norm + 1e-6), 1.0)
    return tree_map(lambda gradient: gradient * factor, gradients), norm


def _norm(values: array) -> array:
    return mx.linalg.norm(values if values.ndim < 2 else mx.linalg.norm(values, axis=-1))
