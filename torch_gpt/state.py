"""Model and moments as numpy arrays by contract name, and back. Twin of mlx_gpt/state.py."""

from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from gpt_core.checkpoint import Arrays
from gpt_core.errors import InputError
from torch_gpt.model import GPT

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


def load_moments(model: GPT, optimizer: AdamW, moments: Arrays, step: int) -> None:
    """Sets AdamW's moments and its count of steps done, as if it had made them itself."""
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step), device=parameter.device),
            "exp_avg": like(moments[f"{name}.m"], parameter),
            "exp_avg_sq": like(moments[f"{name}.v"], parameter),
        }


def read_moments(model: GPT, optimizer: AdamW) -> Arrays:
    """AdamW's moments as `<name>.m` and `<name>.v`, float32."""
    moments = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        moments[f"{name}.m"] = whole(state["exp_avg"]).cpu().numpy()
        moments[f"{name}.v"] = whole(state["exp_avg_sq"]).cpu().numpy()
    return moments
