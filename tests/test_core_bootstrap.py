"""The bootstrap interval: against theory, against scipy, and against cases that have only one answer."""

import numpy as np
import pytest

from gpt_core.bootstrap import ratio_interval


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Nats and bytes of rows of unequal length and difficulty; 1.5 bits a byte in the long run."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(5, 200, count)
    return sizes * draw.uniform(0.5, 2.5, count), sizes


def test_the_width_is_that_of_the_delta_method():
    """1.96 standard errors either way, where se = s.d.(nats - ratio bytes) / (sqrt(n) mean bytes) (Cochran 1977, 6.3)."""
    nats, sizes = rows(2000, 0)
    low, high = ratio_interval(nats, sizes)
    ratio = nats.sum() / sizes.sum()
    error = (nats - ratio * sizes).std() / np.sqrt(2000) / sizes.mean()
    assert low < ratio < high
    # 1,000 draws leave the ends of the interval uncertain by 5 % of its half width; measured 0.96 to 1.03, five seeds
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_it_holds_the_true_ratio_about_as_often_as_it_says():
    """95 % of 200 samples of 100 rows: 190 expected, s.d. 3; measured 192. Half as wide, 136 times."""
    intervals = [ratio_interval(*rows(100, seed)) for seed in range(200)]
    held = sum(low < 1.5 < high for low, high in intervals)
    assert 178 <= held <= 199
    halved = sum(abs(low + high - 3) < (high - low) / 2 for low, high in intervals)
    assert halved < 160


def test_it_is_the_same_every_time_and_that_of_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    nats, sizes = rows(300, 1)
    found = ratio_interval(nats, sizes)
    assert found == ratio_interval(nats, sizes)
    other = scipy_stats.bootstrap(
        (nats, sizes), lambda x, y, axis: x.sum(axis) / y.sum(axis), paired=True, n_resamples=4000, method="percentile", rng=3
    ).confidence_interval
    # two independent draws: ends apart by some 5 % of the width; measured 4 %
    assert np.abs(np.subtract(found, other)).max() < 0.1 * (found[1] - found[0])


def test_rows_that_are_all_alike_leave_nothing_open():
    assert ratio_interval(np.full(50, 3.0), np.full(50, 2)) == (1.5, 1.5)
    assert ratio_interval(np.array([6.0]), np.array([4])) == (1.5, 1.5)
