"""A layer that makes its input again for the backward pass: a quarter of what a block would keep (docs/lab-notes.md).

Twin of torch_gpt/recompute.py.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from mlx_gpt import functional as F


def linear_of_gelu(linear: nn.Linear, x: array) -> array:
    """`linear(gelu(x))`, keeping x alone where GELU has a kernel of our own; elsewhere what MLX keeps."""
    if not F.slow(x):
        return linear(F.gelu(x))

    def layer(x: array, weight: array, *bias: array) -> array:
        return mx.addmm(bias[0], F.gelu(x), weight.T) if bias else F.gelu(x) @ weight.T

    return mx.checkpoint(layer)(x, linear.weight, *([linear.bias] if "bias" in linear else []))
