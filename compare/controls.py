"""Negative controls: known mistakes, each made on purpose in the MLX twin to see which check finds it.

MLX is imported where a mistake is made, so that the table can be listed without it.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from compare import curves, forward
from compare.checks import Check
from compare.curves import Curves
from compare.setup import HALF, Setup
from compare.sides import Twins
from gpt_core.checkpoint import Arrays

Patch = AbstractContextManager[None]


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Puts `value` in the place of `owner.name` for the length of a with block."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def eager() -> Patch:
    """Training steps without mx.compile, whose CPU kernels take longer to build for a mistake than the mistake is tried."""
    import mlx.core as mx

    return replaced(mx, "compile", lambda function, **_options: function)


@contextlib.contextmanager
def exact_gelu() -> Iterator[None]:
    """x Phi(x) in place of its tanh form, or of the SiLU."""
    import mlx.nn as nn

    from mlx_gpt import functional

    with replaced(functional, "gelu", nn.gelu), replaced(functional, "silu", nn.gelu):
        yield


def transposed_squares() -> Patch:
    """A wrong layout that no shape check notices."""
    from mlx_gpt import state

    load = state.load_weights

    def load_transposed(model: Any, weights: Arrays) -> None:
        square = {n: np.ascontiguousarray(w.T) for n, w in weights.items() if n.endswith("attn.c_proj.weight")}
        load(model, weights | square)

    return replaced(state, "load_weights", load_transposed)


def no_mask() -> Patch:
    """Attention to every token, later ones too."""
    import mlx.core as mx

    from mlx_gpt import model

    def attention(q: mx.array, k: mx.array, v: mx.array, _seen: mx.array | None = None) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[3] ** -0.5)

    return replaced(model, "attention", attention)


@contextlib.contextmanager
def norm_epsilon() -> Iterator[None]:
    """A tenth of the epsilon of LayerNorm or RMSNorm."""
    import mlx.nn as nn

    layer_norm, rms_norm = nn.LayerNorm, nn.RMSNorm
    with (
        replaced(nn, "LayerNorm", lambda width, eps: layer_norm(width, eps=eps / 10)),
        replaced(nn, "RMSNorm", lambda width, eps: rms_norm(width, eps=eps / 10)),
    ):
        yield


def decay_for_all() -> Patch:
    """One parameter group, as an optimizer without a filter has it."""
    from mlx_gpt import optim

    grouped = optim.MultiOptimizer
    every = [lambda _name, _parameter: True]
    return replaced(optim, "MultiOptimizer", lambda groups, filters: grouped(groups, [*filters[:-1], *every]))


def adamw_with(**changed: Any) -> Patch:
    """AdamW with other options."""
    from mlx_gpt import optim

    adamw = optim.AdamW
    return replaced(optim, "AdamW", lambda **options: adamw(**(options | changed)))


def moments_lost() -> Patch:
    """A hand-over of weights alone."""
    from mlx_gpt import state

    return replaced(state, "load_moments", lambda _optimizer, _moments, _step: None)


@dataclass(frozen=True)
class Control:
    """A mistake: what is done wrong, the checks that are meant to find it, and the patch that makes it."""

    mistake: str
    meant_for: str
    patch: Callable[[], Patch]

    def is_meant(self, check: Check) -> bool:
        """Whether this check is one of those."""
        return check.section.startswith(self.meant_for)


FORWARD_INITIAL, FORWARD_SCALED = f"forward, {forward.INITIAL}", f"forward, {forward.SCALED}"

CONTROLS = {
    "gelu": Control("exact GELU in place of its tanh form, or of SiLU", FORWARD_SCALED, exact_gelu),
    "transpose": Control("square matrices loaded transposed", FORWARD_INITIAL, transposed_squares),
    "mask": Control("attention sees later tokens", FORWARD_INITIAL, no_mask),
    "epsilon": Control("a tenth of the norms' epsilon", FORWARD_INITIAL, norm_epsilon),
    "decay": Control("weight decay on biases and norms too", "curves", decay_for_all),
    "bias-correction": Control(
        "AdamW without bias correction, MLX's default", "curves", lambda: adamw_with(bias_correction=False)
    ),
    "adam-epsilon": Control("AdamW's epsilon is 1e-6, not 1e-8", "curves", lambda: adamw_with(eps=1e-6)),
    "moments": Control("AdamW's moments are lost at the hand-over", "handover", moments_lost),
}


def meant_checks(control: Control, setup: Setup, twins: Twins, proof: Curves) -> list[Check]:
    """Only the checks that are meant to find a mistake, with the mistake made; curves end after HALF steps."""
    with eager(), control.patch():
        if control.meant_for == FORWARD_INITIAL:
            return forward.compare_forward(twins, forward.INITIAL, setup.config, setup.initial, setup.tokens()).checks
        if control.meant_for == FORWARD_SCALED:
            return forward.compare_scaled(twins, setup.config, setup.initial, setup.tokens()).checks
        if control.meant_for == "curves":
            broken = setup.curve(twins.mlx, setup.start(), [HALF])
        else:
            broken = curves.taken_over(setup, twins.mlx, proof.torch)
    return curves.curve_checks(control.meant_for, curves.gap(broken, proof.torch, setup.initial), proof.noise())
