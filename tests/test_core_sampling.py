"""Choosing the next token: distributions by hand, and frequencies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.errors import InputError
from gpt_core.sampling import Sampling, choose, probabilities

# Probabilities 0.5, 0.25, 0.15, 0.1 in a scattered order, as logits with an offset that must not matter.
P = np.array([0.15, 0.5, 0.1, 0.25])
LOGITS = (np.log(P) + 3.0).astype(np.float32)
CLOSE = 1e-6  # absolute: the float32 rounding of logits up to 3, 1.2e-7, times a few


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.15, 0.5, 0.1, 0.25]),
        (Sampling(0.0), [0, 1, 0, 0]),
        (Sampling(0.0, top_k=3, top_p=0.9), [0, 1, 0, 0]),
        (Sampling(0.5), [0.0225 / 0.345, 0.25 / 0.345, 0.01 / 0.345, 0.0625 / 0.345]),  # squares over their sum
        (Sampling(top_k=1), [0, 1, 0, 0]),
        (Sampling(top_k=2), [0, 2 / 3, 0, 1 / 3]),
        (Sampling(top_k=4), P),
        (Sampling(top_k=99), P),
        (Sampling(top_p=1.0), P),
        (Sampling(top_p=0.01), [0, 1, 0, 0]),
        (Sampling(top_p=0.49), [0, 1, 0, 0]),
        (Sampling(top_p=0.51), [0, 2 / 3, 0, 1 / 3]),
        (Sampling(top_p=0.76), [0.15 / 0.9, 0.5 / 0.9, 0, 0.25 / 0.9]),
        (Sampling(top_p=0.91), P),
        (Sampling(top_k=3, top_p=0.6), [0, 2 / 3, 0, 1 / 3]),  # of the three, 0.5 / 0.9 = 0.56 is not yet 0.6
        (Sampling(top_k=3, top_p=0.55), [0, 1, 0, 0]),  # but it is 0.55: top-p counts what top-k left
        (Sampling(0.5, top_p=0.75), [0, 0.8, 0, 0.2]),  # 0.7246 is not yet 0.75; after the temperature
        (Sampling(0.5, top_p=0.72), [0, 1, 0, 0]),
    ],
)
def test_distributions_by_hand(sampling, expected):
    np.testing.assert_allclose(probabilities(LOGITS, sampling), expected, atol=CLOSE)


def test_a_hot_distribution_is_uniform():
    np.testing.assert_allclose(probabilities(LOGITS, Sampling(1e6)), [0.25] * 4, atol=CLOSE)


def test_top_k_of_equal_logits_keeps_the_first():
    np.testing.assert_array_equal(probabilities(np.zeros(5, dtype=np.float32), Sampling(top_k=2)), [0.5, 0.5, 0, 0, 0])
    assert probabilities(np.zeros(5, dtype=np.float32), Sampling(0.0)).tolist() == [1, 0, 0, 0, 0]


LOGIT_LISTS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12)


@given(LOGIT_LISTS, st.floats(0.05, 5), st.none() | st.integers(1, 14), st.none() | st.floats(0.01, 1))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(logits, temperature, top_k, top_p):
    scores = np.array(logits, dtype=np.float32)
    found = probabilities(scores, Sampling(temperature, top_k, top_p))
    kept = np.flatnonzero(found)
    assert abs(found.sum() - 1) < 1e-12 and found[int(scores.argmax())] > 0
    assert len(kept) <= (top_k or len(scores))
    if len(kept) < len(scores):  # what is left out is never likelier than what stays
        assert scores[kept].min() >= np.delete(scores, kept).max() or found[kept].min() < 1e-300
    full = probabilities(scores, Sampling(temperature, top_k))
    if top_p is not None and len(kept) > 1:
        assert full[kept].sum() - full[kept].min() < top_p + 1e-12  # without its last token it falls short
    if top_p is not None:
        assert full[kept].sum() >= top_p - 1e-12
    np.testing.assert_allclose(found[kept], full[kept] / full[kept].sum(), rtol=1e-9)


def sorted_whole(scores, sampling):
    """The same distribution by sorting all tokens, as section 3.1 of Holtzman et al. 2020 tells it."""
    weights = np.exp((scores.astype(np.float64) - scores.max()) / sampling.temperature)
    weights /= weights.sum()
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    left, mass = [], 0.0
    for token in order[: sampling.top_k]:
        if sampling.top_p is not None and mass >= sampling.top_p * weights[order[: sampling.top_k]].sum():
            break
        left.append(token)
        mass += weights[token]
    found = np.zeros_like(weights)
    found[left] = weights[left]
    return found / found.sum()


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=300), st.none() | st.integers(1, 310), st.none() | st.floats(0.01, 0.99)
)
def test_what_is_not_sorted_changes_nothing(steps, top_k, top_p):
    """Logits with many equals, against all of them sorted."""
    scores = (np.array(steps) * math.log(2)).astype(np.float32)
    sampling = Sampling(1.0, top_k, top_p)
    found, expected = probabilities(scores, sampling), sorted_whole(scores, sampling)
    if np.count_nonzero(found) != np.count_nonzero(expected):  # a mass that meets top_p exactly may fall on either side
        assert abs(np.count_nonzero(found) - np.count_nonzero(expected)) == 1
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@given(LOGIT_LISTS, st.integers(0, 2**32))
def test_temperature_zero_is_argmax_whatever_the_seed(logits, seed):
    scores = np.array(logits, dtype=np.float32)
    assert choose(scores, Sampling(0.0), np.random.default_rng(seed)) == int(scores.argmax())


def sample(seed: int, count: int, sampling: Sampling) -> list[int]:
    generator = np.random.default_rng(seed)
    return [choose(LOGITS, sampling, generator) for _ in range(count)]


def test_the_seed_decides():
    assert sample(1, 50, Sampling()) == sample(1, 50, Sampling()) != sample(2, 50, Sampling())


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic."""
    return float(((counts - expected) ** 2 / expected).sum())


def test_frequencies_follow_the_probabilities():
    """4,000 draws, 3 degrees of freedom: above 16.3 with probability 0.001; the seed is fixed."""
    counts = np.bincount(sample(11, 4000, Sampling()), minlength=4)
    assert chi_square(counts, 4000 * P) < 16.3
    assert chi_square(counts, 4000 * np.roll(P, 1)) > 16.3  # negative control
    assert chi_square(np.bincount(sample(11, 4000, Sampling(0.9)), minlength=4), 4000 * P) > 16.3  # a small error is seen


def test_a_token_takes_one_uniform_number():
    """The twins stay in step only if each token uses the same share of the random stream."""
    generator, counting = np.random.default_rng(5), np.random.default_rng(5)
    for sampling in (Sampling(), Sampling(0.5), Sampling(top_k=2), Sampling(top_p=0.3)):
        choose(LOGITS, sampling, generator)
        counting.random()
    choose(LOGITS, Sampling(0.0), generator)  # the likeliest is no matter of chance
    assert generator.random() == counting.random()


class Fixed:
    """A generator whose next number is known."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize(("u", "token"), [(0.0, 0), (0.1499, 0), (0.1501, 1), (0.6499, 1), (0.6501, 2), (0.7499, 2),
                                          (0.7501, 3), (math.nextafter(1, 0), 3)])  # fmt: skip
def test_inverse_transform_by_hand(u, token):
    """Tokens 0, 1, 2, 3 own [0, 0.15), [0.15, 0.65), [0.65, 0.75), [0.75, 1)."""
    assert choose(LOGITS, Sampling(), Fixed(u)) == token  # type: ignore[arg-type]


@pytest.mark.parametrize("u", [0.0, 0.3, math.nextafter(1, 0)])
def test_a_token_without_probability_is_never_chosen(u):
    assert choose(LOGITS, Sampling(top_k=1), Fixed(u)) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"temperature": -0.1}, "--temperature -0.1"),
        ({"temperature": math.nan}, "--temperature nan"),
        ({"temperature": math.inf}, "--temperature inf"),
        ({"top_k": 0}, "--top-k 0"),
        ({"top_k": -4}, "--top-k -4"),
        ({"top_p": 0.0}, "--top-p 0.0"),
        ({"top_p": 1.1}, "--top-p 1.1"),
        ({"top_p": math.nan}, "--top-p nan"),
    ],
)
def test_settings_out_of_range_name_their_flag(settings, flag):
    with pytest.raises(InputError, match=flag):
        Sampling(**settings)


def test_a_tiny_temperature_is_greedy():
    assert probabilities(LOGITS, Sampling(1e-310)).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.0), Sampling(top_k=1), Sampling(top_p=0.5)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_choose_no_token(value, sampling):
    """One of them is enough, wherever it is."""
    for position in range(4):
        logits = LOGITS.copy()
        logits[position] = value
        with pytest.raises(InputError, match=r"^the model gives logits that are not finite: .*--checkpoint$"):
            choose(logits, sampling, np.random.default_rng(0))
