"""A linear layer of one row, which is what decoding computes, on a CPU whose BLAS does that on one thread.

Twin of torch_gpt/one_row.py.
"""

from functools import cache

import mlx.core as mx
from mlx.core import array

from mlx_gpt import device as devices


def linear(x: array, weight: array, bias: array | None = None) -> array:
    """x W^T + b, (..., in) -> (..., out); one float32 row as two products at a time, each with half of the matrix.

    A stream of MLX computes on a thread of its own. More than two were not tried: the machine had two cores.
    """
    rows = weight.shape[0]
    one_row = x.size == x.shape[-1] and x.dtype == mx.float32 and mx.default_device() == mx.cpu
    if not one_row or rows % 2 or not devices.multiplies_one_row_on_one_thread():
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
