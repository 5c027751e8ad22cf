"""python -m mlx_gpt.generate: continues a prompt. Twin of torch_gpt/generate.py."""

import mlx.core as mx
import numpy as np

from gpt_core import cli, generation
from gpt_core.generation import Forward
from mlx_gpt import device as devices
from mlx_gpt.model import GPT, KVCache
from mlx_gpt.one_token import make_one_token
from mlx_gpt.state import load_weights


def make_forward(model: GPT) -> Forward:
    """The forward pass for `generation.generate`: new tokens and a cache in, the last logits (V,) and the cache out."""
    one_token = make_one_token(model)

    def forward(tokens: list[int], cache: KVCache | None) -> tuple[np.ndarray, KVCache]:
        cache = cache or KVCache(model.block_size)
        step = one_token if len(tokens) == 1 and cache.length else model
        logits_BTV = step(mx.array([tokens]), cache)
        return np.array(logits_BTV)[0, -1], cache

    return forward


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
