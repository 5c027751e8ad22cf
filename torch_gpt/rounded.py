"""Products of bfloat16 values on a CPU that multiplies float32 faster than bfloat16 (torch_gpt/device.py says which).

A product of two bfloat16 numbers is exact in float32, and float32 is what bfloat16 products are summed in: the same numbers,
but for the order of the sum, come out of a float32 product of rounded matrices.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

ROWS = 768
"""Rows of a weight that are rounded at a time; with 3,072 a `seed` step holds 0.1 GiB more."""


def rounded(values: Tensor) -> Tensor:
    """float32 values rounded to bfloat16, as float32."""
    return values.bfloat16().float()


class RoundedLinear(torch.autograd.Function):
    """x W^T + b, forward and backward, of matrices rounded to bfloat16; the sums and the result stay float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out). Keeps x and the weight as they are; both are rounded again in `backward`."""
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        half, y = rounded(x.flatten(0, -2)), x.new_empty(*x.shape[:-1], len(weight))
        for rows, out in zip(weight.split(ROWS), y.flatten(0, -2).split(ROWS, dim=1), strict=True):
            torch.mm(half, rounded(rows).T, out=out)
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        of_y, half = gradient.flatten(0, -2), rounded(x.flatten(0, -2))
        of_x, of_weight = torch.zeros_like(half), torch.empty_like(weight)
        for columns, rows, out in zip(of_y.split(ROWS, dim=1), weight.split(ROWS), of_weight.split(ROWS), strict=True):
            part = rounded(columns)
            of_x.addmm_(part, rounded(rows))
            torch.mm(part.T, half, out=out)
        return of_x.view(x.shape), of_weight, of_y.sum(0) if ctx.biased else None


class RoundedProducts(TorchFunctionMode):
    """Inside it, every linear layer of a model multiplies as RoundedLinear does. Attention stays float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called for every function of torch instead of it."""
        if func is F.linear:
            return RoundedLinear.apply(*args, *(kwargs or {}).values())
        return func(*args, **(kwargs or {}))
