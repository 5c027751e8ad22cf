"""AdamW, or Muon for the matrices of the layers and AdamW for the rest; clipping by norm. Twin of torch_gpt/optim.py."""

import mlx.core as mx
from mlx.core import array
from mlx.optimizers import AdamW, MultiOptimizer, Optimizer
from mlx.utils import tree_map

from gpt_core.config import TrainConfig
from gpt_core.names import by_muon
from mlx_gpt.model import GPT
from mlx_gpt.muon import Muon, norm
from mlx_gpt.state import flat


def make_optimizer(model: GPT, config: TrainConfig) -> MultiOptimizer:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), eps 1e-8: decay for matrices, none for biases and norms."""
    groups: list[Optimizer] = [
        AdamW(
            learning_rate=config.lr,
            betas=[config.beta1, config.beta2],
            eps=1e-8,
            weight_decay=weight_decay,
            bias_correction=True,
        )
        for weight_decay in (config.weight_decay, 0.0)
    ]
    filters = [lambda _name, parameter: parameter.ndim >= 2]
    if config.optimizer == "muon":
        groups.insert(0, Muon(config.muon_lr, config.weight_decay, config.muon_lr / config.lr))
        filters.insert(0, lambda name, parameter: by_muon(name, parameter.ndim, config))
    optimizer = MultiOptimizer(groups, filters)
    optimizer.init(model.trainable_parameters())
    return optimizer


def set_lr(optimizer: MultiOptimizer, lr: float) -> None:
    """Learning rate of AdamW's next update; Muon's is in the same proportion to its peak.

    Arrays, since a compiled step takes numbers for constants.
    """
    for part in optimizer.optimizers:
        part.learning_rate = mx.array(lr * (part.scale if isinstance(part, Muon) else 1.0))


def clip(gradients: dict, limit: float) -> tuple[dict, array]:
    """Scales the gradients by min(1, limit / (norm + 1e-6)) and returns them and their norm before that, a scalar."""
    whole = mx.linalg.norm(mx.stack([norm(gradient) for gradient in flat(gradients).values()]))
    factor = mx.minimum(limit / (whole + 1e-6), 1.0)
    return tree_map(lambda gradient: gradient * factor, gradients), whole
