"""MLX's own fused functions, or `cpu_kernels` where those are slow. Twin of torch_gpt/functional.py."""

import sys

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from mlx_gpt import cpu_kernels


def attention(q_BHTD: array, k_BHSD: array, v_BHSD: array, seen_BTS: array | None = None) -> array:
    """Causal attention, (B, H, T, D), with T = S or, from a cache, T = 1. `seen_BTS` (bool) replaces the causal mask."""
    T, S, D = q_BHTD.shape[2], k_BHSD.shape[2], q_BHTD.shape[3]
    if T == S > 1 and slow(q_BHTD):
        return cpu_kernels.attention(q_BHTD, k_BHSD, v_BHSD, seen_BTS)
    causal = "causal" if T > 1 else None
    mask = causal if seen_BTS is None else seen_BTS[:, None]
    return mx.fast.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, scale=D**-0.5, mask=mask)


def gelu(x: array) -> array:
    """Tanh GELU (Hendrycks and Gimpel 2016), any shape."""
    return cpu_kernels.gelu(x) if slow(x) else nn.gelu_approx(x)


def silu(x: array) -> array:
    """x / (1 + e^-x) (Elfwing et al. 2017), any shape."""
    return cpu_kernels.silu(x) if slow(x) else nn.silu(x)


def cross_entropy(logits: array, targets: array) -> array:
    """-ln softmax of each target: logits (..., V), targets (...) integers."""
    if slow(logits):
        return cpu_kernels.cross_entropy(logits, targets)
    return nn.losses.cross_entropy(logits, targets, reduction="none")


def slow(x: array) -> bool:
    """Whether MLX has no vectorized exp for x: float32 on a CPU other than Apple's."""
    return mx.default_device() == mx.cpu and sys.platform != "darwin" and x.dtype == mx.float32
