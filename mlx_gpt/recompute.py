"""A layer that makes its input again for the backward pass: a quarter of what a block would keep (docs/lab-notes.md).

Twin of torch_gpt/recompute.py.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from mlx_gpt.functional import gelu, slow


def linear_of_gelu(linear: nn.Linear, x: array) -> array:
    """`linear(gelu(x))`, keeping x alone where GELU has a kernel of our own; elsewhere what MLX keeps."""
    if not slow(x):
        return linear(gelu(x))

    def layer(x: array, weight: array, *bias: array) -> array:
        return mx.addmm(bias[0], gelu(x), weight.T) if bias else gelu(x) @ weight.T

    return mx.checkpoint(layer)(x, linear.weight, *([linear.bias] if "bias" in linear else []))
