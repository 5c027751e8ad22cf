"""Model and moments as numpy arrays by contract name, and back. Twin of torch_gpt/state.py."""

from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.core import array
from mlx.optimizers import MultiOptimizer
from mlx.utils import tree_flatten, tree_unflatten

from gpt_core.checkpoint import Arrays
from gpt_core.errors import InputError
from mlx_gpt.model import GPT


def flat(tree: Any) -> dict[str, array]:
    """A tree of arrays as name -> array, names joined by dots."""
    return cast(dict[str, array], tree_flatten(tree, destination={}))


def load_weights(model: GPT, weights: Arrays) -> None:
    """Copies weights into the model, contiguous and float32. Raises InputError where names or shapes differ."""
    expected = {name: parameter.shape for name, parameter in flat(model.parameters()).items()}
    given = {name: value.shape for name, value in weights.items()}
    if given != expected:
        differing = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise InputError(f"weights do not fit the model: {', '.join(differing)}")
    model.update(tree_unflatten([(name, mx.array(np.asarray(value, np.float32))) for name, value in weights.items()]))
    mx.eval(model.state)


def read_weights(model: GPT) -> Arrays:
    """The model's weights, float32."""
    return {name: np.array(parameter) for name, parameter in flat(model.parameters()).items()}


def load_moments(optimizer: MultiOptimizer, moments: Arrays, step: int) -> None:
    """Sets the optimizers' moments and their count of steps done, as if they had made them themselves."""
    for group in optimizer.optimizers:
        state = [(name, mx.array(moments[name]) if name in moments else value) for name, value in flat(group.state).items()]
        group.state = tree_unflatten(state)
        group.state["step"] = mx.array(step, mx.uint64)
    mx.eval(optimizer.state)


def read_moments(optimizer: MultiOptimizer) -> Arrays:
    """The optimizers' moments as `<name>.m` and `<name>.v`, float32."""
    return {
        name: np.array(value)
        for group in optimizer.optimizers
        for name, value in flat(group.state).items()
        if name.endswith((".m", ".v"))
    }
