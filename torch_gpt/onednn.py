"""float32 products by oneDNN in place of MKL, on a CPU where they are faster (torch_gpt/device.py says which).

Gradients of weights come from `cpu_kernels`, where they can be built: 190 to 200 GFLOPS for the layers of `seed` on an EPYC
with AVX-512, by MKL 145 to 185 and by oneDNN, which transposes the gradient of y first, 155 to 185.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import has_torch_function

from torch_gpt import cpu_kernels
from torch_gpt import device as devices
from torch_gpt.functional import slow


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


def weight_gradient(of_y: Tensor, x: Tensor) -> Tensor:
    """dY^T X of float32 matrices (N, out) and (N, in)."""
    return cpu_kernels.weight_gradient(of_y, x) if has_kernel(of_y, x) else of_y.T @ x


def add_weight_gradient(of_y: Tensor, x: Tensor, total: Tensor) -> None:
    """Adds dY^T X to a float32 matrix (out, in)."""
    if chosen_for(x) and has_kernel(of_y, x):
        cpu_kernels.weight_gradient(of_y, x, total)
    else:
        total += of_y.T @ x


def has_kernel(of_y: Tensor, x: Tensor) -> bool:
    """Whether `cpu_kernels` has both widths, and is built."""
    whole = of_y.shape[1] % cpu_kernels.WIDTH == x.shape[1] % cpu_kernels.WIDTH == 0
    return whole and slow(x)


class OneDNNLinear(torch.autograd.Function):
    """x W^T + b, forward and backward."""

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
        return product(gradient, weight.T), weight_gradient(of_y, flat), of_y.sum(0) if ctx.biased else None
