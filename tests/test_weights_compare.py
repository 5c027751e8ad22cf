"""The difference of two models, as a pure function of their answers."""

import numpy as np
import pytest

from weights.compare import TOLERANCE, Answer, difference


def test_texts_may_part_only_at_a_tie():
    def answer(added, margin):
        logits = np.zeros((4, 5), dtype=np.float32)
        logits[2, 3:] = margin, 0.0
        return Answer([0, 1, 2], added, logits[: 3 + len(added)])

    near = difference([answer([3], 1e-4)], [answer([4], 1e-4)])
    assert near.passes(TOLERANCE) and near.same_texts == 0 and near.widest_tie == pytest.approx(1e-4, rel=1e-3)
    assert not difference([answer([3], 1e-2)], [answer([4], 1e-2)]).passes(TOLERANCE)
    assert not difference([answer([3], 1e-2)], [answer([], 1e-2)]).passes(TOLERANCE)
    other = difference([answer([3], 0.0)], [Answer([0, 9], [], np.zeros((2, 5), np.float32))])
    assert not other.same_tokens and not other.passes(TOLERANCE)
