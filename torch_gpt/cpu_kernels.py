"""Attention and GELU with gradients for torch on a CPU, in float32 and bfloat16.

Why they exist: torch's attention computes the half of the scores that the causal mask hides, and all of them where rows are
packed; its GELU takes 1 ns a value on two threads, this one 0.3. Figures in docs/lab-notes.md. The loops are C++
(cpu_kernels.cpp), built when they are first used (gpt_core/native.py). Where that cannot be done, torch's own functions stay;
Metal and CUDA have nothing to do with it.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gpt_core import native

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-fopenmp")
WIDTH = 16
"""Head widths are multiples of it: what a register of AVX-512 holds."""


@cache
def library() -> ctypes.CDLL | None:
    """The kernels; None where they cannot be built."""
    return native.load(SOURCE, FLAGS, machine=torch.cpu.get_capabilities())


class View(ctypes.Structure):
    """A tensor (B, H, T, D) as the kernels see it: its first value, and how many values apart the next of an axis are."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_long),
        ("head", ctypes.c_long),
        ("token", ctypes.c_long),
    )


def call(name: str, choice: bool, *arguments: Tensor | View | int | None) -> None:
    """Runs a kernel: tensors as their addresses, sizes as C's long, and last what it chooses by."""
    kernels = library()
    assert kernels is not None, "whoever calls a kernel has asked for the library before"
    run = getattr(kernels, name)
    run.restype = None
    run(*(_argument(value) for value in arguments), ctypes.c_int(choice))


def _argument(value: Tensor | View | int | None) -> Any:
    if isinstance(value, int):
        return ctypes.c_long(value)
    return ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else value


def view(x_BHTD: Tensor) -> View:
    """Raises ValueError if the values of a token's head do not lie together."""
    if x_BHTD.stride(3) != 1:
        raise ValueError(f"values of a head must lie together, these are {x_BHTD.stride(3)} apart")
    return View(x_BHTD.data_ptr(), *x_BHTD.stride()[:3])


def by_token(like_BHTD: Tensor) -> Tensor:
    """An empty tensor of its shape whose heads of a token lie together, so that (B, T, C) is a view of it."""
    B, H, T, D = like_BHTD.shape
    return like_BHTD.new_empty(B, T, H, D).transpose(1, 2)


class Attention(torch.autograd.Function):
    """Attention over T = S tokens; keeps the logarithms of the sums of e^score for its gradients."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, first_BT: Tensor | None) -> Tensor:
        """(B, H, T, D)."""
        y, logs_BHT = by_token(q), q.new_empty(q.shape[:3], dtype=torch.float32)
        call("kernel_attention", q.dtype == torch.bfloat16, *map(view, (q, k, v, y)), logs_BHT, first_BT, *q.shape)
        ctx.save_for_backward(q, k, v, y, logs_BHT, first_BT)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of q, k and v."""
        q, k, v, y, logs_BHT, first_BT = ctx.saved_tensors
        gradient = gradient if gradient.stride(3) == 1 else gradient.contiguous()
        dq, dk, dv = by_token(q), by_token(k), by_token(v)
        views = map(view, (q, k, v, y, gradient, dq, dk, dv))
        call("kernel_attention_gradients", q.dtype == torch.bfloat16, *views, logs_BHT, first_BT, *q.shape)
        return dq, dk, dv, None


def attention(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, seen_BTT: Tensor | None = None) -> Tensor:
    """Causal attention, (B, H, T, D), D a multiple of WIDTH, all of one dtype.

    With `seen_BTT` (bool), as of `row_mask`, each query sees the keys from the first that it says to its own. Raises ValueError
    for tensors that are not alike.
    """
    kinds = {(x.dtype, x.shape) for x in (q_BHTD, k_BHTD, v_BHTD)}
    if len(kinds) > 1:
        raise ValueError(f"queries, keys and values must be alike, these are {sorted(map(str, kinds))}")
    first_BT = None
    if seen_BTT is not None:
        own_T = torch.arange(1, q_BHTD.shape[2] + 1, dtype=torch.int32)
        first_BT = own_T - seen_BTT.sum(2, dtype=torch.int32)
    return Attention.apply(q_BHTD, k_BHTD, v_BHTD, first_BT)


class GELU(torch.autograd.Function):
    """Tanh GELU; keeps its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape."""
        x = x.contiguous()
        y = torch.empty_like(x)
        call("kernel_gelu", x.dtype == torch.bfloat16, x, y, x.numel())
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient of x."""
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        call("kernel_gelu_gradient", x.dtype == torch.bfloat16, x, gradient.contiguous(), dx, x.numel())
        return dx


def gelu(x: Tensor) -> Tensor:
    """Tanh GELU, any shape."""
    return GELU.apply(x)
