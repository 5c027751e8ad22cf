"""How far a ratio over rows would move with other rows: the percentile bootstrap (Efron 1979)."""

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95


def ratio_interval(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of sum(numerators) / sum(denominators), both (rows,), over rows drawn with replacement.

    For two models on the same rows, numerators are the differences of each row: a paired interval, in which what makes a
    row hard for both cancels. The draw is the same every time.
    """
    generator = np.random.default_rng(0)
    rows = len(numerators)
    ratios = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = generator.integers(rows, size=rows)
        ratios[index] = numerators[drawn].sum() / denominators[drawn].sum()
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
