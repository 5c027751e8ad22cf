"""Clean rows on disk between the passes over them: one row a line, one duplicate hash a row, nothing kept in memory."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.clean import CHANGES, REASONS, Latin, clean_row
from data_prep.dedup import dedup_hash, first_occurrences
from gpt_core.files import naming

DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Spool:
    """Clean rows, some of them marked as kept.

    `rows_read` = rows kept + sum of `dropped`; `changed` counts the rows read that a rule changed, kept or not.
    """

    path: Path
    kept: np.ndarray
    rows_read: int
    dropped: dict[str, int]
    changed: dict[str, int]

    @property
    def rows(self) -> int:
        """Rows kept."""
        return int(np.count_nonzero(self.kept))


def spool_rows(rows: Iterable[str], latin: Latin, folder: Path) -> Spool:
    """Cleans `rows` into a file of `folder` and marks the first of each set of duplicates as kept."""
    path, hashes = folder / "rows.txt", folder / "hashes.bin"
    rows_read, dropped, changed = 0, Counter[str](), Counter[str]()
    with naming(folder), open(path, "wb") as text_file, open(hashes, "wb") as hash_file:
        for row in rows:
            rows_read += 1
            cleaned = clean_row(row, latin)
            changed.update(cleaned.changed)
            if cleaned.dropped:
                dropped[cleaned.dropped] += 1
            else:
                text_file.write(cleaned.text.encode("utf-8") + b"\n")
                hash_file.write(dedup_hash(cleaned.text))
    kept = first_occurrences(hashes)
    dropped[DUPLICATE] = int(np.count_nonzero(~kept))
    return Spool(
        path,
        kept,
        rows_read,
        {reason: dropped[reason] for reason in (*REASONS, DUPLICATE)},
        {rule: changed[rule] for rule in CHANGES},
    )


def split_rows(spool: Spool, validation: np.ndarray, wanted: bool) -> Iterator[str]:
    """The kept rows whose `validation` (kept rows,) is `wanted`, in source order."""
    position = 0
    with open(spool.path, "rb") as file:
        for keep, line in zip(spool.kept, file, strict=True):
            if keep:
                if validation[position] == wanted:
                    yield line[:-1].decode("utf-8")
                position += 1
