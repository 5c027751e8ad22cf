"""A linear layer of one row, which is what decoding computes, on a CPU whose BLAS does that on one thread.

Twin of mlx_gpt/one_row.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_gpt import device as devices
from torch_gpt import onednn


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, (..., in) -> (..., out); one float32 row in the way that `device.row_way` says.

    The same sums, which some ways add up in another order. Not for gradients, nor inside a mode that rounds what F.linear is
    given.
    """
    if x.device.type != "cpu" or x.numel() != x.shape[-1] or torch.is_grad_enabled():
        return onednn.linear(x, weight, bias)
    rows, width = weight.shape
    way = devices.row_way(rows, width)
    if way == "whole" or not onednn.plain(x):
        return F.linear(x, weight, bias)
    if way == "pair":
        y = beside_zeros(x.reshape(1, width), weight, bias)
    else:
        y = in_parts(x.reshape(1, width), weight, bias, rows if way == "rows" else torch.get_num_threads())
    return y.reshape(*x.shape[:-1], rows)


def beside_zeros(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(1, in) -> (out,), as the first column of W times two columns, the second of zeros: to a BLAS, a product of matrices."""
    columns = F.pad(x, (0, 0, 0, 1)).T
    return (weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns))[:, 0]


def in_parts(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> Tensor:
    """(1, in) -> (parts, 1, out / parts), as a batch of products, each with a part of the matrix."""
    rows, width = weight.shape
    each = x.expand(parts, 1, width), weight.view(parts, rows // parts, width).transpose(1, 2)
    return torch.bmm(*each) if bias is None else torch.baddbmm(bias.view(parts, 1, rows // parts), *each)
