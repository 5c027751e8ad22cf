"""The split by blocks: contiguous, stratified, and a function of (seed, block) alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.split import block_rows, validation_block, validation_blocks, validation_mask
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


@given(st.integers(100, 5000), SEEDS)
def test_validation_rows_are_whole_blocks(rows, seed):
    mask = validation_mask(rows, 0.1, seed)
    size = block_rows(rows)
    assert mask.shape == (rows,) and mask.dtype == bool
    for start in range(0, rows, size):
        assert len(set(mask[start : start + size].tolist())) == 1
    assert 0 < mask.sum() <= rows * 0.1 + size
    # control: rows drawn one by one would change split far more often
    assert np.count_nonzero(np.diff(mask)) <= 2 * (rows / size * 0.1 + 1)


@pytest.mark.parametrize(("rows", "fraction"), [(1, 0.1), (10, 0.5), (30, 0.001)])
def test_an_empty_split_is_refused(rows, fraction):
    with pytest.raises(InputError, match=r"--val-fraction .* leaves no"):
        validation_mask(rows, fraction, 1337)
