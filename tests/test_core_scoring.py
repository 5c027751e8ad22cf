"""The metric: every target once, every row alone, and the numbers of cases that can be done by hand."""

import math
from collections import Counter

import numpy as np
import pytest
from helpers import stream_of
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.rows import read_row, row_starts
from gpt_core.scoring import (
    Score,
    TokenNats,
    Windows,
    row_windows,
    score,
    score_rows,
    stream_windows,
    sum_rows,
)
from gpt_core.tokens import TokenTable


def table(**columns: list[int]) -> TokenTable:
    """A table from its columns; `bytes` is given, the others are zeros unless given."""
    zeros = [0] * len(columns["bytes"])
    names = ("bytes", "characters", "arabic_letters", "latin_letters")
    return TokenTable(*(np.array(columns.get(name, zeros), dtype=np.int64) for name in names))


def numbered_rows(lengths: list[int]) -> list[np.ndarray]:
    """Rows <|endoftext|>, n tokens, <|endoftext|>; token 100 r + i + 1 is token i of row r."""
    return [np.array([0, *(100 * (row + 1) + i + 1 for i in range(n)), 0], dtype=np.int32) for row, n in enumerate(lengths)]


def uniform(V: int) -> TokenNats:
    """A model to which each of V tokens is as likely: ln V nats a token."""
    return lambda inputs, targets: np.full(targets.shape, math.log(V), dtype=np.float32)


def test_uniform_model_in_bits_per_byte_by_hand():
    """Rows of 3, 1 and 0 tokens: 7 targets of log2 16 = 4 bits; 3 + 5 + 2, 5, and 3 ends are 18 bytes."""
    rows = [np.array(row, dtype=np.int32) for row in ([0, 1, 2, 3, 0], [0, 2, 0], [0, 0])]
    tokens = table(bytes=[1, 3, 5, 2], characters=[1, 2, 3, 1])
    nats = score_rows(rows, 8, 64, uniform(16))
    # ln 16 is stored as float32: relative error up to 6e-8
    np.testing.assert_allclose(nats, [4 * math.log(16), 2 * math.log(16), math.log(16)], rtol=1e-7)
    whole = sum_rows(rows, nats, tokens)
    assert (whole.tokens, whole.bytes, whole.characters, whole.rows) == (7, 18, 12, 3)
    assert whole.bits_per_byte == pytest.approx(28 / 18, rel=1e-7)
    assert whole.bits_per_character == pytest.approx(28 / 12, rel=1e-7)
    assert whole.loss == pytest.approx(math.log(16), rel=1e-7)


def test_known_probabilities_of_one_row():
    """p = 1/2, 1/4, 1/32 for tokens of 2 and 3 bytes and the end: 8 bits over 6 bytes."""
    probability = {1: 1 / 2, 2: 1 / 4, 0: 1 / 32}
    row = np.array([0, 1, 2, 0], dtype=np.int32)

    def nats(inputs, targets):
        return np.array([[-math.log(probability[int(t)]) for t in line] for line in targets], dtype=np.float32)

    found = score_rows([row], 8, 8, nats)
    assert sum_rows([row], found, table(bytes=[1, 2, 3])).bits_per_byte == pytest.approx(8 / 6, rel=1e-7)  # float32 nats


def scored(batches: list[Windows]) -> Counter[tuple[int, int]]:
    """(row, target) -> how often it is scored."""
    return Counter(
        (int(owner), int(target))
        for batch in batches
        for owner, target in zip(batch.owner.flat, batch.targets.flat, strict=True)
        if owner >= 0
    )


LENGTHS = st.lists(st.integers(0, 90), min_size=1, max_size=8)


@given(LENGTHS, st.integers(1, 40), st.integers(1, 200))
def test_each_target_of_each_row_is_scored_exactly_once(lengths, block_size, tokens_per_batch):
    rows = numbered_rows(lengths)
    batches = list(row_windows(iter(rows), block_size, tokens_per_batch))
    expected = Counter((row, int(target)) for row, tokens in enumerate(rows) for target in tokens[1:])
    assert scored(batches) == expected
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape == batch.owner.shape
        assert batch.inputs.shape[1] <= block_size and (batch.inputs.size <= tokens_per_batch or len(batch.inputs) == 1)


@given(LENGTHS, st.integers(1, 40), st.integers(1, 200))
def test_rows_are_scored_alone_and_with_at_least_half_a_context(lengths, block_size, tokens_per_batch):
    """What a model sees of a line is a piece of one row, then zeros; a scored target has all or half a context before it."""
    rows = numbered_rows(lengths)
    lines = 0
    for batch in row_windows(iter(rows), block_size, tokens_per_batch):
        for inputs, targets, owner in zip(batch.inputs, batch.targets, batch.owner, strict=True):
            positions = np.flatnonzero(owner >= 0)
            if not len(positions):
                assert not inputs.any() and not targets.any()
                continue
            lines += 1
            (index,) = set(owner[positions].tolist())
            row = rows[index].tolist()
            size = int(positions[-1]) + 1
            piece = [*inputs[:size].tolist(), int(targets[size - 1])]
            assert inputs[1:size].tolist() == targets[: size - 1].tolist() and not inputs[size:].any()
            start = next(s for s in range(len(row)) if row[s : s + len(piece)] == piece)
            assert positions.tolist() == list(range(positions[0], size))
            assert (start == 0 and positions[0] == 0) or positions[0] + 1 >= block_size / 2
            assert start == 0 or len(piece) <= block_size + 1
    assert lines >= len(rows)


def test_the_check_for_foreign_tokens_can_fail():
    """Negative control: of two rows packed into one line, the model would see both."""
    seen: list[set[int]] = []

    def record(inputs, targets):
        seen.extend({int(token) // 100 for token in line if token} for line in inputs)
        return np.zeros(targets.shape, dtype=np.float32)

    rows = numbered_rows([30, 5, 17])
    score_rows(rows, 8, 24, record)
    assert all(len(line) <= 1 for line in seen) and set().union(*seen) == {1, 2, 3}
    score(stream_windows(stream_of(*[row[:-1].tolist() for row in rows]), 16, 2), record, table(bytes=[1] * 400))
    assert any(len(line) > 1 for line in seen)


def test_windows_of_a_long_row_by_hand():
    """Context 6, ten tokens and the end: targets 1 to 6, then 7 to 9 and 10 to 11 with three tokens seen again."""
    batches = list(row_windows(iter([np.arange(12, dtype=np.int32)]), 6, 6))
    assert [batch.inputs.tolist() for batch in batches] == [[[0, 1, 2, 3, 4, 5]], [[3, 4, 5, 6, 7, 8]], [[6, 7, 8, 9, 10, 0]]]
    assert [batch.targets[batch.owner >= 0].tolist() for batch in batches] == [[1, 2, 3, 4, 5, 6], [7, 8, 9], [10, 11]]


@given(LENGTHS, st.integers(1, 40), st.integers(1, 200))
def test_nats_return_to_their_row(lengths, block_size, tokens_per_batch):
    """A model whose nats are the target's number: the sum of a row is known, whatever the batches were."""
    rows = numbered_rows(lengths)
    found = score_rows(rows, block_size, tokens_per_batch, lambda inputs, targets: targets.astype(np.float32))
    assert found.tolist() == [float(row.sum()) for row in rows]  # whole numbers below 2^24: float32 holds them exactly


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 25), st.integers(1, 4))
def test_stream_windows_score_every_token_but_the_first_once(sizes, block_size, batch_size):
    total = sum(sizes)
    ends = np.cumsum(sizes)
    stream = stream_of(*(range(1000 + end - size, 1000 + end) for size, end in zip(sizes, ends, strict=True)))
    batches = list(stream_windows(stream, block_size, batch_size))
    assert scored(batches) == Counter((0, 1000 + i) for i in range(1, total))
    for batch in batches:
        assert batch.inputs.shape == (batch_size, block_size)
        mask = batch.owner >= 0
        assert (batch.inputs[mask] + 1 == batch.targets[mask]).all()


def test_stream_in_bits_per_byte_by_hand():
    """Five targets of log2 8 = 3 bits, 1 + 2 + 4 + 1 + 2 bytes: the first token is not a target, row ends are."""
    stream = stream_of([0, 0, 1], [2, 0, 1])
    for block_size in (1, 2, 3, 5, 9):
        total = score(stream_windows(stream, block_size, 2), uniform(8), table(bytes=[1, 2, 4], characters=[1, 1, 1]))
        assert (total.tokens, total.bytes) == (5, 10)
        assert total.bits_per_byte == pytest.approx(15 / 10, rel=1e-7)  # float32 nats


def test_sums_do_not_lose_small_terms():
    """100,000 targets of 0.1 nats: a float32 sum one by one is off by 1 %, pairwise or float64 is not."""
    stream = stream_of([0] * 50_000, [0] * 50_001)
    total = score(stream_windows(stream, 500, 4), lambda x, y: np.full(y.shape, 0.1, dtype=np.float32), table(bytes=[1]))
    assert total.nats == pytest.approx(10_000, rel=2e-8)  # float32(0.1) is 1.5e-8 too large


def test_row_starts_and_rows_across_shards():
    stream = stream_of([0, 5], [6, 0, 0], [], [7, 8, 9])
    starts = row_starts(stream)
    assert starts.tolist() == [0, 3, 4]
    assert [read_row(stream, starts, row).tolist() for row in range(3)] == [[0, 5, 6, 0], [0, 0], [0, 7, 8, 9, 0]]


def test_row_starts_across_chunks():
    """Streams are searched in chunks of 2^20 tokens."""
    tokens = np.ones((1 << 20) + 3, dtype=np.uint16)
    tokens[[0, (1 << 20) - 1, 1 << 20, (1 << 20) + 2]] = 0
    assert row_starts(stream_of(tokens.tolist())).tolist() == [0, (1 << 20) - 1, 1 << 20, (1 << 20) + 2]


def test_scores_add_up():
    assert Score(1.5, 2, 3, 5, 7) + Score(0.5, 10, 20, 30, 40) == Score(2.0, 12, 23, 35, 47)
    assert sum_rows([], np.zeros(0), table(bytes=[1])) == Score()
