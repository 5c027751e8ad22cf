"""Token shards in the llm.c format: 256 little-endian int32 (magic, version, token count, zeros), then uint16 tokens."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt_core.errors import InputError
from gpt_core.files import naming

MAGIC = 20240520
VERSION = 1
HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Writes `tokens` (n,) uint16 as one shard."""
    if tokens.dtype != np.uint16:
        raise TypeError(f"a shard holds uint16 tokens, not {tokens.dtype}")
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    with naming(path), open(path, "wb") as file:
        file.write(header.tobytes())
        file.write(tokens.astype("<u2", copy=False).tobytes())


def read_shard(path: Path) -> np.ndarray:
    """The tokens of one shard, (n,) uint16, mapped from disk. Raises InputError for anything but a whole shard."""
    remedy = "make the data again with python -m data_prep"
    if not path.is_file():
        raise InputError(f"{path} is missing: {remedy}")
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise InputError(f"{path} has {size} bytes, less than the {HEADER_BYTES} of a shard's header: {remedy}")
    magic, version, count = (int(n) for n in np.fromfile(path, dtype="<i4", count=3))
    if magic != MAGIC:
        raise InputError(f"{path} starts with {magic}, not the shard magic {MAGIC}: it is no token shard; {remedy}")
    if version != VERSION:
        raise InputError(f"{path} is a shard of version {version}, expected {VERSION}: {remedy}")
    if count < 0 or size != HEADER_BYTES + 2 * count:
        raise InputError(f"{path} announces {count} tokens but holds {(size - HEADER_BYTES) / 2:g}: truncated? {remedy}")
    if count == 0:
        return np.empty(0, dtype=np.uint16)
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,))


class TokenStream:
    """Shards read as one long sequence of tokens; only the pages that are asked for are read from disk."""

    def __init__(self, shards: Sequence[np.ndarray]):
        self._shards = list(shards)
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens [start, start + count) as (count,) int32; the range may cross shards but must lie inside the stream."""
        if start < 0 or count < 0 or start + count > len(self):
            raise IndexError(f"tokens [{start}, {start + count}) are outside a stream of {len(self)}")
        pieces = []
        index = int(np.searchsorted(self._ends, start, side="right"))
        while count > 0:
            shard = self._shards[index]
            first = start - (int(self._ends[index]) - len(shard))
            piece = shard[first : first + count]
            pieces.append(piece)
            start, count, index = start + len(piece), count - len(piece), index + 1
        return np.concatenate(pieces).astype(np.int32) if pieces else np.empty(0, dtype=np.int32)
