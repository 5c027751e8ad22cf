"""A linear layer of one row, which is what decoding computes, on a CPU whose BLAS does that on one thread.

Twin of torch_gpt/one_row.py.
"""

from functools import cache

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array
from mlx.utils import tree_map

from mlx_gpt import device as devices


def lay_out(model: nn.Module) -> None:
    """Stores a model's matrices by columns where one row is multiplied faster so. Their values and shapes stay."""

    def stored(weight: array) -> array:
        by_columns = weight.ndim == 2 and weight.dtype == mx.float32 and devices.reads_columns(*weight.shape)
        return mx.contiguous(weight.T).T if by_columns else weight

    if mx.default_device() == mx.cpu:
        model.update(tree_map(stored, model.parameters()))
        mx.eval(model.parameters())


def linear(x: array, weight: array, bias: array | None = None) -> array:
    """x W^T + b, (..., in) -> (..., out); one float32 row as two products at a time, each with half of the matrix.

    A stream of MLX computes on a thread of its own.
    """
    one_row = x.size == x.shape[-1] and x.dtype == mx.float32 and mx.default_device() == mx.cpu
    rows, width = weight.shape
    if not one_row or devices.row_way(rows, width) == "whole":
        return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)
    halves = []
    for half, stream in ((slice(rows // 2), None), (slice(rows // 2, rows), second_stream())):
        matrix = weight[half].T
        halves.append(mx.matmul(x, matrix, stream=stream) if bias is None else mx.addmm(bias[half], x, matrix, stream=stream))
    return mx.concatenate(halves, axis=-1)


@cache
def second_stream() -> mx.ThreadLocalStream:
    """A stream of the CPU beside its default one, whichever thread asks."""
    return mx.new_thread_local_stream(mx.Device(mx.cpu))
