"""A check: a measured difference and its limit."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from compare.tolerances import NOISE
from gpt_core.checkpoint import Arrays


@dataclass(frozen=True)
class Check:
    """One comparison. `noise` is what rounding alone makes of the same quantity, where that was measured."""

    section: str
    quantity: str
    value: float
    base_limit: float
    noise: float | None = None

    @property
    def limit(self) -> float:
        """The tolerance, raised where the noise of this very run asks for it."""
        return self.base_limit if self.noise is None else max(self.base_limit, NOISE * self.noise)

    @property
    def passed(self) -> bool:
        """Whether the value is a number within the limit."""
        return bool(self.value <= self.limit)

    @property
    def margin(self) -> float:
        """How many times the value fits into the limit; below 1 is a failure."""
        if not math.isfinite(self.value):
            return 0.0
        return self.limit / self.value if self.value > 0 else math.inf

    def as_json(self) -> dict[str, Any]:
        """The check as a JSON object; what is not finite becomes null."""
        numbers = {"value": self.value, "limit": self.limit, "noise": self.noise, "margin": self.margin}
        finite = {key: value if value is not None and math.isfinite(value) else None for key, value in numbers.items()}
        return {"section": self.section, "quantity": self.quantity, "passed": self.passed} | finite


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |a - b| over the largest |b|: 0 for equal arrays, infinite where only b is zero, NaN where either is."""
    gap, size = np.abs(a.astype(np.float64) - b).max(), np.abs(b).max()
    return 0.0 if gap == 0 else math.inf if size == 0 else float(gap / size)


def tensor_differences(a: Arrays, b: Arrays) -> dict[str, float]:
    """`difference` of every tensor, less what has no meaning."""
    return {name: difference(meaningful(name, a[name]), meaningful(name, b[name])) for name in b}


def drift(a: Arrays, b: Arrays, start: Arrays) -> dict[str, float]:
    """|a - b| over |b - start| of every tensor (root mean squares): how far apart two runs are on the way they went."""
    gaps = {}
    for name in start:
        end = meaningful(name, b[name]).astype(np.float64)
        moved = np.linalg.norm(end - meaningful(name, start[name]))
        gap = np.linalg.norm(end - meaningful(name, a[name]))
        gaps[name] = 0.0 if gap == 0 else math.inf if moved == 0 else float(gap / moved)
    return gaps


def meaningful(name: str, values: np.ndarray) -> np.ndarray:
    """A tensor without the key part of attn.c_attn.bias.

    A constant added to every key changes no softmax, so the true gradient there is zero: what is computed is rounding
    noise, which Adam turns into steps of full length.
    """
    if not name.endswith("attn.c_attn.bias"):
        return values
    width = len(values) // 3
    return np.delete(values, np.s_[width : 2 * width])


def worst(values: dict[str, float]) -> float:
    """The largest value, NaN if there is one."""
    return float(np.max(list(values.values())))
