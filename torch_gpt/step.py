"""One optimizer step, and the nats of tokens. Twin of mlx_gpt/step.py."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_core.ahead import nothing
from gpt_core.config import DType, TrainConfig
from gpt_core.packing import split_batch
from gpt_core.ranks import ALONE, Ranks
from gpt_core.scoring import TokenNats
from torch_gpt import device as devices
from torch_gpt.model import GPT
from torch_gpt.optim import MultiOptimizer, clip, set_lr
from torch_gpt.ranks import sum_gradients
from torch_gpt.state import whole

TrainStep = Callable[..., tuple[float, float]]
"""(batch (accumulation, B, T+1) int32, learning rate, what `drawn_at` draws for it, or none of it, and what to do while the
device works) -> (loss in nats a token, gradient norm before clipping)."""


LOSS_SCALE = {"float32": 1.0, "bfloat16": 1.0, "float16": 1024.0}
"""Factor on the loss that keeps small float16 gradients from vanishing; gradients are divided by it again."""


def precision(device: torch.device, dtype: DType) -> AbstractContextManager:
    """For the forward pass in half precision: products in `dtype`, weights and residual stream in float32."""
    return nullcontext() if dtype == "float32" else devices.half_precision(device, dtype)


def nats(
    model: GPT, idx_BT: Tensor, targets_BT: Tensor, positions_BT: Tensor | None = None, counted_BT: Tensor | None = None
) -> Tensor:
    """-ln p of each target, (B, T) float32. Of packed rows: positions as `GPT` takes them, and 0 for targets left out."""
    logits_BTV = model(idx_BT, positions_BT=positions_BT)
    nats_BT = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none").view(targets_BT.shape)
    return nats_BT if counted_BT is None else nats_BT * counted_BT


def make_train_step(
    model: GPT, optimizer: MultiOptimizer, config: TrainConfig, device: torch.device, ranks: Ranks = ALONE
) -> TrainStep:
    """The step as a function of a rank's part of the batch and of the learning rate; it changes model and optimizer."""
    scale = LOSS_SCALE[config.dtype]

    @partial(devices.compiled, device=device)
    def loss_of(factor: Tensor, micro_batch: dict[str, Tensor]) -> Tensor:
        kept = micro_batch["kept"] / (1 - config.dropout) if "kept" in micro_batch else None
        scored = micro_batch["targets"], micro_batch["counted"] * factor
        return model(micro_batch["idx"], positions_BT=micro_batch.get("positions"), kept_BPTC=kept, loss_of=scored)

    def train_step(
        batch: np.ndarray, lr: float, drawn: dict[str, np.ndarray] | None = None, meanwhile: Callable[[], None] = nothing
    ) -> tuple[float, float]:
        parts, targets = split_batch(batch, config.document_mask)
        factor = torch.tensor(scale / ranks.sum(targets), device=device)
        tensors = {name: torch.from_numpy(part).to(device) for name, part in (parts | (drawn or {})).items()}
        tensors |= {name: tensors[name].long() for name in ("idx", "targets")}
        total = torch.zeros((), device=device)
        set_lr(optimizer, lr)
        optimizer.zero_grad()
        with precision(device, config.dtype):  # around all micro-batches: autocast then casts each weight once a step
            for index in range(len(batch)):
                part = loss_of(factor, {name: values[index] for name, values in tensors.items()})
                with torch.autocast(device.type, enabled=False):
                    part.backward()
                total += part.detach() / scale
                del part  # or what is left of its graph lies among the activations of the next micro-batch
        if scale != 1.0:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= scale
        total = sum_gradients(model, total, ranks)
        norm_before = whole(clip(model, config.grad_clip))
        meanwhile()
        loss, norm = total.item(), norm_before.item()  # read last: until then a GPU works on while Python queues
        if math.isfinite(loss) and math.isfinite(norm):
            optimizer.step()
        return loss, norm

    return train_step


def make_token_nats(model: GPT, device: torch.device, dtype: DType = "float32") -> TokenNats:
    """The scoring function of a model, numpy in and out."""

    @torch.no_grad()
    def token_nats(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        x, y = (torch.from_numpy(tokens).long().to(device) for tokens in (inputs, targets))
        with precision(device, dtype):
            return nats(model, x, y).cpu().numpy()

    return token_nats
