"""Processes that train one model together, by mlx.core.distributed. Twin of torch_gpt/ranks.py."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.core import array
from mlx.utils import tree_unflatten

from gpt_core.errors import InputError
from gpt_core.ranks import ALONE, Ranks, reaching
from mlx_gpt.state import flat

PIECE = 1 << 22
"""Numbers in one message, 16 MB: on loopback the ring sends pieces of 1 MB seven times slower (docs/lab-notes.md)."""


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process's place among those that mlx.launch started: ring, jaccl or nccl, as it chose. Alone without it."""
    hosts = os.environ.get("MLX_HOSTFILE")
    if "MLX_RANK" not in os.environ or (hosts and not Path(hosts).read_text().strip()):  # empty: mlx.launch -n 1
        yield ALONE
        return
    try:
        group = mx.distributed.init(strict=True)
    except RuntimeError as error:
        raise InputError(f"rank {os.environ['MLX_RANK']} cannot join the others: {error}; start them by mlx.launch") from error
    rank, size = group.rank(), group.size()
    yield Ranks(rank, size, lambda values: _total(values, rank, size))


def _total(values: np.ndarray, rank: int, size: int) -> np.ndarray:
    return np.array(_summed(mx.array(values), Ranks(rank, size)))


def _summed(values: array, ranks: Ranks) -> array:
    """The sum over all ranks, by itself: where a rank is gone this raises, but work that waits for several sums hangs."""
    summed = mx.distributed.all_sum(values)
    with reaching(ranks):
        mx.eval(summed)
    return summed


def sum_gradients(loss: array, gradients: dict, ranks: Ranks) -> tuple[array, dict]:
    """The sums of loss and gradients over all ranks, in messages whose order never changes."""
    if ranks.size == 1:
        return loss, gradients
    named = flat(gradients)
    message = mx.concatenate([loss.reshape(1), *(gradient.reshape(-1) for gradient in named.values())])
    mx.eval(message)
    pieces = mx.split(message, range(PIECE, message.size, PIECE))
    message = mx.concatenate([_summed(piece, ranks) for piece in pieces])
    ends = np.cumsum([1, *(gradient.size for gradient in named.values())]).tolist()
    total, *sums = mx.split(message, ends[:-1])
    pairs = zip(named.items(), sums, strict=True)
    return total.squeeze(), tree_unflatten([(name, found.reshape(gradient.shape)) for (name, gradient), found in pairs])
