"""What training disturbs, as pure functions of (configuration, step), drawn in numpy for both twins: the values that a step
drops, and the tokens that it reads in place of others."""

import math

import numpy as np

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.loader import Loader
from gpt_core.tokens import END_OF_TEXT_ID

Drawn = tuple[np.ndarray, dict[str, np.ndarray]]
"""A step's batch and what `drawn_at` draws for it."""

DROPOUT, TOKENS = 2, 3
"""Set these draws apart from those of the order of batches, (seed, epoch), and of packed rows, (seed, epoch, 1)."""


def drawn_at(step: int, batch: np.ndarray, config: GPTConfig, train: TrainConfig) -> dict[str, np.ndarray]:
    """What optimizer step `step` (0-based) draws for its whole batch (accumulation, B, T+1): the parts that it adds to those
    of `split_batch`, or replaces.

    `kept` (accumulation, B, P, T, C) bool with dropout, `idx` (accumulation, B, T) int32 with token noise.
    """
    drawn = {}
    if train.dropout:
        drawn["kept"] = kept_at(step, config, train)
    if train.token_noise:
        drawn["idx"] = read_at(step, batch, train)
    return drawn


def batch_at(step: int, loader: Loader, config: GPTConfig, train: TrainConfig) -> Drawn:
    """The batch of optimizer step `step` (0-based), (accumulation, B, T+1) int32, and what the step draws for it."""
    batch = loader.batch_at(step)
    return batch, drawn_at(step, batch, config, train)


def places(config: GPTConfig) -> int:
    """P, the places of a forward pass where values are dropped: the embedding, and each layer's attention and MLP."""
    return 1 + 2 * config.n_layer


def kept_at(step: int, config: GPTConfig, train: TrainConfig) -> np.ndarray:
    """Which values a step keeps, (accumulation, B, P, T, C) bool.

    Srivastava et al. 2014. A sequence's draws depend on (seed, step, its place in the step) alone, so that neither ranks nor
    the split into micro-batches change them.
    """
    limit = round(train.dropout * 2**16)  # of 16 bits each: as many random bytes as fast as possible
    shape = (places(config), config.block_size, config.n_embd)
    kept = np.empty((train.sequences_per_step, *shape), dtype=np.bool_)
    for place, of_sequence in enumerate(kept):
        generator = np.random.default_rng((train.seed, step, DROPOUT, place))
        raw = generator.bit_generator.random_raw(math.ceil(of_sequence.size / 4))  # as `integers`, in two thirds of the time
        drawn = raw.astype("<u8", copy=False).view("<u2")[: of_sequence.size].reshape(shape)
        np.greater_equal(drawn, limit, out=of_sequence)
    return kept.reshape(train.accumulation, train.micro_batch_size, *shape)


def read_at(step: int, batch: np.ndarray, train: TrainConfig) -> np.ndarray:
    """The tokens that a step reads, (accumulation, B, T) int32: those of its batch, a share of them replaced by others of it.

    Unigram noise (Xie et al. 2017), with the batch for the corpus. <|endoftext|> stays where it is and comes
    nowhere else: where rows begin is not in doubt. Which tokens are replaced depends on (seed, step, a sequence's place), as
    in `kept_at`, and what by on the whole batch of the step.
    """
    read = batch[..., :-1].astype(np.int32)
    words = read[read != END_OF_TEXT_ID]
    for place, sequence in enumerate(read.reshape(-1, read.shape[-1])):  # views
        generator = np.random.default_rng((train.seed, step, TOKENS, place))
        replaced = (generator.random(sequence.shape) < train.token_noise) & (sequence != END_OF_TEXT_ID)
        sequence[replaced] = generator.choice(words, replaced.sum()) if replaced.any() else sequence[replaced]
    return read
