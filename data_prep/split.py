"""Training, validation and test rows, parted by blocks of neighbours."""

import math

import numpy as np

from gpt_core.errors import InputError

MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 10, 500
TRAIN, VAL, TEST = 0, 1, 2
"""Splits as they stand in arrays; SPLIT_NAMES has their names."""
SPLIT_NAMES = ("train", "val", "test")
TEST_STREAM = 1
"""Sets the draws of test blocks apart from those of validation blocks with the same seed."""


def block_rows(rows: int) -> int:
    """Rows in a block, the unit that goes to one split or the other as a whole.

    Neighbouring rows come from one conversation or transcript, so a split by row would put half of each in either split
    and validation would measure memory. A block should be longer than a conversation (500 rows where there are enough),
    yet there should be a hundred or more, so that validation covers the corpus; below 10 rows a block is all edge.
    """
    return min(max(rows // 100, MIN_BLOCK_ROWS), MAX_BLOCK_ROWS)


def validation_block(stratum: int, val_fraction: float, seed: int) -> int:
    """The one block that stratum k, the blocks k / val_fraction to (k + 1) / val_fraction, gives to validation."""
    drawn = np.random.default_rng([seed, stratum]).random()
    return math.floor((stratum + drawn) / val_fraction)


def validation_blocks(blocks: int, val_fraction: float, seed: int) -> frozenset[int]:
    """The validation blocks among 0 to blocks - 1; whether a block is one does not depend on how many there are."""
    strata = math.ceil(blocks * val_fraction)
    return frozenset(b for k in range(strata) if (b := validation_block(k, val_fraction, seed)) < blocks)


def block_for_test(stratum: int, val_fraction: float, test_fraction: float, seed: int) -> int | None:
    """The block that stratum k, the blocks k / test_fraction to (k + 1) / test_fraction, gives to the test split.

    It is drawn among those that validation leaves to training; None where it leaves none.
    """
    first, end = math.ceil(stratum / test_fraction), math.ceil((stratum + 1) / test_fraction)
    free = [block for block in range(first, end) if not _is_validation(block, val_fraction, seed)]
    drawn = np.random.default_rng([seed, stratum, TEST_STREAM]).random()
    return free[int(drawn * len(free))] if free else None


def blocks_for_test(blocks: int, val_fraction: float, test_fraction: float, seed: int) -> frozenset[int]:
    """The test blocks among 0 to blocks - 1; like validation's, they stay when rows are added."""
    drawn = (block_for_test(k, val_fraction, test_fraction, seed) for k in range(math.ceil(blocks * test_fraction)))
    return frozenset(block for block in drawn if block is not None and block < blocks)


def _is_validation(block: int, val_fraction: float, seed: int) -> bool:
    # a block lies in one stratum, or in two where 1 / val_fraction is not whole
    strata = {math.floor(block * val_fraction), math.floor((block + 1) * val_fraction)}
    return any(validation_block(stratum, val_fraction, seed) == block for stratum in strata)


def split_by_blocks(rows: int, val_fraction: float, test_fraction: float, seed: int) -> np.ndarray:
    """(rows,) uint8: TRAIN, VAL or TEST. Raises InputError where a split would be empty."""
    size = block_rows(rows)
    blocks = -(-rows // size)
    val = validation_blocks(blocks, val_fraction, seed)
    test = blocks_for_test(blocks, val_fraction, test_fraction, seed) if test_fraction else frozenset[int]()
    split_of = np.full(blocks, TRAIN, dtype=np.uint8)
    split_of[list(val)], split_of[list(test)] = VAL, TEST
    empty = f"no {{}} rows: {rows} rows are {blocks} blocks of {size};"
    for name, count in (("validation", len(val)), ("training", blocks - len(val) - len(test))):
        if count == 0:
            needed = math.ceil(1 / val_fraction) * MIN_BLOCK_ROWS
            raise InputError(
                f"--val-fraction {val_fraction:g} leaves {empty.format(name)} "
                f"give {needed} rows or more, or raise --val-fraction"
            )
    if test_fraction and not test:
        needed = math.ceil(1 / test_fraction) * MIN_BLOCK_ROWS
        raise InputError(
            f"--test-fraction {test_fraction:g} leaves {empty.format('test')} "
            f"give {needed} rows or more, or --test-fraction 0 for no test split"
        )
    return np.repeat(split_of, size)[:rows]


def split_by_rows(rows: int, val_fraction: float, test_fraction: float, seed: int) -> np.ndarray:
    """(rows,) uint8, every row drawn for itself: what `data_prep.leakage` compares the blocks with, and nothing else uses."""
    drawn = np.random.default_rng(seed).random(rows)
    held_out = np.where(drawn < val_fraction, VAL, TEST)
    split_of = np.where(drawn < val_fraction + test_fraction, held_out, TRAIN).astype(np.uint8)
    if not {TRAIN, VAL} <= set(split_of.tolist()):
        raise InputError(f"--source: {rows} rows are too few to draw training and validation rows from: give more")
    return split_of
