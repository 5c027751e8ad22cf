"""Which clean rows are kept, and in which split each is: duplicates, spam, blocks, near-duplicates, in this order."""

from dataclasses import dataclass, field

import numpy as np

from data_prep.dedup import first_occurrences
from data_prep.near import NONE, SEED, Found, Texts, find_near_duplicates
from data_prep.options import Options
from data_prep.spam import spam_rows
from data_prep.split import SPLIT_NAMES, TEST, TRAIN, VAL, split_by_blocks, split_by_rows
from data_prep.spool import LATER, Spool
from data_prep.statistics import SAMPLES, shown
from gpt_core.errors import InputError

DROPPED = 255
"""Stands in `split_of` for no split."""
KEPT_SAMPLES = 24
ORDER = (TEST, VAL, TRAIN)
"""Of two near-duplicates the one in the earlier of these splits stays, so that nothing held out is also learnt."""


@dataclass
class Selection:
    """`split_of` (rows,) uint8: the index of each row's split in SPLIT_NAMES, or DROPPED. `dropped` counts by reason.

    `pairs` counts rows of a split with an earlier near-duplicate in a split. For the report: `samples` of kept rows and
    of rows dropped, by reason, and (dropped, stays) of near-duplicates.
    """

    split_of: np.ndarray
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LATER, 0))
    pairs: dict[str, dict[str, int]] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)
    near_samples: list[list[str]] = field(default_factory=list)

    def of(self, split: str) -> np.ndarray:
        """(rows,) bool: the rows of a split."""
        return self.split_of == SPLIT_NAMES.index(split)

    def count(self, split: str) -> int:
        """Rows of a split."""
        return int(np.count_nonzero(self.of(split)))


def select_rows(spool: Spool, options: Options) -> Selection:
    """Decides about every row of the spool. Raises InputError where a split would be empty.

    Blocks are cut after duplicates and spam are gone and before near-duplicates are, which leaves gaps in blocks but
    moves no row into another split.
    """
    skip = options.skip_rules
    kept = np.ones(spool.rows, dtype=bool) if "duplicate" in skip else first_occurrences(spool.hashes)
    gone = {"duplicate": ~kept}
    if "spam" not in skip:
        gone["spam"] = spam_rows(spool.runs, spool.words(), kept)
        kept &= ~gone["spam"]
    chosen = Selection(np.full(spool.rows, DROPPED, dtype=np.uint8))
    split = split_by_rows if options.split_by == "rows" else split_by_blocks
    chosen.split_of[kept] = split(int(np.count_nonzero(kept)), options.val_fraction, options.test_fraction, options.seed)
    if not {"near_duplicate", "leak"} <= set(skip):
        gone |= _without_near_duplicates(spool, chosen, skip)
    with Texts(spool) as texts:
        chosen.samples["kept"] = _spread(texts, chosen.split_of != DROPPED, KEPT_SAMPLES)
        for reason, rows in gone.items():
            chosen.dropped[reason] = int(np.count_nonzero(rows))
            chosen.samples[reason] = _spread(texts, rows, SAMPLES)
    return chosen


def _spread(texts: Texts, rows: np.ndarray, count: int) -> list[str]:
    """At most `count` of the rows, spread evenly."""
    positions = np.flatnonzero(rows)
    spread = np.unique(np.linspace(0, len(positions) - 1, min(count, len(positions))).astype(int))
    return [shown(texts.row(int(row)))[0] for row in positions[spread]]


def near_duplicates_of(
    spool: Spool, split_of: np.ndarray, order: tuple[int, ...], seed: int = SEED
) -> tuple[Found, np.ndarray]:
    """What `find_near_duplicates` finds with the splits in `order`, the first of which keep their rows; and the ranks."""
    ranks = np.full(spool.rows, NONE, dtype=np.uint8)
    for rank, split in enumerate(order):
        ranks[split_of == split] = rank
    return find_near_duplicates(spool, ranks, seed=seed), ranks


def _without_near_duplicates(spool: Spool, chosen: Selection, skip: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Takes near-duplicates out of their splits; which rows, by reason."""
    found, ranks = near_duplicates_of(spool, chosen.split_of, ORDER)
    for (own, other), count in sorted(found.pairs(ranks).items()):
        chosen.pairs.setdefault(SPLIT_NAMES[ORDER[own]], {})[SPLIT_NAMES[ORDER[other]]] = count
    with Texts(spool) as texts:
        chosen.near_samples = [shown(texts.row(row), texts.row(earlier)) for row, earlier in found.examples]
    hit = found.rank != NONE
    gone = {"near_duplicate": hit & (found.rank == ranks), "leak": hit & (found.rank < ranks)}
    gone = {reason: rows for reason, rows in gone.items() if reason not in skip}
    for rows in gone.values():
        before = {name: chosen.count(name) for name in SPLIT_NAMES}
        chosen.split_of[rows] = DROPPED
        for name, count in before.items():
            if count and not chosen.count(name):
                raise InputError(
                    f"--source: the {count} rows of the {name} split are all nearly the same as others; give more rows, or "
                    "pass --skip-rules near_duplicate,leak to keep them"
                )
    return gone
