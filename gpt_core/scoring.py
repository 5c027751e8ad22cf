"""The metric: bits per byte of rows, each scored alone, and of the packed stream. Frameworks only supply nats a token."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpt_core.shards import TokenStream
from gpt_core.tokens import TokenTable

TokenNats = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(inputs, targets), each (B, T) int32 -> -ln p of each target, (B, T) float32."""

SCRIPTS = ("arabic", "latin", "other")


@dataclass(frozen=True)
class Score:
    """Sums over targets; the ratios below are what is reported."""

    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0
    characters: int = 0
    rows: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.rows + other.rows,
        )

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits a UTF-8 byte, the end of a row counting as one byte."""
        return self.nats / math.log(2) / self.bytes

    @property
    def bits_per_character(self) -> float:
        """Bits a character, the end of a row counting as one character."""
        return self.nats / math.log(2) / self.characters


@dataclass(frozen=True)
class Windows:
    """A batch to score. `owner` is the row that a target belongs to, or -1 where nothing is to be scored."""

    inputs: np.ndarray
    targets: np.ndarray
    owner: np.ndarray = field(repr=False)


def row_windows(rows: Iterator[np.ndarray], block_size: int, tokens_per_batch: int) -> Iterator[Windows]:
    """Batches in which every target of every row stands exactly once, each row alone and from position 0.

    A row longer than the context is scored in windows that overlap by half, so that no target but the first ones has
    less than half a context before it. Widths are powers of two: few shapes, hence few compilations.
    """
    waiting: dict[int, list[tuple[int, np.ndarray, int]]] = {}
    for index, row in enumerate(rows):
        stride = max(1, block_size // 2)
        scored = 0
        while scored < len(row) - 1:
            start = 0 if scored == 0 else max(0, scored - (block_size - stride))
            piece = row[start : start + block_size + 1]
            width = min(block_size, max(16, 1 << (len(piece) - 2).bit_length()))
            group = waiting.setdefault(width, [])
            group.append((index, piece, scored - start))
            scored = start + len(piece) - 1
            if len(group) == max(1, tokens_per_batch // width):
                yield _pad(waiting.pop(width), width, tokens_per_batch)
    for width, group in waiting.items():
        yield _pad(group, width, tokens_per_batch)


def stream_windows(tokens: TokenStream, block_size: int, batch_size: int) -> Iterator[Windows]:
    """Batches of packed windows in which every token but the first is a target exactly once."""
    pieces = []
    for start in range(0, len(tokens) - 1, block_size):
        pieces.append((0, tokens.read(start, min(block_size + 1, len(tokens) - start)), 0))
        if len(pieces) == batch_size:
            yield _pad(pieces, block_size, batch_size * block_size)
            pieces = []
    if pieces:
        yield _pad(pieces, block_size, batch_size * block_size)


def _pad(pieces: list[tuple[int, np.ndarray, int]], width: int, tokens_per_batch: int) -> Windows:
    shape = (max(1, tokens_per_batch // width), width)
    inputs, targets = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=np.int32)
    owner = np.full(shape, -1, dtype=np.int64)
    for line, (index, piece, skip) in enumerate(pieces):
        length = len(piece) - 1
        inputs[line, :length], targets[line, :length] = piece[:-1], piece[1:]
        owner[line, skip:length] = index
    return Windows(inputs, targets, owner)


def averaged(members: Sequence[TokenNats]) -> TokenNats:
    """The scoring function of an ensemble: -ln of the mean of its members' probabilities."""

    def token_nats(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        nats = np.stack([member(inputs, targets) for member in members])
        least = nats.min(axis=0)
        return least - np.log(np.exp(least - nats).mean(axis=0))

    return members[0] if len(members) == 1 else token_nats


def score(batches: Iterator[Windows], token_nats: TokenNats, table: TokenTable) -> Score:
    """Sums over all targets that have an owner."""
    total = Score()
    for batch in batches:
        counted = batch.owner >= 0
        nats = token_nats(batch.inputs, batch.targets)[counted].sum(dtype=np.float64)
        total += _score_of(batch.targets[counted], float(nats), table)
    return total


def score_rows(rows: list[np.ndarray], block_size: int, tokens_per_batch: int, token_nats: TokenNats) -> np.ndarray:
    """-ln p of each row and its end, (rows,) float64."""
    nats = np.zeros(len(rows))
    for batch in row_windows(iter(rows), block_size, tokens_per_batch):
        counted = batch.owner >= 0
        np.add.at(nats, batch.owner[counted], token_nats(batch.inputs, batch.targets)[counted].astype(np.float64))
    return nats


def script_of(row: np.ndarray, table: TokenTable) -> str:
    """The script of most letters of a row: "arabic", "latin", or "other" for none or a tie."""
    difference = int(table.arabic_letters[row].sum()) - int(table.latin_letters[row].sum())
    return "arabic" if difference > 0 else "latin" if difference < 0 else "other"


def sum_rows(rows: list[np.ndarray], nats: np.ndarray, table: TokenTable) -> Score:
    """The score of rows whose nats are known."""
    targets = np.concatenate([row[1:] for row in rows]) if rows else np.empty(0, dtype=np.int32)
    return _score_of(targets, float(nats.sum()), table, len(rows))


def _score_of(targets: np.ndarray, nats: float, table: TokenTable, rows: int = 0) -> Score:
    return Score(nats, len(targets), int(table.bytes[targets].sum()), int(table.characters[targets].sum()), rows)
