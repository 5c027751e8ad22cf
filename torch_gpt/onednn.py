"""float32 products by oneDNN in place of MKL, on a CPU where they are faster (torch_gpt/device.py says which)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import has_torch_function

from torch_gpt import device as devices


def plain(x: Tensor) -> bool:
    """Whether x holds float32 values that are multiplied as they are: not inside autocast, nor a mode that rounds them."""
    return x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and not has_torch_function((x,))


def chosen_for(x: Tensor) -> bool:
    """Whether oneDNN multiplies x. The device comes first: torch.compile looks at nothing else on a GPU."""
    return devices.prefers_onednn(x.device) and plain(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, (..., in) -> (..., out)."""
    return OneDNNLinear.apply(x, weight, bias) if chosen_for(x) else F.linear(x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b of matrices (M, K) and (K, N); not for gradients."""
    return product(a, b.T) if chosen_for(a) else a @ b


def product(a: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """a W^T + b of float32 values, (..., in) -> (..., out), by the kernel that Inductor calls for linear layers."""
    return torch.ops.mkldnn._linear_pointwise(a, weight, bias, "none", [], "")


class OneDNNLinear(torch.autograd.Function):
    """x W^T + b, forward and backward.

    For the weight's gradient oneDNN transposes the gradient of y first, which pays where that is the narrower of the two; MKL
    has the others.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., in) -> (..., out)."""
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        of_y, flat = gradient.flatten(0, -2), x.flatten(0, -2)
        of_weight = product(of_y.T, flat.T) if of_y.shape[1] < flat.shape[1] else of_y.T @ flat
        return product(gradient, weight.T), of_weight, of_y.sum(0) if ctx.biased else None
