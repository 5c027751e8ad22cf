"""Curves and hand-over: both twins train from the same weights on the same batches, alone and one after the other."""

from dataclasses import dataclass

import numpy as np

from compare import tolerances
from compare.checks import Check, drift, worst
from compare.setup import HALF, STEPS, Setup
from compare.sides import Curve, Side, State, Twins
from gpt_core.checkpoint import Arrays


@dataclass(frozen=True)
class Gap:
    """How far two curves are apart over the steps that both made: loss (nats), gradient norm (relative), weights (drift)."""

    loss: float
    norm: float
    weights: float


@dataclass(frozen=True)
class Curves:
    """Both twins alone, PyTorch from perturbed weights, and each twin taking over from the other after HALF steps."""

    torch: Curve
    mlx: Curve
    perturbed: Curve
    torch_then_mlx: Curve
    mlx_then_torch: Curve
    initial: Arrays

    def noise(self) -> Gap:
        """What rounding makes of a whole curve."""
        return gap(self.perturbed, self.torch, self.initial)

    def checks(self) -> list[Check]:
        """The twins against each other, then each hand-over against the single-twin runs, the worse of the two."""
        noise = self.noise()
        found = curve_checks("curves", gap(self.mlx, self.torch, self.initial), noise)
        for label, curve in (("PyTorch then MLX", self.torch_then_mlx), ("MLX then PyTorch", self.mlx_then_torch)):
            gaps = [gap(curve, single, self.initial) for single in (self.torch, self.mlx)]
            both = Gap(*(float(np.max([getattr(g, field) for g in gaps])) for field in ("loss", "norm", "weights")))
            found += curve_checks(f"handover, {label}", both, noise)
        return found


def train_curves(setup: Setup, twins: Twins) -> Curves:
    """All five curves."""
    torch, mlx = alone(setup, twins.torch), alone(setup, twins.mlx)
    return Curves(
        torch=torch,
        mlx=mlx,
        perturbed=setup.curve(twins.torch, State(0, perturbed(setup.initial), {}), [HALF, STEPS]),
        torch_then_mlx=taken_over(setup, twins.mlx, torch),
        mlx_then_torch=taken_over(setup, twins.torch, mlx),
        initial=setup.initial,
    )


def alone(setup: Setup, side: Side) -> Curve:
    """One twin for all the steps."""
    return setup.curve(side, setup.start(), [HALF, STEPS])


def taken_over(setup: Setup, side: Side, first: Curve) -> Curve:
    """`side` goes on from the middle of another twin's curve."""
    return setup.curve(side, first.states[HALF], [STEPS])


def perturbed(weights: Arrays) -> Arrays:
    """Weights moved by a rounding error's worth, always the same one."""
    generator = np.random.default_rng(0)
    factor = tolerances.PERTURBATION
    return {n: (w * (1 + factor * generator.standard_normal(w.shape))).astype(np.float32) for n, w in weights.items()}


def gap(a: Curve, b: Curve, initial: Arrays) -> Gap:
    """Over the steps that both made and at the last state that both kept."""
    last = max(a.states.keys() & b.states.keys())
    (losses_a, norms_a), (losses_b, norms_b) = _until(a, last), _until(b, last)
    count = min(len(losses_a), len(losses_b))
    return Gap(
        loss=float(np.abs(losses_a[-count:] - losses_b[-count:]).max()),
        norm=float(np.abs(norms_a[-count:] / norms_b[-count:] - 1).max()),
        weights=worst(drift(a.states[last].weights, b.states[last].weights, initial)),
    )


def curve_checks(section: str, found: Gap, noise: Gap) -> list[Check]:
    """The three checks of a pair of curves."""
    return [
        Check(section, "loss", found.loss, tolerances.CURVE_LOSS, noise.loss),
        Check(section, "gradient norm", found.norm, tolerances.CURVE_NORM, noise.norm),
        Check(section, "final weights", found.weights, tolerances.CURVE_WEIGHTS, noise.weights),
    ]


def _until(curve: Curve, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses and norms up to `step`, which the curve may have gone beyond."""
    beyond = max(curve.states) - step
    count = len(curve.losses) - beyond
    return curve.losses[:count], curve.norms[:count]
