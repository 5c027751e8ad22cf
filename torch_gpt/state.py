"""Model and moments as numpy arrays by contract name, and back. Twin of mlx_gpt/state.py."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from gpt_core.checkpoint import Arrays
from gpt_core.errors import InputError
from torch_gpt.model import GPT
from torch_gpt.muon import Muon
from torch_gpt.optim import MultiOptimizer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard["DTensor"]:
    """Whether it is one of FSDP's, torch.distributed.tensor.DTensor, which takes seconds to import."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor, or the parts of a sharded one from all ranks."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def like(values: np.ndarray, parameter: Tensor) -> Tensor:
    """A copy of an array where a parameter is, and sharded as it is."""
    tensor = torch.from_numpy(values).to(parameter.device)
    if not is_sharded(parameter):
        return tensor.clone()
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


def load_weights(model: GPT, weights: Arrays) -> None:
    """Copies weights into the model, contiguous and float32. Raises InputError where names or shapes differ."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    given = {name: value.shape for name, value in weights.items()}
    if given != expected:
        differing = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise InputError(f"weights do not fit the model: {', '.join(differing)}")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weights[name], dtype=np.float32)))


def read_weights(model: GPT) -> Arrays:
    """The model's weights, float32."""
    return {name: whole(parameter.detach()).cpu().numpy() for name, parameter in model.named_parameters()}


KEYS = {AdamW: {"m": "exp_avg", "v": "exp_avg_sq"}, Muon: {"m": "momentum"}}
"""What each optimizer calls its moments."""


def load_moments(model: GPT, optimizer: MultiOptimizer, moments: Arrays, step: int) -> None:
    """Sets the optimizers' moments and their count of steps done, as if they had made them themselves."""
    for name, parameter, part in _owned(model, optimizer):
        part.state[parameter] = {"step": torch.tensor(float(step), device=parameter.device)}
        for moment, key in KEYS[type(part)].items():
            part.state[parameter][key] = like(moments[f"{name}.{moment}"], parameter)


def read_moments(model: GPT, optimizer: MultiOptimizer) -> Arrays:
    """The optimizers' moments as `<name>.m` and `<name>.v`, float32."""
    return {
        f"{name}.{moment}": whole(part.state[parameter][key]).cpu().numpy()
        for name, parameter, part in _owned(model, optimizer)
        for moment, key in KEYS[type(part)].items()
    }


def _owned(model: GPT, optimizer: MultiOptimizer) -> Iterator[tuple[str, Tensor, Optimizer]]:
    """Each parameter with the optimizer that updates it."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for part in optimizer.optimizers:
        for group in part.param_groups:
            yield from ((names[parameter], parameter, part) for parameter in group["params"])
