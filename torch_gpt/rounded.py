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

ROWS = 3072
"""Rows of a weight that are rounded at a time; the largest but the head has as many in preset `seed`."""


def rounded(values: Tensor) -> Tensor:
    """float32 values rounded to bfloat16, as float32."""
    return values.bfloat16().float()


class RoundedLinear(torch.autograd.Function):
    """x W^T + b, forward and backward, of matrices rounded to bfloat16; the sums and the result stay float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out). Keeps x in bfloat16, half of what float32 keeps; the weight is there anyway."""
        half = x.bfloat16()
        ctx.save_for_backward(half, weight)
        ctx.biased = bias is not None
        return F.linear(half.float(), rounded(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of x, weight and bias, some rows of the weight at a time: the head's would be 190 MB at once."""
        half, weight = ctx.saved_tensors
        of_y, x = gradient.flatten(0, -2), half.float().flatten(0, -2)
        of_x, of_weight = torch.zeros_like(x), torch.empty_like(weight)
        for columns, rows, out in zip(of_y.split(ROWS, dim=1), weight.split(ROWS), of_weight.split(ROWS), strict=True):
            part = rounded(columns)
            of_x.addmm_(part, rounded(rows))
            torch.mm(part.T, x, out=out)
        return of_x.view(half.shape), of_weight, of_y.sum(0) if ctx.biased else None


class RoundedProducts(TorchFunctionMode):
    """Inside it, every linear layer of a model multiplies as RoundedLinear does. Attention stays float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called for every function of torch instead of it."""
        if func is F.linear:
            return RoundedLinear.apply(*args, *(kwargs or {}).values())
        return func(*args, **(kwargs or {}))
