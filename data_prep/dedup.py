"""Duplicates: rows that say the same, found through one 64-bit hash a row, so that 10^8 rows need little memory."""

import re
from hashlib import blake2b
from pathlib import Path

import numpy as np

HASH_BYTES = 8
BUCKET_ROWS = 2**22
_SILENT = re.compile(r"[\W_ـ]+")
_REPEATED = re.compile(r"([^\W\d_])\1+")


def dedup_key(text: str) -> str:
    """What two duplicates have in common: "صحااااا، خويا!!" and "صحـــا خويا 😂" -> "صحاخويا".

    Letters and digits, without case, spaces, marks, emoji and tatweel, every run of one letter folded to one letter.
    Folding runs of two as well makes the key the same however far a word was stretched, a doubled letter included
    ("اللللله" and "الله"), which folding from three on would not; that two whole rows differ in a doubled letter alone
    is rare, and then little is lost. Digits are never folded: 100 is not 10. A kept row is written as it stood.
    """
    return _REPEATED.sub(r"\1", _SILENT.sub("", text.casefold()))


def dedup_hash(text: str) -> bytes:
    """The 8-byte hash of a row's key. Collisions are rare: 10^8 rows lose one by chance with odds of 1 in 3,700."""
    return blake2b(dedup_key(text).encode("utf-8"), digest_size=HASH_BYTES).digest()


def first_occurrences(hashes: Path, bucket_rows: int = BUCKET_ROWS) -> np.ndarray:
    """(rows,) bool: whether a row is the first with its hash. `hashes` is a file of 8 bytes a row, in row order.

    The hashes are taken a bucket at a time, each about `bucket_rows` rows and re-read from disk, so that the memory is
    one byte a row and some 80 bytes a row of one bucket.
    """
    rows = hashes.stat().st_size // HASH_BYTES
    first = np.zeros(rows, dtype=bool)
    buckets = np.uint64(max(1, -(-rows // bucket_rows)))
    for bucket in range(int(buckets)):
        positions, values = [], []
        with open(hashes, "rb") as file:
            for start in range(0, rows, bucket_rows):
                chunk = np.fromfile(file, dtype="<u8", count=bucket_rows)
                chosen = np.flatnonzero(chunk % buckets == bucket)
                positions.append(start + chosen)
                values.append(chunk[chosen])
        if rows:
            _, index = np.unique(np.concatenate(values), return_index=True)
            first[np.concatenate(positions)[index]] = True
    return first
