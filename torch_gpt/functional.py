"""torch's own fused functions, or `cpu_kernels` where those are slow. Twin of mlx_gpt/functional.py."""

import torch.nn.functional as F
from torch import Tensor

from torch_gpt import cpu_kernels
from torch_gpt import device as devices


def attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, seen_BTS: Tensor | None = None) -> Tensor:
    """Causal attention, (B, H, T, D), with T = S or, from a cache, T = 1. `seen_BTS`, as of `row_mask`, replaces the mask."""
    T, S, D = q_BHTD.shape[2], k_BHSD.shape[2], q_BHTD.shape[3]
    if T == S > 1 and slow(q_BHTD) and D % cpu_kernels.WIDTH == 0:
        return cpu_kernels.attention(q_BHTD, k_BHSD, v_BHSD, seen_BTS)
    if seen_BTS is not None:
        return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=seen_BTS[:, None])
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, is_causal=T > 1)


def gelu(x: Tensor) -> Tensor:
    """Tanh GELU (Hendrycks and Gimpel 2016), any shape."""
    return cpu_kernels.gelu(x) if slow(x) else F.gelu(x, approximate="tanh")


def silu(x: Tensor) -> Tensor:
    """x / (1 + e^-x) (Elfwing et al. 2017), any shape."""
    return F.silu(x)


def slow(x: Tensor) -> bool:
    """Whether `cpu_kernels` take x. The device comes first: torch.compile looks at nothing else on a GPU."""
    return x.device.type == "cpu" and devices.takes_kernels(x.dtype) and cpu_kernels.library() is not None
