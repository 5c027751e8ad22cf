"""Rows of a token stream: where they start, and one by one."""

import numpy as np

from gpt_core.shards import TokenStream
from gpt_core.tokens import END_OF_TEXT_ID


def row_starts(tokens: TokenStream) -> np.ndarray:
    """Positions of <|endoftext|>, (rows,) int64: every row starts with it."""
    chunk = 1 << 20
    found = [
        start + np.flatnonzero(tokens.read(start, min(chunk, len(tokens) - start)) == END_OF_TEXT_ID)
        for start in range(0, len(tokens), chunk)
    ]
    return np.concatenate(found).astype(np.int64)


def read_row(tokens: TokenStream, starts: np.ndarray, row: int) -> np.ndarray:
    """<|endoftext|>, the tokens of a row, <|endoftext|>, as (n + 2,) int32: the last one is there to be predicted."""
    end = int(starts[row + 1]) if row + 1 < len(starts) else len(tokens)
    return np.append(tokens.read(int(starts[row]), end - int(starts[row])), np.int32(END_OF_TEXT_ID))
