"""A linear layer of one row, which is what decoding computes, on a CPU whose BLAS does that on one thread.

Twin of mlx_gpt/one_row.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_gpt import device as devices
from torch_gpt import onednn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, (..., in) -> (..., out); one float32 row as a batch of products, each with a part of the matrix.

    The same sums, which some shapes add up in another order. Not for gradients, nor inside a mode that rounds what F.linear is
    given.
    """
    if x.device.type != "cpu" or x.numel() != x.shape[-1] or torch.is_grad_enabled():
        return onednn.linear(x, weight, bias)
    rows, width = weight.shape
    parts = devices.row_parts(rows, width)
    if parts == 1 or rows % parts or not onednn.plain(x):
        return F.linear(x, weight, bias)
    each = x.reshape(1, 1, width).expand(parts, 1, width), weight.view(parts, rows // parts, width).transpose(1, 2)
    y = torch.bmm(*each) if bias is None else torch.baddbmm(bias.view(parts, 1, rows // parts), *each)
    return y.view(*x.shape[:-1], rows)
