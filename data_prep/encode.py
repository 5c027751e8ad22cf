"""Rows to tokens, spooled to disk, then cut into shards at row boundaries."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from gpt_core.dataset import TEST_FILE
from gpt_core.errors import InputError
from gpt_core.files import naming, sha256
from gpt_core.shards import write_shard
from gpt_core.tokens import END_OF_TEXT_ID

BATCH_ROWS = 1000
BATCH_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Counts:
    """Size of a split. Words are parted by spaces; bytes (UTF-8) and characters are of the rows without their ends;
    tokens include the <|endoftext|> before each row."""

    rows: int = 0
    words: int = 0
    bytes: int = 0
    characters: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Encoded:
    """A split as tokens on disk: uint16 tokens, and as int64 the number of tokens up to the end of each row."""

    tokens: Path
    row_ends: Path
    counts: Counts


def encode_rows(tokenizer: Tokenizer, rows: Iterable[str], tokens: Path, row_ends: Path) -> Encoded:
    """Writes <|endoftext|> and the tokens of each row to `tokens`, and where each row ends to `row_ends`."""
    count = dict.fromkeys(asdict(Counts()), 0)
    with naming(tokens), open(tokens, "wb") as token_file, open(row_ends, "wb") as end_file:
        for batch in batches(rows):
            ids = [[END_OF_TEXT_ID, *encoding.ids] for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
            ends = count["tokens"] + np.cumsum([len(row) for row in ids], dtype=np.int64)
            token_file.write(np.fromiter((i for row in ids for i in row), dtype="<u2").tobytes())
            end_file.write(ends.tobytes())
            count["rows"] += len(batch)
            count["words"] += sum(len(row.split()) for row in batch)
            count["bytes"] += sum(len(row.encode("utf-8")) for row in batch)
            count["characters"] += sum(map(len, batch))
            count["tokens"] = int(ends[-1])
    return Encoded(tokens, row_ends, Counts(**count))


def batches(rows: Iterable[str]) -> Iterator[list[str]]:
    """Lists of up to BATCH_ROWS rows, ended early by a batch of BATCH_CHARACTERS, since rows may be long."""
    batch: list[str] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row)
        if len(batch) == BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def shard_counts(shards: int, val_fraction: float) -> dict[str, int]:
    """How many of `shards` >= 2 shards go to each split: 20 at 0.1 -> 18 for training and 2 for validation."""
    val = max(1, round(shards * val_fraction))
    return {"train": shards - val, "val": val}


def cut_points(row_ends: np.ndarray, shards: int) -> np.ndarray:
    """(shards + 1,) token offsets from 0 to the end, each the row boundary nearest to an equal share.

    Raises InputError where two of them meet, that is where a shard would be empty.
    """
    total = int(row_ends[-1])
    shares = total * np.arange(1, shards, dtype=np.int64) // shards
    after = np.searchsorted(row_ends, shares)
    above = row_ends[after]
    below = np.where(after > 0, row_ends[np.maximum(after - 1, 0)], 0)
    inner = np.where(shares - below < above - shares, below, above)
    cuts = np.concatenate([[0], inner, [total]]).astype(np.int64)
    if np.any(np.diff(cuts) <= 0):
        raise InputError(
            f"--shards leaves an empty shard: a split of {len(row_ends)} rows was to fill {shards}; lower --shards"
        )
    return cuts


def write_shards(encoded: Encoded, split: str, shards: int, folder: Path) -> list[dict[str, Any]]:
    """Cuts a split into darija_<split>_000.bin, ... in `folder` and returns their manifest entries."""
    tokens = np.memmap(encoded.tokens, dtype="<u2", mode="r")
    cuts = cut_points(np.memmap(encoded.row_ends, dtype=np.int64, mode="r"), shards)
    entries = []
    for index, (start, end) in enumerate(pairwise(cuts)):
        path = folder / f"darija_{split}_{index:03d}.bin"
        write_shard(path, tokens[start:end])
        entries.append({"file": path.name, "split": split, "tokens": int(end - start), "sha256": sha256(path)})
    return entries


def write_test(encoded: Encoded, folder: Path) -> dict[str, Any]:
    """Writes the test split, one shard in a folder of its own, and returns its manifest entry."""
    path = folder / TEST_FILE
    path.parent.mkdir()
    write_shard(path, np.memmap(encoded.tokens, dtype="<u2", mode="r"))
    return {"file": TEST_FILE, "tokens": encoded.counts.tokens, "sha256": sha256(path)}
