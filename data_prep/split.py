"""Training and validation rows, parted by blocks of neighbours."""

import math

import numpy as np

from gpt_core.errors import InputError

MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 10, 500


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


def validation_mask(rows: int, val_fraction: float, seed: int) -> np.ndarray:
    """(rows,) bool: whether a row is for validation. Raises InputError where a split would be empty."""
    size = block_rows(rows)
    blocks = -(-rows // size)
    chosen = validation_blocks(blocks, val_fraction, seed)
    for name, count in (("validation", len(chosen)), ("training", blocks - len(chosen))):
        if count == 0:
            needed = math.ceil(1 / val_fraction) * MIN_BLOCK_ROWS
            raise InputError(
                f"--val-fraction {val_fraction:g} leaves no {name} rows: {rows} rows are {blocks} blocks of {size}; "
                f"give {needed} rows or more, or raise --val-fraction"
            )
    return np.repeat([block in chosen for block in range(blocks)], size)[:rows]
