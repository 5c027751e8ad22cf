"""Dropout as a pure function of (configuration, step): which values a step keeps, drawn in numpy for both twins."""

import numpy as np

from gpt_core.config import GPTConfig, TrainConfig

STREAM = 2
"""Sets these draws apart from those of the order of batches, (seed, epoch), and of packed rows, (seed, epoch, 1)."""


def places(config: GPTConfig) -> int:
    """P, the places of a forward pass where values are dropped: the embedding, and each layer's attention and MLP."""
    return 1 + 2 * config.n_layer


def kept_at(step: int, config: GPTConfig, train: TrainConfig) -> np.ndarray | None:
    """Which values optimizer step `step` (0-based) keeps, (accumulation, B, P, T, C) bool; None without dropout.

    Srivastava et al. 2014. A sequence's draws depend on (seed, step, its place in the step) alone, so that neither ranks nor
    the split into micro-batches change them.
    """
    if not train.dropout:
        return None
    limit = round(train.dropout * 2**16)  # of 16 bits each: as many random bytes as fast as possible
    shape = (places(config), config.block_size, config.n_embd)
    drawn = [
        np.random.default_rng((train.seed, step, STREAM, place)).integers(0, 2**16, shape, dtype=np.uint16) >= limit
        for place in range(train.sequences_per_step)
    ]
    return np.stack(drawn).reshape(train.accumulation, train.micro_batch_size, *shape)
