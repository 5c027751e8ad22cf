"""The pass of one new token through the model as a graph that is compiled once, not built anew for every token.

What grows from token to token is data in it: the number of tokens seen, and which of a fixed number of keys count. A Python
number would be a constant of the graph. On a CPU `tiny` and `fast` generate 1.3 to 1.5 times as fast by it, `best` 1.2 to 1.3,
`seed` 1.05; its kernels take about 5 s to build, once a machine. On Metal it is not measured.
In the MLX twin only: PyTorch builds no graph, it computes an operation when it meets it.
"""

from collections.abc import Callable
from functools import partial

import mlx.core as mx
from mlx.core import array

from mlx_gpt.model import GPT, KVCache

STRIDE = 128
"""Keys by which the graph's number of them grows: `seed` takes 6 % less a token with 128, nothing with all 512 at once."""


class Places(KVCache):
    """A cache whose length is an array, and which gives out as many keys and values as `seen_BTS` has, used or not."""

    def __init__(self, length: array, seen_BTS: array, keys: list[array], values: list[array]):
        super().__init__(seen_BTS.shape[2])
        self.length = self.place = length
        self.seen_BTS, self.keys, self.values = seen_BTS, [*keys], [*values]

    def extend(self, layer: int, k_BHTD: array, v_BHTD: array) -> tuple[array, array]:
        """Writes one token behind the others and returns views of the first places, (B, H, S, D) each."""
        keys, values = (
            mx.slice_update(buffers[layer], new, self.place, axes=[2])
            for buffers, new in ((self.keys, k_BHTD), (self.values, v_BHTD))
        )
        self.keys[layer], self.values[layer] = keys, values
        return keys[:, :, : self.block_size], values[:, :, : self.block_size]


def make_one_token(model: GPT) -> Callable[[array, KVCache], array]:
    """The model as a function of one token, (B, 1), and a cache with others before it: logits (B, 1, V), as `GPT` gives."""

    @partial(mx.compile, inputs=[model.state])
    def compiled(
        idx_BT: array, length: array, seen_BTS: array, keys: list[array], values: list[array]
    ) -> tuple[array, list[array], list[array]]:
        cache = Places(length, seen_BTS, keys, values)
        return model(idx_BT, cache), cache.keys, cache.values

    def one_token(idx_BT: array, cache: KVCache) -> array:
        length = int(cache.length)
        S = min(length // STRIDE * STRIDE + STRIDE, cache.block_size)
        seen_BTS = mx.arange(S)[None, None] <= length
        logits_BTV, cache.keys, cache.values = compiled(idx_BT, mx.array(length), seen_BTS, cache.keys, cache.values)
        cache.length = length + 1
        return logits_BTV

    return one_token
