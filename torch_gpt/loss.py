"""The head and its loss as one function, so that the logits of a step never all exist. Twin of mlx_gpt/loss.py."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 256
"""Tokens whose logits exist at a time: 10 MB of them at 10,240 tokens of vocabulary, which the cache of a CPU holds."""


def head_loss(x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, factors_N: Tensor) -> Tensor:
    """The sum of factor x -ln softmax(x W^T)[target], a float32 scalar.

    On a CPU by `HeadLoss`; elsewhere in one go, which torch.compile fuses on CUDA.
    """
    if x_NC.device.type == "cpu":
        return HeadLoss.apply(x_NC, weight_VC, targets_N, factors_N)
    return (F.cross_entropy(F.linear(x_NC, weight_VC).float(), targets_N, reduction="none") * factors_N).sum()


class HeadLoss(torch.autograd.Function):
    """Some rows at a time, and their gradients at once: d loss / d logits = factor x (softmax - 1 at the target)."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, factors_N: Tensor) -> Tensor:
        """The loss; keeps the gradients of x and W for a loss of cotangent 1."""
        kind = x_NC.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_NC.dtype
        weight, parts = weight_VC.to(compute), []
        of_x, of_weight = torch.empty_like(x_NC), torch.zeros_like(weight_VC)
        with torch.autocast(kind, enabled=False):
            for x, target, factor, out in zip(*(t.split(ROWS) for t in (x_NC, targets_N, factors_N, of_x)), strict=True):
                x, target, factor = x.to(compute), target[:, None], factor[:, None]
                logits = F.linear(x, weight).float()
                at_target, largest = logits.gather(1, target), logits.amax(1, keepdim=True)
                powers = logits.sub_(largest).exp_()
                sums = powers.sum(1, keepdim=True)
                parts.append(((sums.log() + largest - at_target) * factor).sum())
                of_logits = powers.mul_(factor / sums).scatter_add_(1, target, -factor).to(compute)
                out.copy_(of_logits @ weight)
                of_weight += of_logits.T @ x
        ctx.save_for_backward(of_x, of_weight)
        return torch.stack(parts).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of x and W."""
        of_x, of_weight = ctx.saved_tensors
        return of_x * gradient, of_weight * gradient, None, None
