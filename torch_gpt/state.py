"""Model and moments as numpy arrays by contract name, and back. Twin of mlx_gpt/state.py."""

import numpy as np
import torch
from torch.optim import AdamW

from gpt_core.checkpoint import Arrays
from gpt_core.errors import InputError
from torch_gpt.model import GPT


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
    return {name: parameter.detach().cpu().numpy() for name, parameter in model.named_parameters()}


def load_moments(model: GPT, optimizer: AdamW, moments: Arrays, step: int) -> None:
    """Sets AdamW's moments and its count of steps done, as if it had made them itself."""
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step), device=parameter.device),
            "exp_avg": torch.from_numpy(moments[f"{name}.m"]).to(parameter.device).clone(),
            "exp_avg_sq": torch.from_numpy(moments[f"{name}.v"]).to(parameter.device).clone(),
        }


def read_moments(model: GPT, optimizer: AdamW) -> Arrays:
    """AdamW's moments as `<name>.m` and `<name>.v`, float32."""
    moments = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        moments[f"{name}.m"] = state["exp_avg"].cpu().numpy()
        moments[f"{name}.v"] = state["exp_avg_sq"].cpu().numpy()
    return moments
