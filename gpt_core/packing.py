"""Rows packed whole into sequences, so that attention, positions and loss can respect where each begins and ends.

A packed sequence is nothing but T+1 tokens. A row begins where its <|endoftext|> stands, and where a sequence begins with
the rest of a row. The <|endoftext|> behind a row is both its last target and the first input of the next row. What is
left over is filled with <|endoftext|>: two in succession are padding, since a row without a token is never packed.
"""

import numpy as np

from gpt_core.rows import row_starts
from gpt_core.shards import TokenStream
from gpt_core.tokens import END_OF_TEXT_ID


def layout(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What packed tokens (..., T+1) say about their rows: the position of each input in its row, (..., T) int32, and
    whether a target counts, (..., T) bool: all but padding."""
    inputs, targets = tokens[..., :-1], tokens[..., 1:]
    index = np.arange(inputs.shape[-1], dtype=np.int32)
    first = np.maximum.accumulate(np.where(inputs == END_OF_TEXT_ID, index, 0), axis=-1)
    return index - first, (inputs != END_OF_TEXT_ID) | (targets != END_OF_TEXT_ID)


def split_batch(batch: np.ndarray, document_mask: bool) -> tuple[dict[str, np.ndarray], int]:
    """The parts of a batch (accumulation, B, T+1), each (accumulation, B, T), and how many targets count.

    `idx` and `targets`, int32; `counted`, 1 or 0, float32: whether a target counts; for packed rows `positions`, int32.
    """
    parts = {"idx": batch[..., :-1], "targets": batch[..., 1:]}
    if not document_mask:
        return parts | {"counted": np.ones(parts["targets"].shape, np.float32)}, parts["targets"].size
    positions, counted = layout(batch)
    return parts | {"positions": positions, "counted": counted.astype(np.float32)}, int(counted.sum())


def best_fit(sizes: np.ndarray, capacity: int, lines: int = 0, room: int = 0) -> np.ndarray:
    """The line that each row is put on, (n,) int64: the fullest one with room for it, else a new one.

    `sizes` (n,) are tokens of rows, 1 to `capacity`, in decreasing order: best-fit decreasing, as Krell et al. 2021 pack
    sequences. `lines` are in use already, of which the last one has `room` left.
    """
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    there = 0  # bit r: a line has room for exactly r tokens
    chosen = np.empty(len(sizes), dtype=np.int64)
    if room:
        with_room[room].append(lines - 1)
        there |= 1 << room
    for index, size in enumerate(sizes.tolist()):
        fitting = there >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            line = with_room[room].pop()
            there ^= 0 if with_room[room] else 1 << room
        else:
            room, line, lines = capacity, lines, lines + 1
        left = room - size
        with_room[left].append(line)
        there |= 1 << left
        chosen[index] = line
    return chosen


class PackedRows:
    """Sequences of T+1 tokens that hold every row of a stream once an epoch, with other neighbours in each.

    How many rows of which length share a sequence is the same in every epoch, and so is the number of sequences; which
    rows these are is drawn anew. Rows longer than T are laid end to end, first, and cut where a sequence ends; a piece
    that is not the first of its row starts at position 0 like a row. Rows without a token are left out.
    """

    def __init__(self, tokens: TokenStream, block_size: int, seed: int):
        starts = row_starts(tokens)
        sizes = np.diff(starts, append=len(tokens))  # <|endoftext|> and the tokens: as many inputs, and as many targets
        self._tokens, self._T, self._seed = tokens, block_size, seed
        self._starts, self._sizes = starts[sizes > 1], sizes[sizes > 1]
        self._long = np.flatnonzero(self._sizes > block_size)
        self._short = np.flatnonzero(self._sizes <= block_size)
        long_tokens = int(self._sizes[self._long].sum())
        self._long_lines = -(-long_tokens // block_size)
        room = self._long_lines * block_size - long_tokens
        lines = best_fit(np.sort(self._sizes[self._short])[::-1], block_size, self._long_lines, room)
        self.count = max(self._long_lines, int(lines.max(initial=-1)) + 1)
        """Sequences in an epoch."""
        self._slots = np.argsort(lines, kind="stable")
        self._ends = np.searchsorted(lines[self._slots], np.arange(self.count), side="right")
        self.padding = 1 - int(self._sizes.sum()) / max(1, self.count * block_size)
        """Share of the targets that are padding."""
        self._drawn: tuple[int, np.ndarray, np.ndarray, np.ndarray] = (-1, self._long, self._long, self._short)

    def read(self, epoch: int, line: int) -> np.ndarray:
        """Sequence `line` of an epoch, (T+1,) int32."""
        long, long_ends, short = self._draw(epoch)
        slots = self._slots[self._ends[line - 1] if line else 0 : self._ends[line]]
        pieces = self._pieces_of_long(long, long_ends, line)
        pieces += [(int(self._starts[row]), int(self._sizes[row])) for row in short[slots]]
        sequence = np.full(self._T + 1, END_OF_TEXT_ID, dtype=np.int32)
        joined = np.concatenate([self._tokens.read(start, count) for start, count in pieces])
        sequence[: len(joined)] = joined
        return sequence

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows of an epoch in its order: the long ones and where they end, the others from the longest down."""
        if self._drawn[0] != epoch:
            generator = np.random.default_rng((self._seed, epoch, 1))  # (seed, epoch) draws the order of the sequences
            long, short = generator.permutation(self._long), generator.permutation(self._short)
            falling = short[np.argsort(-self._sizes[short], kind="stable")]
            self._drawn = (epoch, long, np.cumsum(self._sizes[long]), falling)
        return self._drawn[1:]

    def _pieces_of_long(self, long: np.ndarray, ends: np.ndarray, line: int) -> list[tuple[int, int]]:
        """Start and count of the stretches that lie on a line, of long rows laid end to end."""
        position, pieces = line * self._T, []
        last = min(position + self._T + 1, int(ends[-1])) if len(ends) else 0
        while position < last:
            index = int(np.searchsorted(ends, position, side="right"))
            row = long[index]
            offset = position - int(ends[index] - self._sizes[row])
            count = min(int(self._sizes[row]) - offset, last - position)
            pieces.append((int(self._starts[row]) + offset, count))
            position += count
        return pieces
