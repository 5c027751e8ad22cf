"""Kneser-Ney: values by hand, a sum of 1, and a second implementation straight from the definition."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import kneser_ney
from data_prep.kneser_ney import FALLBACK_DISCOUNTS, discounts, train


def stream(rows: list[list[int]]) -> np.ndarray:
    """Rows as shards have them: 0, then the tokens."""
    return np.array([token for row in rows for token in (0, *row)], dtype=np.uint16)


class ByDefinition:
    """The same model as dictionaries and recursion, with nothing of the other but `discounts`."""

    def __init__(self, rows: list[list[int]], V: int, order: int):
        self.V, self.order = V, order
        grams: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        for row in rows:
            line = [-1, *row, 0]  # -1: the beginning
            for end in range(1, len(line)):
                for length in range(1, min(order, end + 1) + 1):
                    grams[length][tuple(line[end - length + 1 : end + 1])] += 1
        self.counts: list[dict[tuple[int, ...], int]] = [{} for _ in range(order + 1)]
        for length in range(1, order + 1):
            for gram, count in grams[length].items():
                if length < order and gram[0] != -1:
                    count = sum(longer[1:] == gram for longer in grams[length + 1])
                self.counts[length][gram] = count
        self.off = [np.zeros(4)] + [discounts(np.array(list(part.values()), dtype=np.int64)) for part in self.counts[1:]]
        self.followers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for part in self.counts[1:]:
            for gram, count in part.items():
                self.followers[gram[:-1]].append(count)

    def p(self, history: tuple[int, ...], word: int) -> float:
        """p(word | history), from the longest context that fits down to the uniform distribution."""
        history = history[len(history) - min(len(history), self.order - 1) :]
        length = len(history) + 1
        lower = self.p(history[1:], word) if history else 1 / self.V
        counts = self.followers.get(history)
        if not counts:
            return lower
        off, total = self.off[length], sum(counts)
        count = self.counts[length].get((*history, word), 0)
        return (count - off[min(count, 3)]) / total + sum(off[min(c, 3)] for c in counts) / total * lower

    def nats(self, row: list[int]) -> float:
        """-ln p of a row and its end."""
        line = [-1, *row, 0]
        return -sum(math.log(self.p(tuple(line[:end]), line[end])) for end in range(1, len(line)))


ROWS = st.lists(st.lists(st.integers(1, 5), max_size=8), min_size=1, max_size=12)


@given(ROWS, ROWS, st.integers(1, 5))
@settings(max_examples=60)
def test_it_is_the_definition(training, scored, order):
    expected = ByDefinition(training, 7, order)
    found = train(stream(training), 7, order).row_nats(stream(scored))
    np.testing.assert_allclose(found, [expected.nats(row) for row in scored], rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_definition_where_discounts_are_estimated(order):
    """300 rows of Zipf's law: enough for every count of counts, so that the fallback is not used."""
    draw = np.random.default_rng(0)
    rows = [(np.minimum(draw.zipf(1.4, draw.integers(1, 9)), 30)).tolist() for _ in range(330)]
    expected = ByDefinition(rows[:300], 32, order)
    assert all((off != FALLBACK_DISCOUNTS).any() for off in expected.off[2:])
    found = train(stream(rows[:300]), 32, order).row_nats(stream(rows[300:]))
    np.testing.assert_allclose(found, [expected.nats(row) for row in rows[300:]], rtol=1e-12)


@given(ROWS, st.lists(st.integers(1, 6), max_size=6), st.integers(1, 5))
def test_probabilities_sum_to_one(training, history, order):
    """Over the whole vocabulary, after any history: also one that training never had, as those with token 6."""
    model = train(stream(training), 7, order)
    rows = [history, *([*history, word] for word in range(1, 7))]
    nats = [model.token_nats(stream([row]))[len(history)] for row in rows]  # of the end, and of each word
    assert np.exp(-np.array(nats)).sum() == pytest.approx(1, rel=1e-12)


def test_single_tokens_by_hand():
    """Counts of "a" 3, "b" 1 and ends 2, too few to estimate discounts: 1.5, 0.5 and 1 are taken off 6, and 3 / 6 goes to
    the uniform distribution over 4 tokens: p(a) = 1.5 / 6 + 1 / 8, p(b) = 0.5 / 6 + 1 / 8, p(end) = 1 / 6 + 1 / 8."""
    model = train(stream([[1, 1], [1, 2]]), 4, 1)
    a, b, end, new = 3 / 8, 5 / 24, 7 / 24, 1 / 8
    assert a + b + end + new == 1
    np.testing.assert_allclose(np.exp(-model.token_nats(stream([[1, 2, 3]]))), [a, b, new, end], rtol=1e-12)


def test_pairs_by_hand():
    """Rows ab, ab, cb. "b" stands after two different tokens, "a", "c" and the end after one: counts of 2, 1, 1, 1, of which
    1 and three times 0.5 are taken. Rows begin with "a" twice and with "c" once: 1 and 0.5 are taken of 3. "a" is followed
    by "b" twice: 1 is taken of 2. "c" is followed by "b" once: 0.5 is taken of 1."""
    a, b, c, never = 1, 2, 3, 4
    model = train(stream([[a, b], [a, b], [c, b]]), 5, 2)
    uniform = 2.5 / 5 / 5
    one = {a: 0.5 / 5 + uniform, b: 1 / 5 + uniform, c: 0.5 / 5 + uniform, 0: 0.5 / 5 + uniform, never: uniform}
    assert sum(one.values()) == pytest.approx(1)
    # a at the beginning, b after a, the end after b: 3 of 3, of which 1.5 are taken
    expected = [1 / 3 + 1.5 / 3 * one[a], 1 / 2 + 1 / 2 * one[b], 1.5 / 3 + 1.5 / 3 * one[0]]
    np.testing.assert_allclose(np.exp(-model.token_nats(stream([[a, b]]))), expected, rtol=1e-12)
    # a token that never was, c after it as after anything, the end after c
    expected = [1.5 / 3 * one[never], one[c], 0.5 * one[0]]
    np.testing.assert_allclose(np.exp(-model.token_nats(stream([[never, c]]))), expected, rtol=1e-12)


def test_discounts_by_hand():
    """Ten counts of 1, five of 2, four of 3, three of 4: Y = 1/2, so 1 - 1/2, 2 - 6/5 and 3 - 3/2."""
    counts = np.repeat([1, 2, 3, 4, 9], [10, 5, 4, 3, 2])
    np.testing.assert_allclose(discounts(counts), [0, 0.5, 0.8, 1.5])
    assert (discounts(np.array([1, 1, 2])) == FALLBACK_DISCOUNTS).all()


def test_a_mistake_would_be_seen(monkeypatch):
    """Negative control of the comparison: raw counts instead of numbers of left neighbours."""
    training = [[1, 2], [1, 2], [3, 2], [2, 4]]
    expected = [ByDefinition(training, 7, 3).nats(row) for row in training]

    def occurrences(grams: np.ndarray, longer: np.ndarray, _: int, count: int) -> np.ndarray:
        return np.bincount(grams[longer >= 0], minlength=count)

    monkeypatch.setattr(kneser_ney, "_left_neighbours", occurrences)
    found = train(stream(training), 7, 3).row_nats(stream(training))
    assert np.abs(found - expected).max() > 0.05


def test_rows_do_not_see_each_other():
    """The order of the rows does not matter, in training nor in scoring; an empty row is its end."""
    rows = [[1, 2, 3], [3, 3], [], [4, 1, 2, 5]]
    model, other = train(stream(rows), 7, 5), train(stream(rows[::-1]), 7, 5)
    np.testing.assert_allclose(model.row_nats(stream(rows)), other.row_nats(stream(rows[::-1]))[::-1], rtol=1e-14)
    assert len(model.token_nats(stream(rows))) == len(stream(rows))
