"""The head and its loss as one function, so that the logits of a step never all exist. Twin of torch_gpt/loss.py."""

from typing import cast

import mlx.core as mx
from mlx.core import array

from mlx_gpt import cpu_kernels
from mlx_gpt import functional as F

ROWS = 256
"""Tokens whose logits exist at a time: 10 MB of them at 10,240 tokens of vocabulary, which the cache of a CPU holds."""


def head_loss(x_NC: array, weight_VC: array, targets_N: array, factors_N: array) -> array:
    """The sum of factor x -ln softmax(x W^T)[target], a float32 scalar.

    On a slow CPU by `_head_loss`; elsewhere in one go.
    """
    if F.slow(x_NC):
        return cast(cpu_kernels.Outputs, _head_loss(x_NC, weight_VC, targets_N, factors_N))[0]
    return (F.cross_entropy((x_NC @ weight_VC.T).astype(mx.float32), targets_N) * factors_N).sum()


@mx.custom_function
def _head_loss(x_NC: array, weight_VC: array, targets_N: array, factors_N: array) -> tuple[array, array, array]:
    """The loss, and the gradients of x and W for a loss of cotangent 1: some rows at a time,
    d loss / d logits = factor x (softmax - 1 at the target)."""
    parts, of_x, of_weight = [], [], mx.zeros_like(weight_VC)
    for begin in range(0, len(x_NC), ROWS):
        x, target, factor = (values[begin : begin + ROWS] for values in (x_NC, targets_N, factors_N))
        target, factor = target[:, None], factor[:, None]
        logits = x @ weight_VC.T
        logits = logits - logits.max(axis=1, keepdims=True)
        powers = cpu_kernels.exp(logits)
        sums = powers.sum(axis=1, keepdims=True)
        parts.append(((mx.log(sums) - mx.take_along_axis(logits, target, axis=1)) * factor).sum())
        softmax = powers * (factor / sums)
        of_logits = mx.put_along_axis(softmax, target, mx.take_along_axis(softmax, target, axis=1) - factor, axis=1)
        of_x.append(of_logits @ weight_VC)
        of_weight = mx.addmm(of_weight, of_logits.T, x)
    return mx.stack(parts).sum(), mx.concatenate(of_x), of_weight


@_head_loss.vjp
def _head_loss_vjp(
    primals: tuple[array, ...], cotangents: cpu_kernels.Outputs, outputs: cpu_kernels.Outputs
) -> tuple[array, array, array, array]:
    _, _, targets_N, factors_N = primals
    _, of_x, of_weight = outputs
    return of_x * cotangents[0], of_weight * cotangents[0], mx.zeros_like(targets_N), mx.zeros_like(factors_N)
