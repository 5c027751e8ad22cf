"""Dropout's draws and token noise: functions of (seed, step, place), whatever the split of a step, and of the right share."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.noise import drawn_at, kept_at, places, read_at
from gpt_core.packing import split_batch
from gpt_core.ranks import Ranks
from gpt_core.tokens import END_OF_TEXT_ID

MODEL = GPTConfig(vocab_size=97, block_size=24, n_layer=3, n_head=3, n_embd=48)
NOISY = TrainConfig(micro_batch_size=3, accumulation=2, dropout=0.3, token_noise=0.2)


def batch(seed: int = 0, sequences: int = 6, block_size: int = MODEL.block_size) -> np.ndarray:
    """A step's tokens (2, sequences / 2, T+1), a tenth of them <|endoftext|>."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, MODEL.vocab_size, (2, sequences // 2, block_size + 1), dtype=np.int32)
    tokens[generator.random(tokens.shape) < 0.1] = END_OF_TEXT_ID
    return tokens


def test_dropout_is_a_function_of_seed_step_and_place() -> None:
    kept = kept_at(7, MODEL, NOISY)
    assert kept.shape == (2, 3, places(MODEL), MODEL.block_size, MODEL.n_embd) and kept.dtype == bool
    deviation = np.sqrt(0.3 * 0.7 / kept.size)
    assert abs(kept.mean() - 0.7) < 5 * deviation
    resplit = kept_at(7, MODEL, dataclasses.replace(NOISY, micro_batch_size=1, accumulation=6))
    np.testing.assert_array_equal(resplit.reshape(kept.shape), kept)
    assert len({sequence.tobytes() for sequence in resplit}) == 6
    for step, train in ((8, NOISY), (7, dataclasses.replace(NOISY, seed=1))):
        assert abs((kept_at(step, MODEL, train) == kept).mean() - (0.7**2 + 0.3**2)) < 0.01


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.floats(0.001, 0.999))
def test_dropout_is_what_numpy_draws_as_16_bits(n_layer: int, block_size: int, n_embd: int, dropout: float) -> None:
    """Sizes that no 64 bits divide among them: 3 x 1 x 1 to 7 x 5 x 7 values."""
    config = GPTConfig(vocab_size=97, block_size=block_size, n_layer=n_layer, n_head=1, n_embd=n_embd)
    kept = kept_at(7, config, TrainConfig(micro_batch_size=2, accumulation=1, dropout=dropout))
    for place in range(2):
        generator = np.random.default_rng((1337, 7, 2, place))
        drawn = generator.integers(0, 2**16, kept.shape[2:], dtype=np.uint16)
        np.testing.assert_array_equal(kept[0, place], drawn >= round(dropout * 2**16))


def test_noise_is_a_function_of_seed_step_and_place() -> None:
    tokens = batch()
    read = read_at(7, tokens, NOISY)
    resplit = read_at(7, tokens.reshape(6, 1, -1), dataclasses.replace(NOISY, micro_batch_size=1, accumulation=6))
    np.testing.assert_array_equal(resplit.reshape(read.shape), read)
    for step, train in ((8, NOISY), (7, dataclasses.replace(NOISY, seed=1))):
        assert (read_at(step, tokens, train) != read).any()
    for rank in range(2):  # a rank's part of what is drawn goes with its part of the batch
        part = Ranks(rank=rank, size=2).part
        np.testing.assert_array_equal(part(read), read[rank : rank + 1])
        np.testing.assert_array_equal(part(tokens), tokens[rank : rank + 1])


def test_the_share_and_the_frequencies_are_right() -> None:
    """Of 60,000 words a share is replaced, by words as frequent as in the batch; what is counted has a known spread."""
    tokens = np.random.default_rng(3).choice([1, 2, 3, END_OF_TEXT_ID], (1, 60, 1001), p=[0.6, 0.2, 0.1, 0.1]).astype(np.int32)
    train = TrainConfig(micro_batch_size=60, accumulation=1, token_noise=0.25)
    inputs, read = tokens[..., :-1], read_at(0, tokens, train)
    words = inputs != END_OF_TEXT_ID
    share = {word: (inputs[words] == word).mean() for word in (1, 2, 3)}
    for word in (1, 2, 3):  # a replaced word is the same one again with its share
        here = inputs == word
        changes = 0.25 * (1 - share[word])
        spread = np.sqrt(changes * (1 - changes) / here.sum())
        assert abs((read[here] != word).mean() - changes) < 5 * spread
        assert abs((read[words] == word).mean() - share[word]) < 0.01  # frequencies stay


@given(seed=st.integers(0, 99), step=st.integers(0, 10**6), rate=st.floats(0.01, 0.99), sequences=st.sampled_from([2, 4, 10]))
@settings(max_examples=40, deadline=None)
def test_rows_stay_where_they_are(seed: int, step: int, rate: float, sequences: int) -> None:
    """Only words are replaced, and only by words of the step; the batch itself stays as it was."""
    tokens = batch(seed, sequences)
    before = tokens.copy()
    train = TrainConfig(micro_batch_size=sequences // 2, accumulation=2, token_noise=rate, document_mask=True)
    drawn = drawn_at(step, tokens, MODEL, train)
    parts, _ = split_batch(tokens, True)
    assert set(drawn) == {"idx"} and drawn["idx"].shape == parts["idx"].shape and drawn["idx"].dtype == np.int32
    np.testing.assert_array_equal(drawn["idx"] == END_OF_TEXT_ID, parts["idx"] == END_OF_TEXT_ID)
    assert np.isin(drawn["idx"], parts["idx"]).all()
    np.testing.assert_array_equal(tokens, before)


def test_nothing_is_drawn_without_noise_and_padding_stays_padding() -> None:
    assert drawn_at(3, batch(), MODEL, TrainConfig(micro_batch_size=3)) == {}
    assert set(drawn_at(3, batch(), MODEL, NOISY)) == {"kept", "idx"}
    padding = np.full((2, 3, MODEL.block_size + 1), END_OF_TEXT_ID, dtype=np.int32)
    np.testing.assert_array_equal(read_at(0, padding, NOISY), padding[..., :-1])
