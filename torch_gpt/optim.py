"""AdamW, or Muon for the matrices of the layers and AdamW for the rest; clipping by norm. Twin of mlx_gpt/optim.py."""

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from gpt_core.config import TrainConfig
from gpt_core.names import by_muon
from torch_gpt import device as devices
from torch_gpt.model import GPT
from torch_gpt.muon import Muon


class MultiOptimizer:
    """Optimizers that share out the parameters of a model, as MLX's class of this name."""

    def __init__(self, optimizers: list[Optimizer]):
        self.optimizers = optimizers

    def zero_grad(self) -> None:
        """Before a step: no parameter has a gradient, or on a CPU zeros."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                devices.zero_gradients(group["params"])

    def step(self) -> None:
        """One update of all parameters."""
        for optimizer in self.optimizers:
            optimizer.step()


def make_optimizer(model: GPT, config: TrainConfig) -> MultiOptimizer:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), eps 1e-8: decay for matrices, none for biases and norms."""
    hidden = [p for name, p in model.named_parameters() if by_muon(name, p.ndim, config)]
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and not by_muon(name, p.ndim, config)]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": vectors, "weight_decay": 0.0, "scale": 1.0},
    ]
    optimizers: list[Optimizer] = [AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)]
    if hidden:
        optimizers.append(Muon(hidden, config.muon_lr, config.weight_decay, config.muon_lr / config.lr))
    return MultiOptimizer(optimizers)


def set_lr(optimizer: MultiOptimizer, lr: float) -> None:
    """Learning rate of AdamW's next update; Muon's is in the same proportion to its peak."""
    for part in optimizer.optimizers:
        for group in part.param_groups:
            group["lr"] = lr * group["scale"]


def clip(model: GPT, limit: float) -> Tensor:
    """Scales the gradients by min(1, limit / (norm + 1e-6)) and returns their norm before that, a scalar."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    whole = torch.linalg.vector_norm(torch.stack([*devices.norms(gradients)]))
    torch._foreach_mul_(gradients, torch.clamp(limit / (whole + 1e-6), max=1.0))
    return whole
