"""python -m mlx_gpt.generate: continues a prompt. Twin of torch_gpt/generate.py."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.core import array
from mlx.utils import tree_map

from gpt_core import cli, generation
from gpt_core.generation import Forward
from mlx_gpt import device as devices
from mlx_gpt.model import GPT, KVCache
from mlx_gpt.one_token import make_one_token
from mlx_gpt.state import load_weights


def make_forward(model: GPT) -> Forward:
    """The forward pass for `generation.generate`: new tokens and a cache in, the last logits (V,) and the cache out."""
    lay_out(model)
    one_token = make_one_token(model)

    def forward(tokens: list[int], cache: KVCache | None) -> tuple[np.ndarray, KVCache]:
        cache = cache or KVCache(model.block_size)
        step = one_token if len(tokens) == 1 and cache.length else model
        logits_BTV = step(mx.array([tokens]), cache)
        return np.array(logits_BTV)[0, -1], cache

    return forward


def lay_out(model: nn.Module) -> None:
    """Stores a model's matrices by columns where one row is multiplied faster so. Their values and shapes stay."""

    def stored(weight: array) -> array:
        by_columns = weight.ndim == 2 and weight.dtype == mx.float32 and devices.reads_columns(*weight.shape)
        return mx.contiguous(weight.T).T if by_columns else weight

    if mx.default_device() == mx.cpu:
        model.update(tree_map(stored, model.parameters()))
        mx.eval(model.parameters())


def main() -> None:
    """The command."""
    args = generation.parser("mlx_gpt", devices.DEVICES).parse_args()
    devices.pick(args.device)
    loaded, tokenizer, sampling = generation.load_source(args)
    model = GPT(loaded.model)
    load_weights(model, loaded.weights)
    generation.stream(make_forward(model), tokenizer, loaded, sampling, args)


if __name__ == "__main__":
    cli.run(main)
