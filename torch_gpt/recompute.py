"""A layer that makes its input again for the backward pass: a quarter of what a block would keep (docs/lab-notes.md).

Twin of mlx_gpt/recompute.py.
"""

import torch.nn as nn
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from torch_gpt import functional as F


def linear_of_gelu(linear: nn.Linear, x: Tensor) -> Tensor:
    """`linear(gelu(x))`, keeping x alone on a CPU; elsewhere both are kept, unless torch.compile decides otherwise."""
    active = F.gelu(x)
    if x.device.type != "cpu":
        return linear(active)
    place, source = active.untyped_storage().data_ptr(), x.detach()

    def keep(tensor: Tensor) -> Tensor | tuple[int, ...]:
        return tuple(tensor.shape) if tensor.untyped_storage().data_ptr() == place else tensor

    def give(kept: Tensor | tuple[int, ...]) -> Tensor:
        return kept if isinstance(kept, Tensor) else F.gelu(source).view(kept)

    with saved_tensors_hooks(keep, give):
        return linear(active)
