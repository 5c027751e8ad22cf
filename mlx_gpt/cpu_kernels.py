"""Attention, GELU and cross-entropy for MLX's CPU backend, in float32, with gradients that reuse the forward pass.

Why they exist: on x86, MLX's exp takes 19 ns a value and its tanh 20, one value at a time on one thread, where a multiplication
takes 0.8; softmax, GELU and cross-entropy took two thirds of a training step. `exp` is made of operations that a C++ compiler
vectorizes and takes 1.1 ns. Metal and CUDA have fused kernels of MLX's own and use nothing of this.
"""

import math
from collections.abc import Callable
from typing import cast

import mlx.core as mx
from mlx.core import array

Outputs = tuple[array, ...]
LOG2_E = 1 / math.log(2)
ROUND = 1.5 * 2**23
"""Added and taken away again, it rounds a float32 below 2^22 to the nearest integer."""
HIDDEN = -1e6
"""Added to the score of a key that a query does not see: exp of it is exactly 0, and, unlike infinity, it makes no NaN."""
QUERIES = 128
"""Queries in a block of `attention`: it takes the keys up to its own end, which at T = 512 leaves out 3/8 of the scores."""
GELU, CUBIC = math.sqrt(2 / math.pi), 0.044715
"""tanh GELU: u = sqrt(2 / pi) (x + 0.044715 x^3)."""
GELU_END = 80.0
"""Largest |2 u| that makes a difference: e^-80 is 1e-35."""


def kernel(function: Callable[..., array]) -> Callable[..., array]:
    """`function` as one compiled loop over equal shapes, with one output and nothing else fused into it.

    The C++ compiler vectorizes only such loops: not those with two outputs, which might overlap, nor those that broadcast.
    `mx.contiguous`, which copies nothing here, is the fence that mx.compile does not fuse across.
    """
    compiled = mx.compile(function)
    return lambda *arrays: mx.contiguous(compiled(*(mx.contiguous(x) for x in arrays)))


@kernel
def _power(x: array) -> array:
    """2^round(x log2(e)) by its float32 bits, int32; 0 below 2^-126, 2^127 above it."""
    whole = ((x * LOG2_E + ROUND) - ROUND).astype(mx.int32)
    return mx.minimum(mx.maximum(whole + 127, 0), 254) << 23


@kernel
def _exp(x: array, power: array) -> array:
    """exp(x), given 2^round(x log2(e)). The polynomial is Cephes' exp2f, in pairs: mx.compile fuses up to 11 in a row."""
    x = x * LOG2_E
    f = x - ((x - ROUND) + ROUND)  # rounds as in _power; the same expression would be calculated there, as a second output
    ff = f * f
    low = (f * 6.931472028550421e-1 + 1.0) + ff * (f * 5.550332471162809e-2 + 2.402264791363012e-1)
    high = (f * 1.339887440266574e-3 + 9.618437357674640e-3) + ff * 1.535336188319500e-4
    return (low + (ff * ff) * high) * power


def exp(x: array) -> array:
    """e^x, within 2e-7 + 8e-8 |x| of its value; 0 below 2^-126. For |x| below 2^21."""
    return _exp(x, _power(x).view(mx.float32))


@mx.custom_function
def _attention(q: array, k: array, v: array, hidden: array) -> Outputs:
    """Output, 1 / row sums of e^(score - largest), and those powers block by block, keys before queries."""
    T, D = q.shape[2:]
    q = q * D**-0.5
    v = mx.concatenate([v, mx.ones((*v.shape[:3], 1))], axis=3)  # so that the last column of the product is the row sum
    outputs, powers = [], []
    for begin, end in _blocks(T):
        scores = mx.addmm(hidden[..., :end, begin:end], k[:, :, :end], q[:, :, begin:end].swapaxes(2, 3))
        powers.append(exp(scores - scores.max(axis=2, keepdims=True)))
        outputs.append(powers[-1].swapaxes(2, 3) @ v[:, :, :end])
    output = mx.concatenate(outputs, axis=2)
    scale = 1 / output[..., D:]
    return output[..., :D] * scale, scale, *powers


@_attention.vjp
def _attention_vjp(primals: tuple[array, ...], cotangents: Outputs, outputs: Outputs) -> tuple[array, array, array, array]:
    """dS = P (dO V^T - rowsum(dO O)), P being powers times scale: Dao et al. 2022 (FlashAttention), appendix B.2."""
    q, k, v, hidden = primals
    output, scale, *powers = outputs
    T, D = q.shape[2:]
    d_output = cotangents[0] * scale
    rows = mx.concatenate([d_output, -(d_output * output).sum(axis=3, keepdims=True)], axis=3)
    columns = mx.concatenate([v, mx.ones((*v.shape[:3], 1))], axis=3)
    q, k = q * D**-0.5, k * D**-0.5
    dq, dk, dv = [], [], []
    k_left, v_left = mx.zeros_like(k), mx.zeros_like(v)
    for (begin, end), power in reversed(list(zip(_blocks(T), powers, strict=True))):
        d_scores = power * (columns[:, :, :end] @ rows[:, :, begin:end].swapaxes(2, 3))
        dq.append(d_scores.swapaxes(2, 3) @ k[:, :, :end])
        k_left = mx.addmm(k_left[:, :, :end], d_scores, q[:, :, begin:end])
        v_left = mx.addmm(v_left[:, :, :end], power, d_output[:, :, begin:end])
        dk.append(k_left[:, :, begin:])
        dv.append(v_left[:, :, begin:])
    together = [mx.concatenate(parts[::-1], axis=2) for parts in (dq, dk, dv)]
    return together[0], together[1], together[2], mx.zeros_like(hidden)


def _blocks(T: int) -> list[tuple[int, int]]:
    """First query and the one after the last of each block."""
    return [(begin, min(begin + QUERIES, T)) for begin in range(0, T, QUERIES)]


def attention(q_BHTD: array, k_BHSD: array, v_BHSD: array, seen_BTS: array | None = None) -> array:
    """Attention over T = S tokens, (B, H, T, D): causal, or where `seen_BTS` (bool), which is causal as well, says."""
    index_T = mx.arange(q_BHTD.shape[2])
    hidden_BST = index_T[:, None] > index_T if seen_BTS is None else ~seen_BTS.swapaxes(1, 2)[:, None]
    return cast(Outputs, _attention(q_BHTD, k_BHSD, v_BHSD, hidden_BST.astype(mx.float32) * HIDDEN))[0]


@kernel
def _gelu_exponent(x: array) -> array:
    """-2 u, where tanh GELU is x (1 + tanh u) / 2 = x / (1 + e^-2u)."""
    return mx.maximum(mx.minimum(x * ((x * x) * (-2 * GELU * CUBIC) - 2 * GELU), GELU_END), -GELU_END)


@kernel
def _over_one_plus(x: array, power: array) -> array:
    return x / (1 + power)


@kernel
def _gelu_gradient(x: array, power: array, cotangent: array) -> array:
    sigmoid = 1 / (1 + power)  # and power * sigmoid is 1 - sigmoid, without a difference of like numbers
    return cotangent * (sigmoid + (x * sigmoid) * (power * sigmoid) * (x * x * (6 * GELU * CUBIC) + 2 * GELU))


@mx.custom_function
def _gelu(x: array) -> tuple[array, array]:
    power = exp(_gelu_exponent(x))
    return _over_one_plus(x, power), power


@_gelu.vjp
def _gelu_vjp(x: array, cotangents: Outputs, outputs: Outputs) -> array:
    return _gelu_gradient(x, outputs[1], cotangents[0])


def gelu(x: array) -> array:
    """Tanh GELU, any shape."""
    return cast(Outputs, _gelu(x))[0]


@kernel
def _silu_exponent(x: array) -> array:
    return mx.maximum(mx.minimum(-x, GELU_END), -GELU_END)


@kernel
def _silu_gradient(x: array, power: array, cotangent: array) -> array:
    sigmoid = 1 / (1 + power)
    return cotangent * sigmoid * (1 + x * (power * sigmoid))


@mx.custom_function
def _silu(x: array) -> tuple[array, array]:
    power = exp(_silu_exponent(x))
    return _over_one_plus(x, power), power


@_silu.vjp
def _silu_vjp(x: array, cotangents: Outputs, outputs: Outputs) -> array:
    return _silu_gradient(x, outputs[1], cotangents[0])


def silu(x: array) -> array:
    """SiLU, any shape."""
    return cast(Outputs, _silu(x))[0]


@mx.custom_function
def _cross_entropy(logits: array, targets: array) -> tuple[array, array, array]:
    """Nats, and the softmax as powers and 1 / their sums, (..., 1)."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    powers = exp(logits)
    sums = powers.sum(axis=-1, keepdims=True)
    return (mx.log(sums) - mx.take_along_axis(logits, targets[..., None], axis=-1)).squeeze(-1), powers, 1 / sums


@_cross_entropy.vjp
def _cross_entropy_vjp(primals: tuple[array, array], cotangents: Outputs, outputs: Outputs) -> tuple[array, array]:
    targets = primals[1]
    cotangent, index = cotangents[0][..., None], targets[..., None]
    gradient = outputs[1] * (outputs[2] * cotangent)
    at_target = mx.take_along_axis(gradient, index, axis=-1) - cotangent
    return mx.put_along_axis(gradient, index, at_target, axis=-1), mx.zeros_like(targets)


def cross_entropy(logits: array, targets: array) -> array:
    """-ln softmax of each target: logits (..., V) float32, targets (...) integers."""
    return cast(Outputs, _cross_entropy(logits, targets))[0]
