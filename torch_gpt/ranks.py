"""Processes that train one model together, by torch.distributed. Twin of mlx_gpt/ranks.py."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from gpt_core.errors import InputError
from gpt_core.ranks import ALONE, TIMEOUT_S, Ranks, reaching
from torch_gpt.model import GPT
from torch_gpt.state import is_sharded


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process's place among those that torchrun started: gloo between CPUs, nccl between GPUs. Alone without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=TIMEOUT_S))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"rank {rank} of {size} cannot join the others: {error}; start them by torchrun") from error
    ranks = Ranks(rank, size, lambda values: _total(values, rank, size))
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _total(values: np.ndarray, rank: int, size: int) -> np.ndarray:
    return _summed(torch.from_numpy(values.copy()), Ranks(rank, size)).numpy()


def _summed(values: Tensor, ranks: Ranks) -> Tensor:
    """The sum over all ranks, in place."""
    with reaching(ranks):
        dist.all_reduce(values)
    return values


def place(device: torch.device, ranks: Ranks) -> torch.device:
    """The device of this rank: a GPU of its own. Raises InputError where there are more ranks than GPUs."""
    if ranks.size == 1 or device.type == "cpu":
        return device
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size))
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if here > there or device.type == "mps":  # gloo cannot send what is in an MPS tensor
        raise InputError(
            f"--device {device.type} with {here} ranks on this machine and {there} GPU: start a rank for each CUDA GPU, "
            "or use --device cpu"
        )
    own = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def shard(model: GPT, device: torch.device, ranks: Ranks) -> None:
    """Leaves each rank its part of the weights, and so of gradients and moments, by torch's FSDP: a unit for each block."""
    if ranks.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # takes longer to import than all the rest of torch

    mesh = init_device_mesh(device.type, (ranks.size,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # after validation as well: moments belong to the parts


def sum_gradients(model: GPT, loss: Tensor, ranks: Ranks) -> Tensor:
    """Sums the gradients over all ranks, in place, and returns the sum of their losses, a scalar: one message.

    The order of that message never changes, so that a resumed run adds in the order of the first one. With
    DistributedDataParallel, which orders its buckets anew after the first step, it would not.
    """
    if ranks.size == 1:
        return loss
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if is_sharded(gradients[0]):  # FSDP has averaged them, each rank its part
        torch._foreach_mul_(gradients, float(ranks.size))
        gradients = []
    message = _summed(torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)]), ranks)
    total, *sums = message.split([1, *(gradient.numel() for gradient in gradients)])
    if gradients:
        torch._foreach_copy_(gradients, [found.view_as(gradient) for found, gradient in zip(sums, gradients, strict=True)])
    return total.squeeze()
