"""What the report shows and neither shards nor manifest hold: languages, lengths, frequent words, samples. Memory bounded."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from zlib import crc32

import numpy as np

from data_prep.clean import Cleaned
from data_prep.latin import count_languages
from data_prep.rules import fold_space, has_letter, mask_private, strip_invisible

LANGUAGES = ("arabic", "french", "arabizi", "other")
SAMPLES = 8
"""Rows shown for each reason and each rule."""
SAMPLE_CHARACTERS = 240
TOP_WORDS = 50
MAX_COUNTED = 2**18
"""Different words that are counted at a time; beyond, those seen least are forgotten."""
LENGTH_EDGES = (1, 2, 3, 5, 9, 17, 33, 65, 129)
"""Words a row: 1, 2, 3-4, 5-8, ... 129 and more."""
FERTILITY_EDGES = tuple(round(1 + 0.2 * i, 1) for i in range(16))
"""Tokens a word of a row: from 1 to 4 and more."""


class Sample:
    """At most SAMPLES items, spread evenly over all that were offered, and the same in every run: those of lowest CRC-32."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Any]] = []
        self._offered = 0

    def offer(self, key: str, item: Any) -> None:
        """Takes the item if its key's CRC is among the lowest."""
        self._offered += 1
        rank = -crc32(key[:SAMPLE_CHARACTERS].encode("utf-8", "replace"))
        if len(self._heap) < SAMPLES:
            heapq.heappush(self._heap, (rank, self._offered, item))
        elif rank > self._heap[0][0]:
            heapq.heapreplace(self._heap, (rank, self._offered, item))

    def items(self) -> list[Any]:
        """The items in the order in which they were offered."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[1])]


class Watch:
    """Looks on while rows are cleaned."""

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.dropped: dict[str, Sample] = {}
        self.changed: dict[str, Sample] = {}

    def __call__(self, row: str, cleaned: Cleaned) -> None:
        """Counts a row, and keeps it as a sample if its turn comes."""
        if cleaned.whole:
            counts = count_languages(cleaned.whole)
            self.words.update(counts)
            self.rows[max(LANGUAGES, key=lambda language: counts[language]) if counts else "other"] += 1
        if cleaned.dropped:
            self.dropped.setdefault(cleaned.dropped, Sample()).offer(row, row)
            return
        for rule in cleaned.changed:
            self.changed.setdefault(rule, Sample()).offer(row, (row, cleaned.text))

    def languages(self) -> dict[str, dict[str, int]]:
        """Words by language, and rows by that of most of their words, of all rows read that hold text."""
        return {name: {k: counts[k] for k in LANGUAGES} for name, counts in (("words", self.words), ("rows", self.rows))}

    def dropped_samples(self) -> dict[str, list[str]]:
        """Rows as they were, by the reason for which they were dropped."""
        return {reason: shown(*sample.items()) for reason, sample in self.dropped.items()}

    def changed_samples(self) -> dict[str, list[list[str]]]:
        """[row as it was, row after cleaning] by the rule that changed it, among others."""
        return {rule: [shown(*texts) for texts in sample.items()] for rule, sample in self.changed.items()}


class WordCounter:
    """Counts words as rows pass through, in bounded memory: counts of frequent words are exact, or a little low."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._floor = 1

    def through(self, rows: Iterable[str]) -> Iterator[str]:
        """The same rows."""
        for row in rows:
            self.counts.update(row.split(" "))
            while len(self.counts) > MAX_COUNTED:
                self.counts = Counter({word: count for word, count in self.counts.items() if count > self._floor})
                self._floor += len(self.counts) > MAX_COUNTED // 2
            yield row

    def top(self) -> list[list[Any]]:
        """[word, count] of words with a letter, the most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return [list(item) for item in islice((item for item in ordered if has_letter(item[0])), TOP_WORDS)]


def histogram(values: np.ndarray, edges: tuple[float, ...]) -> list[int]:
    """How many values lie in [edge, next edge), the last bin being open; values below the first edge are in the first."""
    bins = np.maximum(np.searchsorted(np.asarray(edges), values, side="right") - 1, 0)
    return np.bincount(bins, minlength=len(edges)).tolist()


def shown(*texts: str) -> list[str]:
    """Texts short enough to be shown, with what names a person masked."""
    return [_cut(_masked(text[: 4 * SAMPLE_CHARACTERS])) for text in texts]  # masked before cut: half a number is none


def _masked(text: str) -> str:
    """Masked as it stands, if that hides all that cleaning would find once spaces are plain; else with plain spaces."""
    masked = mask_private(text)
    folded = fold_space(strip_invisible(masked))
    return masked if mask_private(folded) == folded else mask_private(fold_space(strip_invisible(text)))


def _cut(text: str) -> str:
    return text[:SAMPLE_CHARACTERS] + ("…" if len(text) > SAMPLE_CHARACTERS else "")
