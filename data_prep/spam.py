"""Spam: long runs of words that stand in many rows, such as advertisements and chain letters under varying words."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from xxhash import xxh3_64_digest

HASH_BYTES = 8
RUN_WORDS = 8
"""Words of a run. Greetings and blessings that everybody writes are shorter."""
MIN_ROWS = 10
"""In how many different rows a run must stand to be spam."""
SPAM_SHARE = 0.5
"""A row is spam if more than this share of its words is in such runs."""
BUCKET_RUNS = 2**22


def run_hashes(words: Sequence[str]) -> bytes:
    """The hash of every run of RUN_WORDS words, 8 bytes each in the order of the row: none for a shorter row."""
    runs = (" ".join(words[start : start + RUN_WORDS]) for start in range(len(words) - RUN_WORDS + 1))
    return b"".join(xxh3_64_digest(run.encode("utf-8")) for run in runs)


def spam_rows(runs: Path, words: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(rows,) bool: which of the `kept` rows are spam. `words` (rows,) counts their words, `runs` holds their run hashes.

    A run counts once a row. Memory: one chunk of hashes, and those of the frequent runs.
    """
    frequent = frequent_runs(runs, words, kept)
    spam = np.zeros(len(words), dtype=bool)
    if len(frequent) == 0:
        return spam
    for first, owners, hashes in _chunks(runs, words):
        hit = np.flatnonzero(np.isin(hashes, frequent))
        if len(hit) == 0:
            continue
        # a run covers RUN_WORDS words of its row, less those that the hit before it covers already
        fresh = np.full(len(hit), RUN_WORDS)
        fresh[1:] = np.where(owners[hit[1:]] == owners[hit[:-1]], np.minimum(np.diff(hit), RUN_WORDS), RUN_WORDS)
        covered = np.bincount(owners[hit], weights=fresh)
        spam[first : first + len(covered)] = covered > SPAM_SHARE * words[first : first + len(covered)]
    return spam & kept


def frequent_runs(runs: Path, words: np.ndarray, kept: np.ndarray, bucket_runs: int = BUCKET_RUNS) -> np.ndarray:
    """Sorted uint64 hashes of the runs that at least MIN_ROWS kept rows have. The hashes are taken a bucket at a time."""
    buckets = np.uint64(max(1, -(-runs.stat().st_size // HASH_BYTES // bucket_runs)))
    found = []
    for bucket in range(int(buckets)):
        values = [np.empty(0, dtype="<u8")]
        for first, owners, hashes in _chunks(runs, words):
            chosen = (hashes % buckets == bucket) & kept[first + owners]
            row, value = owners[chosen], hashes[chosen]
            order = np.lexsort((value, row))
            row, value = row[order], value[order]
            new = np.ones(len(row), dtype=bool)  # a run counts once a row
            new[1:] = (row[1:] != row[:-1]) | (value[1:] != value[:-1])
            values.append(value[new])
        unique, counts = np.unique(np.concatenate(values), return_counts=True)
        found.append(unique[counts >= MIN_ROWS])
    return np.sort(np.concatenate(found))


def _chunks(runs: Path, words: np.ndarray, chunk_rows: int = 2**16) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(first row, owner of each run counted from it, run hashes) of a few rows at a time."""
    with open(runs, "rb") as file:
        for first in range(0, len(words), chunk_rows):
            counts = np.maximum(np.asarray(words[first : first + chunk_rows], dtype=np.int64) - RUN_WORDS + 1, 0)
            hashes = np.fromfile(file, dtype="<u8", count=int(counts.sum()))
            yield first, np.repeat(np.arange(len(counts)), counts), hashes
