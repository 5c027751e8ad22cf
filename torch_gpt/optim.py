"""AdamW with decay on matrices only, bias correction on, and clipping by the global norm. Twin of mlx_gpt/optim.py."""

import torch
from torch import Tensor
from torch.optim import AdamW

from gpt_core.config import TrainConfig
from torch_gpt.model import GPT


def make_optimizer(model: GPT, config: TrainConfig) -> AdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), eps 1e-8: decay for matrices, none for biases and norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)


def set_lr(optimizer: AdamW, lr: float) -> None:
    """Learning rate of the next update, both groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip(model: GPT, limit: float) -> Tensor:
    """Scales the gradients by min(1, limit / (norm + 1e-6)) and returns their norm before that, a scalar.

    Summed axis by axis: in one go, torch's CPU norm of a million float32 values is wrong by 4e-5.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([_norm(gradient) for gradient in gradients]))
    torch._foreach_mul_(gradients, torch.clamp(limit / (norm + 1e-6), max=1.0))
    return norm


def _norm(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values if values.ndim < 2 else torch.linalg.vector_norm(values, dim=-1))
