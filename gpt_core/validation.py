"""The validation of a run: the same windows and the same rows every time, as long as its micro-batch stays as large."""

import numpy as np

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.dataset import Dataset
from gpt_core.loader import spread_windows
from gpt_core.rows import read_row, row_starts
from gpt_core.scoring import TokenNats, Windows, score, score_rows, sum_rows
from gpt_core.tokens import token_table


class Validation:
    """`val_batches` micro-batches of packed windows, and whole rows that hold about as many tokens."""

    def __init__(self, dataset: Dataset, config: GPTConfig, train: TrainConfig):
        B, T = train.micro_batch_size, config.block_size
        self._T, self._tokens_per_batch = T, B * T
        self._table = token_table(dataset.tokenizer)
        self._windows = spread_windows(dataset.val, T, train.val_batches * B)
        self._batch_size = B
        starts = row_starts(dataset.val)
        mean_length = len(dataset.val) / len(starts)
        count = min(len(starts), max(1, round(train.val_batches * B * T / mean_length)))
        chosen = np.unique(np.linspace(0, len(starts) - 1, num=count).round().astype(np.int64))
        self._rows = [read_row(dataset.val, starts, int(row)) for row in chosen]

    def measure(self, token_nats: TokenNats) -> dict[str, float]:
        """val_loss (nats a token) and val_bpb_stream of the windows, val_bpb of the rows."""
        B = self._batch_size
        batches = (
            Windows(window[:, :-1], window[:, 1:], np.zeros((len(window), self._T), dtype=np.int64))
            for window in np.split(self._windows, range(B, len(self._windows), B))
        )
        stream = score(batches, token_nats, self._table)
        nats = score_rows(self._rows, self._T, self._tokens_per_batch, token_nats)
        rows = sum_rows(self._rows, nats, self._table)
        return {"val_loss": stream.loss, "val_bpb": rows.bits_per_byte, "val_bpb_stream": stream.bits_per_byte}
