"""The plain PyTorch training loop, as in nanoGPT's train.py, around a peer's model.

A peer imports torch before anything of torch_gpt, so that it multiplies as any loop does: gpt_core/mkl.py comes too late then.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.spec import Spec
from benchmarks.torch_work import matmul
from benchmarks.work import Generate, Work, loader
from gpt_core.ahead import nothing
from gpt_core.config import DType
from torch_gpt import device as devices

Loss = Callable[[Tensor, Tensor], Tensor]
"""(inputs, targets), (B, T) int64 each -> mean loss in nats a token, as the peer computes it."""


def autocast(device: torch.device, dtype: DType) -> AbstractContextManager:
    """Half precision as any loop has it: without what torch_gpt does for some devices."""
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, getattr(torch, dtype))


def plain_loop(
    spec: Spec,
    device: torch.device,
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    versions: dict[str, str],
    generate: Generate | None = None,
) -> Work:
    """Micro-batches through `loss`, gradients summed and clipped, one optimizer step; half precision by autocast."""
    batches = loader(spec)

    def step(batch: np.ndarray, meanwhile: Callable[[], None] = nothing) -> float:
        tokens = torch.from_numpy(batch).long().to(device)
        inputs, targets = tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()  # nanoGPT's loss takes views of them
        total = torch.zeros((), device=device)
        for x, y in zip(inputs, targets, strict=True):
            with autocast(device, spec.dtype):
                value = loss(x, y) / len(tokens)
            value.backward()
            total += value.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.train.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meanwhile()  # as nanoGPT's train.py fetches its next batch
        found = total.item()  # a user watches the loss; ours reads it every step too
        devices.synchronize(device)
        return found

    return Work(
        chip=devices.describe(device),
        versions=devices.versions() | versions,
        batch_at=batches.batch_at,
        step=step,
        peak_memory=partial(devices.peak_memory, device),
        product=matmul(device, spec.dtype),
        generate=generate,
    )
