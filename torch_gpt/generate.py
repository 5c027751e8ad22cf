"""python -m torch_gpt.generate: continues a prompt. Twin of mlx_gpt/generate.py."""

import numpy as np
import torch

from gpt_core import cli, generation
from gpt_core.generation import Forward
from torch_gpt import device as devices
from torch_gpt.model import GPT, KVCache
from torch_gpt.state import load_weights


def make_forward(model: GPT, device: torch.device) -> Forward:
    """The forward pass for `generation.generate`: new tokens and a cache in, the last logits (V,) and the cache out."""

    @torch.inference_mode()
    def forward(tokens: list[int], cache: KVCache | None) -> tuple[np.ndarray, KVCache]:
        cache = cache or KVCache(model.block_size)
        logits_BTV = model(torch.tensor([tokens], device=device), cache)
        return logits_BTV[0, -1].cpu().numpy(), cache

    return forward


def main() -> None:
    """The command."""
    args = generation.parser("torch_gpt", devices.DEVICES).parse_args()
    device = devices.pick(args.device)
    loaded, tokenizer, sampling = generation.load_source(args)
    model = GPT(loaded.model).to(device)
    load_weights(model, loaded.weights)
    generation.stream(make_forward(model, device), tokenizer, loaded, sampling, args)


if __name__ == "__main__":
    cli.run(main)
