"""Choosing the next token from one row of logits, in numpy: the same seed gives the same text in both twins."""

from dataclasses import dataclass

import numpy as np

from gpt_core.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How to choose: temperature 0 takes the likeliest token; top_k (tokens) and top_p (probability mass) cut the tail."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"--temperature {self.temperature} is out of range: give 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"--top-k {self.top_k} is below 1: give the number of tokens to choose from")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"--top-p {self.top_p} is out of range: give more than 0 and at most 1")


def probabilities(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Distribution of the next token, (V,) float64, from logits (V,). Nucleus as in Holtzman et al. 2020, section 3.1."""
    scores = logits.astype(np.float64)
    if not np.isfinite(scores).all():
        raise InputError("the model gives logits that are not finite: use another --checkpoint")
    if sampling.temperature == 0:
        return np.eye(1, len(scores), int(scores.argmax()))[0]
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the likeliest to minus infinity, as it should
        weights = np.exp((scores - scores.max()) / sampling.temperature)
    if sampling.top_k is None and sampling.top_p is None:
        return weights / weights.sum()  # without ranks, which cost more than all the rest
    ranked = np.argsort(-scores, kind="stable")
    if sampling.top_k is not None:
        weights[ranked[sampling.top_k :]] = 0.0
    weights /= weights.sum()
    if sampling.top_p is not None:
        before = np.cumsum(weights[ranked]) - weights[ranked]  # mass ahead of each token: the likeliest always stays
        weights[ranked[before >= sampling.top_p]] = 0.0
        weights /= weights.sum()
    return weights


def choose(logits: np.ndarray, sampling: Sampling, generator: np.random.Generator) -> int:
    """One token id by inverse transform: one uniform draw a token, so that twins use the same randomness."""
    cumulative = np.cumsum(probabilities(logits, sampling))
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
