"""The split by blocks: contiguous, stratified, and a function of (seed, block) alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.split import (
    TEST,
    TRAIN,
    VAL,
    block_rows,
    blocks_for_test,
    split_by_blocks,
    split_by_rows,
    validation_block,
    validation_blocks,
)
from gpt_core.errors import InputError

FRACTIONS = st.floats(0.02, 0.5)
SEEDS = st.integers(0, 2**40)


@pytest.mark.parametrize(("rows", "size"), [(1, 10), (999, 10), (1100, 11), (49_999, 499), (50_000, 500), (10**8, 500)])
def test_block_rows(rows, size):
    assert block_rows(rows) == size


@given(st.integers(0, 500), FRACTIONS, SEEDS)
def test_a_block_of_each_stratum(stratum, fraction, seed):
    block = validation_block(stratum, fraction, seed)
    assert int(stratum / fraction) <= block <= (stratum + 1) / fraction
    assert block == validation_block(stratum, fraction, seed)


@given(st.integers(1, 400), st.integers(0, 400), FRACTIONS, SEEDS)
def test_a_block_does_not_move_when_rows_are_added(blocks, more, fraction, seed):
    few, many = (validation_blocks(n, fraction, seed) for n in (blocks, blocks + more))
    assert few == {block for block in many if block < blocks}


@given(st.integers(100, 2000), FRACTIONS, SEEDS)
def test_share_of_blocks(blocks, fraction, seed):
    # one block a stratum, the last stratum cut off; unless 1 / fraction is whole two strata may meet in a block
    count = len(validation_blocks(blocks, fraction, seed))
    assert count <= blocks * fraction + 1
    assert count >= (blocks * fraction - 1) * (1 - fraction)


def test_exactly_a_tenth_of_the_blocks_spread_over_the_corpus():
    chosen = sorted(validation_blocks(1000, 0.1, 1337))
    assert len(chosen) == 100
    assert [block // 10 for block in chosen] == list(range(100))
    assert {block % 10 for block in chosen} == set(range(10)), "any place in a stratum"


def test_the_seed_decides():
    assert len({validation_blocks(200, 0.1, seed) for seed in range(20)}) == 20


@given(st.integers(1, 400), st.integers(0, 400), FRACTIONS, FRACTIONS, SEEDS)
def test_test_blocks_come_out_of_training_and_do_not_move(blocks, more, val_fraction, fraction, seed):
    few, many = (blocks_for_test(n, val_fraction, fraction, seed) for n in (blocks, blocks + more))
    assert few == {block for block in many if block < blocks}
    assert not many & validation_blocks(blocks + more, val_fraction, seed)


def test_a_twentieth_of_the_blocks_is_for_the_test():
    chosen = sorted(blocks_for_test(1000, 0.1, 0.05, 1337))
    assert [block // 20 for block in chosen] == list(range(50))
    assert len({block % 20 for block in chosen}) > 10, "any place in a stratum"


@given(st.integers(200, 5000), SEEDS)
def test_held_out_rows_are_whole_blocks(rows, seed):
    split_of = split_by_blocks(rows, 0.1, 0.05, seed)
    size = block_rows(rows)
    assert split_of.shape == (rows,) and split_of.dtype == np.uint8
    for start in range(0, rows, size):
        assert len(set(split_of[start : start + size].tolist())) == 1
    counts = {split: int((split_of == split).sum()) for split in (TRAIN, VAL, TEST)}
    assert 0 < counts[VAL] <= rows * 0.1 + size and 0 < counts[TEST] <= rows * 0.05 + size
    assert np.array_equal(split_of == VAL, split_by_blocks(rows, 0.1, 0, seed) == VAL), "the test split moves no validation row"
    assert np.count_nonzero(np.diff(split_of)) <= 2 * (rows / size * 0.15 + 2)


def test_rows_drawn_one_by_one_change_split_far_more_often():
    """The control of the above: 15 % of 5,000 rows held out one by one are some 1,300 changes, in blocks of 50 at most 34."""
    assert np.count_nonzero(np.diff(split_by_rows(5000, 0.1, 0.05, 1337))) > 1000
    assert np.count_nonzero(np.diff(split_by_blocks(5000, 0.1, 0.05, 1337))) <= 34


@pytest.mark.parametrize(("rows", "fraction"), [(1, 0.1), (10, 0.5), (30, 0.001)])
def test_an_empty_split_is_refused(rows, fraction):
    with pytest.raises(InputError, match=r"--val-fraction .* leaves no"):
        split_by_blocks(rows, fraction, 0, 1337)


def test_an_empty_test_split_is_refused():
    """100 rows are 10 blocks, half a stratum of 20: with about every second seed the block drawn is not among them."""
    assert set(split_by_blocks(100, 0.2, 0, 1337).tolist()) == {TRAIN, VAL}
    refused = [seed for seed in range(20) if not blocks_for_test(10, 0.2, 0.05, seed)]
    assert 0 < len(refused) < 20
    with pytest.raises(InputError, match=r"--test-fraction 0\.05 leaves no test rows.*--test-fraction 0"):
        split_by_blocks(100, 0.2, 0.05, refused[0])


def test_rows_too_few_to_draw_from_are_refused():
    """As `data_prep.leakage` splits: with three rows the seed holds out none."""
    with pytest.raises(InputError, match="3 rows are too few to draw training and validation rows from"):
        split_by_rows(3, 0.1, 0.05, 1337)
    assert {TRAIN, VAL} <= set(split_by_rows(300, 0.1, 0.05, 1337).tolist())
