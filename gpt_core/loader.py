"""Batches as a pure function of (tokens, configuration, step): resuming needs no iterator state."""

from typing import Protocol

import numpy as np

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.packing import PackedRows
from gpt_core.shards import TokenStream


class Sequences(Protocol):
    """What an epoch is dealt out of."""

    count: int
    """Sequences in an epoch, the same in each."""
    padding: float
    """Share of the targets that are padding, 0 to 1."""

    def read(self, epoch: int, line: int) -> np.ndarray:
        """Sequence `line` of an epoch, (T+1,) int32."""


class CutStream:
    """A stream cut every T tokens, wherever its rows end: sequences of T+1 tokens that overlap by one."""

    padding = 0.0

    def __init__(self, tokens: TokenStream, block_size: int):
        self._tokens, self._T = tokens, block_size
        self.count = (len(tokens) - 1) // block_size

    def read(self, epoch: int, line: int) -> np.ndarray:
        """Sequence `line`, (T+1,) int32, the same in every epoch."""
        return self._tokens.read(line * self._T, self._T + 1)


class Loader:
    """Deals the sequences of an epoch out in a new order every epoch; those that do not fill a step are left out of it."""

    def __init__(self, tokens: TokenStream, config: GPTConfig, train: TrainConfig):
        self._T = config.block_size
        self._train = train
        self._sequences: Sequences = (
            PackedRows(tokens, self._T, train.seed) if train.document_mask else CutStream(tokens, self._T)
        )
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        self.sequences = self._sequences.count
        self.padding = self._sequences.padding
        self.steps_per_epoch = self.sequences // train.sequences_per_step
        if self.steps_per_epoch == 0:
            raise InputError(
                f"--micro-batch-size {train.micro_batch_size} x --accumulation {train.accumulation} needs "
                f"{train.sequences_per_step} sequences of --block-size {self._T} tokens and one, the {len(tokens)} training "
                f"tokens make {self.sequences}: lower one of them or prepare more rows"
            )

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._train.steps or self._train.epochs * self.steps_per_epoch

    def batch_at(self, step: int) -> np.ndarray:
        """The batch of optimizer step `step` (0-based), (accumulation, B, T+1) int32; inputs are [..., :-1].

        How the sequences of a step are split into micro-batches does not change which sequences they are.
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        count = self._train.sequences_per_step
        chosen = self._order_of(epoch)[index * count : (index + 1) * count]
        batch = np.stack([self._sequences.read(epoch, int(line)) for line in chosen])
        return batch.reshape(self._train.accumulation, self._train.micro_batch_size, self._T + 1)

    def _order_of(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self._train.seed, epoch)).permutation(self.sequences))
        return self._order[1]


def spread_windows(tokens: TokenStream, block_size: int, count: int) -> np.ndarray:
    """At most `count` windows spread evenly over a stream, (n, T+1) int32: the same ones at every validation."""
    windows = (len(tokens) - 1) // block_size
    if windows == 0:
        raise InputError(f"--block-size {block_size} is longer than the validation split of {len(tokens)} tokens: lower it")
    chosen = np.unique(np.linspace(0, windows - 1, num=min(count, windows)).round().astype(np.int64))
    return np.stack([tokens.read(int(window) * block_size, block_size + 1) for window in chosen])
