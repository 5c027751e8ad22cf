"""Hugging Face transformers: GPT2LMHeadModel with torch.optim.AdamW, our weights in it, no dropout."""

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peer_torch import autocast, plain_loop
from benchmarks.spec import Spec
from benchmarks.timing import Clock
from benchmarks.work import Work
from gpt_core.init import initial_weights
from torch_gpt import device as devices
from weights.table import GPT2, to_hf

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is to be asked of the hub
import transformers  # isort: skip


class Stamps(transformers.generation.streamers.BaseStreamer):
    """Notes when each token of a generation is there."""

    def __init__(self, clock: Clock):
        self._clock, self.at = clock, [clock()]

    def put(self, value: Tensor) -> None:
        """Called with the prompt, then with each token."""
        self.at.append(self._clock())

    def end(self) -> None:
        """Nothing is left to note."""


def open_work(spec: Spec) -> Work:
    """The model as `from_config` makes it, with the attention that transformers chooses by itself."""
    device = devices.pick(spec.device, spec.dtype)
    config = transformers.GPT2Config(
        vocab_size=spec.model.vocab_size,
        n_positions=spec.model.block_size,
        n_embd=spec.model.n_embd,
        n_layer=spec.model.n_layer,
        n_head=spec.model.n_head,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=None,  # so that a generation is as long as asked for
    )
    model: Any = transformers.GPT2LMHeadModel(config)
    model.to(device)
    weights = to_hf(initial_weights(spec.model, spec.train.seed), spec.model, GPT2)
    model.transformer.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    train = spec.train
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=train.lr, betas=(train.beta1, train.beta2), weight_decay=train.weight_decay
    )

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        logits = model(input_ids=inputs, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def generate(prompt: list[int], count: int, clock: Clock) -> tuple[float, float, int]:
        ids = torch.tensor([prompt], device=device)
        stamps = Stamps(clock)
        with torch.no_grad(), autocast(device, spec.dtype):
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, pad_token_id=0, streamer=stamps
            )
        begin, _, first, *others = stamps.at
        return first - begin, (others or [first])[-1] - first, 1 + len(others)

    return plain_loop(spec, device, model, loss, optimizer, {"transformers": transformers.__version__}, generate)
