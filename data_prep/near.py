"""Near-duplicates: rows that share most of their letters, found by MinHash and locality-sensitive hashing.

Two rows are near-duplicates if the sets of their runs of five letters have a Jaccard similarity of 0.7 or more: about one
word in twelve replaced. Pairs to look at come from MinHash signatures (Broder 1997; by the library rensa) cut into bands:
rows that agree in a whole band are compared exactly. A pair at 0.7 is met with probability 1 - (1 - 0.7^5)^25 = 0.99,
one at 0.8 with 0.9999. Libraries keep the bands of all rows in memory; here they are on disk and read band by band.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np

from data_prep.dedup import dedup_key
from data_prep.spool import Spool
from gpt_core.files import naming

SHINGLE = 5
"""Letters of a run; shorter rows have no near-duplicates but exact ones."""
SIMILAR = 0.7
BANDS, BAND_SLOTS = 25, 5
SEED = 1
MAX_LETTERS = 2000
"""A longer row is known by its first letters: so much memory at most for a row."""
BATCH_ROWS = 4096
PAIRS_AT_A_TIME = 2048
BUCKET_ROWS = 2**22
NONE = 255
"""No rank: of a row that takes no part, or has no near-duplicate."""
EXAMPLES = 12
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Found:
    """What was found. `rank` (rows,) uint8: the lowest rank among a row's earlier near-duplicates, or NONE.

    `pairs` counts the rows by (own rank, that rank); `examples` are a few (row, its earlier near-duplicate).
    """

    rank: np.ndarray
    examples: list[tuple[int, int]] = field(default_factory=list)

    def pairs(self, ranks: np.ndarray) -> Counter[tuple[int, int]]:
        """How many rows of each rank have an earlier near-duplicate of each rank."""
        hit = self.rank != NONE
        return Counter(zip(ranks[hit].tolist(), self.rank[hit].tolist(), strict=True))


def find_near_duplicates(spool: Spool, ranks: np.ndarray, bucket_rows: int = BUCKET_ROWS, seed: int = SEED) -> Found:
    """Looks for each row's earlier near-duplicates. `ranks` (rows,) uint8 orders the rows, then their position does; a row
    of rank NONE takes no part. `seed` draws the hash functions.

    Within a group that shares a band a row is compared with the first of the group and with the one before it, so the
    work is linear however many rows repeat. Memory: a byte or two a row, and some 100 bytes a row of one bucket.
    """
    found = Found(np.full(len(ranks), NONE, dtype=np.uint8))
    if not np.any(ranks != NONE):
        return found
    with Texts(spool) as texts:
        bands = write_bands(texts, ranks, spool.folder, seed)
        for band in bands:
            for earlier, later in _candidates(band, ranks, bucket_rows):
                _compare(texts, ranks, earlier, later, found)
            band.unlink()
    return found


class Texts:
    """Random access to the rows of a spool: pages of the file, not the file, are in memory."""

    def __init__(self, spool: Spool):
        self._file = open(spool.text, "rb")  # noqa: SIM115  (closed by __exit__)
        self._map = mmap(self._file.fileno(), 0, access=ACCESS_READ)
        self._offsets = spool.offsets()

    def __enter__(self) -> "Texts":
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._file.close()

    def row(self, index: int) -> str:
        """The text of one row."""
        return self._map[int(self._offsets[index]) : int(self._offsets[index + 1]) - 1].decode("utf-8")

    def key(self, index: int) -> str:
        """The letters of one row, as duplicates are compared."""
        return dedup_key(self.row(index))[:MAX_LETTERS]


def shingles(keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of SHINGLE letters, (n,) uint64, and where each key's begin and end, (keys + 1,) int64."""
    codes = np.frombuffer("".join(keys).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    hashes = np.zeros(max(len(codes) - SHINGLE + 1, 0), dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes = _mixed(hashes, codes[offset : offset + len(hashes)])
    inside = np.ones(len(hashes), dtype=bool)
    for before_end in range(1, SHINGLE):
        crossing = np.cumsum(lengths) - before_end
        inside[crossing[(crossing >= 0) & (crossing < len(hashes))]] = False
    counts = np.maximum(lengths - SHINGLE + 1, 0)
    return hashes[inside], np.concatenate([[0], np.cumsum(counts)])


def write_bands(texts: Texts, ranks: np.ndarray, folder: Path, seed: int) -> list[Path]:
    """A file a band of 8 bytes a row: equal where rows agree in that band of their signatures, 0 for rows without letters."""
    from rensa import RMinHash

    paths = [folder / f"band-{band:02d}.bin" for band in range(BANDS)]
    with naming(folder), ExitStack() as stack:
        files = [stack.enter_context(open(path, "wb")) for path in paths]
        for first in range(0, len(ranks), BATCH_ROWS):
            chosen = np.flatnonzero(ranks[first : first + BATCH_ROWS] != NONE)
            hashes, offsets = shingles([texts.key(first + int(row)) for row in chosen])
            values = np.zeros((BANDS, min(BATCH_ROWS, len(ranks) - first)), dtype="<u8")
            if len(hashes):
                matrix = RMinHash.digest_matrix_from_flat_token_hashes(
                    hashes, offsets.astype(np.uint64), BANDS * BAND_SLOTS, seed
                )
                signatures = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(chosen), BANDS, BAND_SLOTS)
                folded = np.zeros((len(chosen), BANDS), dtype=np.uint64)
                for slot in range(BAND_SLOTS):
                    folded = _mixed(folded, signatures[:, :, slot])
                has_letters = np.diff(offsets) > 0
                values[:, chosen[has_letters]] = np.maximum(folded[has_letters].T, 1)
            for file, column in zip(files, values, strict=True):
                file.write(column.tobytes())
    return paths


def jaccard(texts: Texts, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jaccard similarity of the letter runs of pairs of rows, (n,) float64."""
    pairs = len(first)
    hashes, offsets = shingles([texts.key(int(row)) for row in np.concatenate([first, second])])
    owner = np.repeat(np.arange(2 * pairs), np.diff(offsets))
    pair, side = owner % pairs, owner // pairs
    order = np.lexsort((side, hashes, pair))
    pair, side, hashes = pair[order], side[order], hashes[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (pair[1:] != pair[:-1]) | (hashes[1:] != hashes[:-1])
    either = np.bincount(pair[new], minlength=pairs)
    # the first of equal hashes is of side 0 if any is, the last of side 1 if any is
    last = np.ones(len(hashes), dtype=bool)
    last[:-1] = new[1:]
    both = np.bincount(pair[new][(side[new] == 0) & (side[last] == 1)], minlength=pairs)
    return both / np.maximum(either, 1)


def _candidates(band: Path, ranks: np.ndarray, bucket_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(earlier, later) rows that share the band, a bucket of its values at a time."""
    values = np.memmap(band, dtype="<u8", mode="r")
    buckets = np.uint64(max(1, -(-len(values) // bucket_rows)))
    for bucket in range(int(buckets)):
        rows, shared = [], []
        for start in range(0, len(values), bucket_rows):
            chunk = values[start : start + bucket_rows]
            chosen = np.flatnonzero((chunk % buckets == bucket) & (chunk != 0))
            rows.append(start + chosen)
            shared.append(chunk[chosen])
        row, value = np.concatenate(rows), np.concatenate(shared)
        order = np.lexsort((row, ranks[row], value))
        row, value = row[order], value[order]
        again = np.flatnonzero(value[1:] == value[:-1]) + 1
        starts = np.ones(len(value), dtype=bool)
        starts[again] = False
        first = np.maximum.accumulate(np.where(starts, np.arange(len(value)), 0))[again]
        yield row[first], row[again]
        distinct = first != again - 1
        yield row[again - 1][distinct], row[again][distinct]


def _compare(texts: Texts, ranks: np.ndarray, earlier: np.ndarray, later: np.ndarray, found: Found) -> None:
    for start in range(0, len(later), PAIRS_AT_A_TIME):
        a, b = earlier[start : start + PAIRS_AT_A_TIME], later[start : start + PAIRS_AT_A_TIME]
        news = found.rank[b] > ranks[a]
        a, b = a[news], b[news]
        if len(a) == 0:
            continue
        similar = jaccard(texts, a, b) >= SIMILAR
        a, b = a[similar], b[similar]
        found.examples += list(zip(b.tolist(), a.tolist(), strict=True))[: EXAMPLES - len(found.examples)]
        np.minimum.at(found.rank, b, ranks[a])


def _mixed(hashes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Another 64 bits for each pair of hash and value; overflow is meant."""
    mixed = (hashes ^ values) * _MIX
    return mixed ^ (mixed >> np.uint64(29))
