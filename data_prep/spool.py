"""Clean rows on disk between the passes over them: a row a line, and beside it what later passes need to know of each row.

In memory stay a few bytes a row at most: which are dropped for what, and the split of each.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.clean import CHANGES, REASONS, Cleaned
from data_prep.dedup import dedup_hash
from data_prep.readers import Row
from data_prep.spam import run_hashes
from gpt_core.errors import InputError
from gpt_core.files import naming

LATER = {
    "duplicate": "says the same as an earlier row",
    "spam": "most of it is a long run of words that many rows have",
    "near_duplicate": "nearly the same as an earlier row of its split",
    "leak": "nearly the same as a row held out: of test, or of validation and in train",
}
"""Why a clean row is dropped, in the order in which the reasons are looked for."""
MAX_SOURCES = 1000
"""Sources that are told apart; a file with more has something else in its column `source`."""


@dataclass(frozen=True)
class Spool:
    """The clean rows in a folder. `rows_read` = rows spooled + sum of `dropped`.

    `dropped` and `changed` count the rows read, by reason and by rule. `sources` names the parts of the source, and is
    empty where it has none, or more than MAX_SOURCES.
    """

    folder: Path
    rows: int
    rows_read: int
    dropped: dict[str, int]
    changed: dict[str, int]
    sources: tuple[str, ...]

    @property
    def text(self) -> Path:
        """UTF-8, a row a line."""
        return self.folder / "rows.txt"

    @property
    def hashes(self) -> Path:
        """The 8-byte hash of each row's duplicate key."""
        return self.folder / "hashes.bin"

    @property
    def runs(self) -> Path:
        """The 8-byte hashes of each row's runs of words, row after row."""
        return self.folder / "runs.bin"

    def offsets(self) -> np.ndarray:
        """(rows + 1,) int64, on disk: where each row starts in `text`."""
        return np.memmap(self.folder / "offsets.bin", dtype="<i8", mode="r")

    def words(self) -> np.ndarray:
        """(rows,) int32, on disk: words of each row."""
        return np.memmap(self.folder / "words.bin", dtype="<i4", mode="r")

    def source_of(self) -> np.ndarray:
        """(rows,) uint16, on disk: the index in `sources` of each row's source."""
        return np.memmap(self.folder / "sources.bin", dtype="<u2", mode="r")

    def texts(self, wanted: np.ndarray) -> Iterator[str]:
        """The rows whose `wanted` (rows,) is true, in source order."""
        with open(self.text, "rb") as file:
            for keep, line in zip(wanted, file, strict=True):
                if keep:
                    yield line[:-1].decode("utf-8")


def refuse_empty(spool: Spool) -> None:
    """Raises InputError where cleaning left no row, with the reasons."""
    if spool.rows:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in spool.dropped.items() if count)
    keep = "pass --latin keep to keep words in Latin script"
    remedy = keep if spool.dropped["latin"] else "give a file with text in it"
    raise InputError(f"--source: no row is left of {spool.rows_read} after cleaning ({reasons}); {remedy}")


@dataclass
class _Sources:
    """Names of sources in the order in which they come up."""

    index: dict[str, int] = field(default_factory=dict)
    overflow: bool = False

    def number(self, name: str | None) -> int:
        known = self.index.get(name or "")
        if known is not None:
            return known
        if len(self.index) == MAX_SOURCES:
            self.overflow = True
            return 0
        return self.index.setdefault(name or "", len(self.index))

    def names(self) -> tuple[str, ...]:
        return () if self.overflow or list(self.index) in ([], [""]) else tuple(self.index)


def spool_rows(
    rows: Iterable[Row], clean: Callable[[str], Cleaned], folder: Path, watch: Callable[[str, Cleaned], None] = lambda *_: None
) -> Spool:
    """Cleans `rows` into files of `folder`. `watch` sees every row as it was read and as it was cleaned."""
    spooled, rows_read, position = 0, 0, 0
    dropped, changed, sources = Counter[str](), Counter[str](), _Sources()
    names = ("rows.txt", "hashes.bin", "runs.bin", "offsets.bin", "words.bin", "sources.bin")
    with naming(folder), ExitStack() as stack:
        text_file, hash_file, run_file, offset_file, word_file, source_file = (
            stack.enter_context(open(folder / name, "wb")) for name in names
        )
        offset_file.write(np.int64(0).astype("<i8").tobytes())
        for row, source in rows:
            rows_read += 1
            cleaned = clean(row)
            changed.update(cleaned.changed)
            watch(row, cleaned)
            if cleaned.dropped:
                dropped[cleaned.dropped] += 1
                continue
            words = cleaned.text.split(" ")
            position += text_file.write(cleaned.text.encode("utf-8") + b"\n")
            hash_file.write(dedup_hash(cleaned.text))
            run_file.write(run_hashes(words))
            offset_file.write(position.to_bytes(8, "little"))
            word_file.write(len(words).to_bytes(4, "little"))
            source_file.write(sources.number(source).to_bytes(2, "little"))
            spooled += 1
    return Spool(
        folder,
        spooled,
        rows_read,
        {reason: dropped[reason] for reason in REASONS},
        {rule: changed[rule] for rule in CHANGES},
        sources.names(),
    )
