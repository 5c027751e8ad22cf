"""Batches as a pure function of (tokens, configuration, step): resuming needs no iterator state."""

import numpy as np

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.shards import TokenStream


class Loader:
    """Cuts a stream into windows of T+1 tokens that overlap by one, and deals them out in a new order every epoch."""

    def __init__(self, tokens: TokenStream, config: GPTConfig, train: TrainConfig):
        self._tokens = tokens
        self._T = config.block_size
        self._train = train
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        self.windows = (len(tokens) - 1) // self._T
        self.steps_per_epoch = self.windows // train.sequences_per_step
        if self.steps_per_epoch == 0:
            raise InputError(
                f"--micro-batch-size {train.micro_batch_size} x --accumulation {train.accumulation} x --block-size "
                f"{self._T} needs {train.sequences_per_step * self._T + 1} training tokens, the data has {len(tokens)}: "
                "lower one of them or prepare more rows"
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
        batch = np.stack([self._tokens.read(int(window) * self._T, self._T + 1) for window in chosen])
        return batch.reshape(self._train.accumulation, self._train.micro_batch_size, self._T + 1)

    def _order_of(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self._train.seed, epoch)).permutation(self.windows))
        return self._order[1]


def spread_windows(tokens: TokenStream, block_size: int, count: int) -> np.ndarray:
    """At most `count` windows spread evenly over a stream, (n, T+1) int32: the same ones at every validation."""
    windows = (len(tokens) - 1) // block_size
    if windows == 0:
        raise InputError(f"--block-size {block_size} is longer than the validation split of {len(tokens)} tokens: lower it")
    chosen = np.unique(np.linspace(0, windows - 1, num=min(count, windows)).round().astype(np.int64))
    return np.stack([tokens.read(int(window) * block_size, block_size + 1) for window in chosen])
