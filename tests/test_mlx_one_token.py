"""One new token as a compiled graph: the same logits as the model's own pass, one graph for many tokens, the weights of now."""

from collections.abc import Iterator
from typing import Any

import mlx_gpt  # noqa: F401  # isort: skip
import mlx.core as mx
import numpy as np
import pytest
from twins import CONFIG, fresh, mlx_twin, scaled_up

from gpt_core.config import GPTConfig
from gpt_core.init import initial_weights
from mlx_gpt import one_token
from mlx_gpt.generate import make_forward
from mlx_gpt.model import GPT, KVCache
from mlx_gpt.one_token import Places, make_one_token
from mlx_gpt.state import load_weights

# Largest difference from the model's own pass, over the largest logit, at all lengths of both models: 8.0e-7, compiled or not.
TOLERANCE = 5e-6

QWEN = GPTConfig(97, 24, 2, 3, 24, positions="rope", norm="rmsnorm", qk_norm=True, mlp="swiglu", bias=False)
TOKENS = [int(token) for token in np.random.default_rng(0).integers(0, 97, CONFIG.block_size)]


def opened(config: GPTConfig) -> GPT:
    model = GPT(config)
    load_weights(model, scaled_up(initial_weights(config, 3)))
    return model


def after(model: GPT, tokens: list[int]) -> np.ndarray:
    """Logits after the last token, without a cache."""
    return np.array(model(mx.array([tokens]))[0, -1])


def close(found: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.abs(found - right).max() < TOLERANCE * np.abs(right).max())


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of keys in each graph that is compiled for one token. Its kernels take 5 s to build the first time."""
    seen: list[int] = []
    mx.enable_compile()

    class Spy(Places):
        def __init__(self, length: mx.array, seen_BTS: mx.array, *buffers: Any):
            seen.append(seen_BTS.shape[2])
            super().__init__(length, seen_BTS, *buffers)

    monkeypatch.setattr(one_token, "Places", Spy)
    yield seen
    mx.disable_compile()


@pytest.mark.parametrize("config", [CONFIG, QWEN], ids=["gpt2", "qwen"])
def test_the_logits_at_every_length_from_one_graph_for_each_stride(
    config: GPTConfig, traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_token, "STRIDE", 7)
    model = opened(config)
    forward = make_forward(model)
    logits, cache = forward(TOKENS[:3], None)
    for position in range(3, config.block_size):
        assert close(logits, after(model, TOKENS[:position]))
        logits, cache = forward([TOKENS[position]], cache)
    assert close(logits, after(model, TOKENS)) and cache.length == config.block_size == 24
    assert traced == [7, 14, 21, 24]


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_key_too_few_or_too_many_is_seen(monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    """Negative control: a mask that ends one key early or late."""

    class Wrong(Places):
        def __init__(self, length: mx.array, seen_BTS: mx.array, *buffers: Any):
            super().__init__(length, mx.roll(seen_BTS, shift, 2), *buffers)

    monkeypatch.setattr(one_token, "Places", Wrong)
    model = opened(CONFIG)
    forward = make_forward(model)
    _, cache = forward(TOKENS[:5], None)
    for buffers in (cache.keys, cache.values):  # what stands in places that do not count yet
        buffers[0][:, :, 6:] = 1.0
    logits, _ = forward([TOKENS[5]], cache)
    assert not close(logits, after(model, TOKENS[:6]))


def test_what_stands_behind_the_tokens_does_not_count() -> None:
    model = opened(CONFIG)
    forward = make_forward(model)
    _, cache = forward(TOKENS[:5], None)
    for buffers in (*cache.keys, *cache.values):
        buffers[:, :, 6:] = 1e3
    assert close(forward([TOKENS[5]], cache)[0], after(model, TOKENS[:6]))


def address(values: mx.array) -> int:
    """Where the values lie; the view of numpy, which would keep them alive, is gone on return."""
    return int(np.asarray(values).__array_interface__["data"][0])


def test_a_token_is_written_in_place(traced: list[int]) -> None:
    """A copy of all buffers for each token would cost what the graph saves."""
    forward = make_forward(opened(CONFIG))
    _, cache = forward(TOKENS[:4], None)
    before = [address(values) for values in (*cache.keys, *cache.values)]
    for token in TOKENS[4:9]:
        _, cache = forward([token], cache)
        assert [address(values) for values in (*cache.keys, *cache.values)] == before
    kept = [*cache.keys]  # negative control: who holds the old values gets new ones beside them
    _, cache = forward([TOKENS[9]], cache)
    assert all(address(new) != address(old) for new, old in zip(cache.keys, kept, strict=True)) and len(traced) == 1


def test_two_texts_at_once_and_another_beginning(traced: list[int]) -> None:
    """A cache is the text's own: the graph holds none."""
    model = opened(CONFIG)
    forward = make_forward(model)
    other = TOKENS[::-1]
    caches = [forward(tokens[:4], None)[1] for tokens in (TOKENS, other)]
    for position in range(4, 9):
        for index, tokens in enumerate((TOKENS, other)):
            logits, caches[index] = forward([tokens[position]], caches[index])
            assert close(logits, after(model, tokens[: position + 1]))
    assert len(traced) == 1


def test_several_sequences() -> None:
    model = opened(CONFIG)
    cache, idx = KVCache(CONFIG.block_size), np.array([TOKENS[:6], TOKENS[6:12]])
    model(mx.array(idx[:, :5]), cache)
    found = np.array(make_one_token(model)(mx.array(idx[:, 5:]), cache))
    assert found.shape == (2, 1, 97)
    assert all(close(found[row, 0], after(model, idx[row].tolist())) for row in range(2))


def test_weights_that_change_are_read_anew(traced: list[int]) -> None:
    twin = mlx_twin(fresh())
    forward = make_forward(twin.model)
    _, cache = forward(TOKENS[:4], None)
    before, _ = forward([TOKENS[4]], cache)
    assert close(before, after(twin.model, TOKENS[:5]))
    load_weights(twin.model, scaled_up(fresh()))
    _, cache = forward(TOKENS[:4], None)
    found, _ = forward([TOKENS[4]], cache)
    assert close(found, after(twin.model, TOKENS[:5])) and not close(found, before) and len(traced) == 1


def test_half_precision() -> None:
    """No difference was measured; one rounding to bfloat16 may be 0.004."""
    model = GPT(CONFIG, mx.bfloat16)
    load_weights(model, scaled_up(fresh()))
    forward = make_forward(model)
    _, cache = forward(TOKENS[:5], None)
    found, right = forward([TOKENS[5]], cache)[0], after(model, TOKENS[:6])
    assert cache.keys[0].dtype == mx.bfloat16 and np.abs(found - right).max() < 0.01 * np.abs(right).max()


def test_without_a_compiler() -> None:
    """As the other tests run, and as a machine without one does."""
    model = opened(QWEN)
    forward = make_forward(model)
    logits, cache = forward(TOKENS[:3], None)
    for position in range(3, 9):
        logits, cache = forward([TOKENS[position]], cache)
        assert close(logits, after(model, TOKENS[: position + 1]))
