"""Batches: every window once an epoch, the same ones however they are asked for."""

from typing import Any

import numpy as np
import pytest
from helpers import stream_of
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.loader import Loader, spread_windows


def config(block_size: int) -> GPTConfig:
    return GPTConfig(vocab_size=65_536, block_size=block_size, n_layer=1, n_head=1, n_embd=8)


def make(tokens: int, T: int, B: int = 1, accumulation: int = 1, **train: Any) -> Loader:
    """A loader over the tokens 0, 1, 2...: a token is its own position. Two shards, cut at a third."""
    stream = stream_of(range(tokens // 3), range(tokens // 3, tokens))
    return Loader(stream, config(T), TrainConfig(micro_batch_size=B, accumulation=accumulation, **train))


def starts(loader: Loader, steps: range) -> list[int]:
    """Positions of the windows of some steps, in order."""
    return [int(start) for step in steps for start in loader.batch_at(step)[..., 0].flat]


def test_every_window_once_an_epoch_and_in_another_order_in_the_next():
    # 30 windows of 7 from 211 tokens: starts 0, 7 ... 203; B x accumulation = 6, so 5 steps leave none out
    loader = make(211, 7, B=2, accumulation=3)
    assert (loader.sequences, loader.steps_per_epoch) == (30, 5)
    first, second = starts(loader, range(5)), starts(loader, range(5, 10))
    assert sorted(first) == sorted(second) == list(range(0, 210, 7))
    assert first != second and first != sorted(first)


def test_windows_that_do_not_fill_a_step_wait_for_another_epoch():
    loader = make(211, 7, B=4, accumulation=2)  # 30 windows, 8 a step: 3 steps hold 24 of them
    epochs = [starts(loader, range(3 * epoch, 3 * epoch + 3)) for epoch in range(12)]
    assert loader.steps_per_epoch == 3 and all(len(set(epoch)) == 24 for epoch in epochs)
    # left out of all 12 epochs: each window with probability 0.2^12 = 4e-9
    assert {start for epoch in epochs for start in epoch} == set(range(0, 210, 7))


@given(st.integers(2, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 200), st.integers(0, 2**32))
def test_one_epoch_holds_no_window_twice(T, B, accumulation, extra, seed):
    loader = make(T * B * accumulation + 1 + extra, T, B, accumulation, seed=seed)
    found = starts(loader, range(loader.steps_per_epoch))
    assert len(found) == len(set(found)) == loader.steps_per_epoch * B * accumulation
    assert all(start % T == 0 and 0 <= start <= loader.sequences * T - T for start in found)


def test_targets_are_inputs_shifted_by_one():
    batch = make(100, 5, B=2, accumulation=3).batch_at(1)
    assert batch.shape == (3, 2, 6) and batch.dtype == np.int32
    assert (batch[..., 1:] == batch[..., :-1] + 1).all()


def test_the_windows_cover_every_target_once():
    """Windows overlap by one token: it is the last target of one and the first input of the next."""
    loader = make(41, 8, B=5)
    targets = loader.batch_at(0)[..., 1:]
    assert sorted(targets.flat) == list(range(1, 41))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_a_batch_depends_on_its_step_alone(steps):
    one = make(211, 7, B=2, accumulation=3)
    for step in steps:  # in any order, across epochs, again
        fresh = make(211, 7, B=2, accumulation=3)
        assert (one.batch_at(step) == fresh.batch_at(step)).all()


def test_accumulation_does_not_change_the_sequences_of_a_step():
    loaders = [make(211, 7, B=B, accumulation=4 // B) for B in (4, 2, 1)]
    assert [loader.batch_at(0).shape for loader in loaders] == [(1, 4, 8), (2, 2, 8), (4, 1, 8)]
    for step in (0, 6, 7, 20):
        flat = [loader.batch_at(step).reshape(4, 8) for loader in loaders]
        assert (flat[0] == flat[1]).all() and (flat[0] == flat[2]).all()


def test_another_seed_is_another_order():
    orders = [starts(make(211, 7, B=5, seed=seed), range(6)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])


def test_total_steps():
    assert make(211, 7, B=6, epochs=3).total_steps() == 15
    assert make(211, 7, B=6, epochs=3, steps=1000).total_steps() == 1000


def test_too_little_data_names_the_flags():
    make(61, 10, B=2, accumulation=3)  # just enough
    with pytest.raises(InputError) as error:
        make(60, 10, B=2, accumulation=3)
    for part in ("--micro-batch-size 2", "--accumulation 3", "6 sequences of --block-size 10", "the 60 training tokens make 5"):
        assert part in str(error.value)


def test_spread_windows_by_hand():
    stream = stream_of(range(58))  # 57 // 5 = 11 windows
    assert spread_windows(stream, 5, 3)[:, 0].tolist() == [0, 25, 50]
    assert (spread_windows(stream, 5, 3)[:, -1] == [5, 30, 55]).all()
    assert spread_windows(stream, 5, 99)[:, 0].tolist() == list(range(0, 55, 5))
    with pytest.raises(InputError, match="--block-size 58 is longer than the validation split of 58"):
        spread_windows(stream, 58, 1)
    assert spread_windows(stream, 57, 4).shape == (1, 58)


@given(st.integers(2, 400), st.integers(1, 9), st.integers(1, 50))
def test_spread_windows_are_distinct_and_reach_both_ends(tokens, T, count):
    windows = (tokens - 1) // T
    if windows:
        found = spread_windows(stream_of(range(tokens)), T, count)[:, 0] // T
        assert len(found) == len(set(found)) == min(count, windows)
        assert found[0] == 0 and (len(found) == 1 or found[-1] == windows - 1)
