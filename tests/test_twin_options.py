"""Every choice of the architecture in both twins: the same numbers, the contract's names, and mistakes that must be seen."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from test_twin_parity import FORWARD_TOLERANCE, worst
from twins import CONFIG, QWEN, TWINS, B, T, batch, float64_gradients, fresh, mlx_twin, mx, relative, scaled_up, torch_twin

import mlx_gpt.functional
import mlx_gpt.model
import torch_gpt.device
import torch_gpt.model
from gpt_core.config import DType, GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.generation import generate
from gpt_core.init import initial_weights
from gpt_core.names import parameter_count, parameters
from gpt_core.noise import drawn_at
from gpt_core.sampling import Sampling
from mlx_gpt.generate import make_forward as mlx_forward
from torch_gpt.generate import make_forward as torch_forward

OPTIONS: dict[str, GPTConfig] = {
    "positions": dataclasses.replace(CONFIG, positions="rope"),
    "norm": dataclasses.replace(CONFIG, norm="rmsnorm"),
    "qk_norm": dataclasses.replace(CONFIG, qk_norm=True),
    "mlp": dataclasses.replace(CONFIG, mlp="swiglu"),
    "bias": dataclasses.replace(CONFIG, bias=False),
    "qwen": QWEN,
}


def weights_of(config: GPTConfig, seed: int = 1) -> dict[str, np.ndarray]:
    """Weights of trained size; the scales of norms are all different, so that one forgotten or swapped is seen."""
    weights = scaled_up(initial_weights(config, seed))
    generator = np.random.default_rng(seed)
    norms = {p.name for p in parameters(config) if p.init is None}
    return {
        name: generator.uniform(0.5, 1.5, value.shape).astype(np.float32) if name in norms else value
        for name, value in weights.items()
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_parameters_are_those_of_the_contract_table(option: str) -> None:
    config = OPTIONS[option]
    expected = {parameter.name: parameter.shape for parameter in parameters(config)}
    for twin in TWINS.values():
        found = {key: value.shape for key, value in twin(fresh(config), config).weights().items()}
        assert found == expected
    assert sum(int(np.prod(shape)) for shape in expected.values()) == parameter_count(config)


def test_the_parameters_of_qwen_by_hand() -> None:
    """C = 48, D = 16, F = 8/3 C = 128: a layer has 4 C^2 + 3 C F + 2 C + 2 D, the rest is V C and the last norm."""
    assert QWEN.n_hidden == 128
    assert dataclasses.replace(QWEN, n_embd=54).n_hidden == 192  # 144, rounded up to a multiple of 64
    assert parameter_count(QWEN) == 3 * (4 * 48**2 + 3 * 48 * 128 + 2 * 48 + 2 * 16) + 97 * 48 + 48


@pytest.mark.parametrize("option", OPTIONS)
def test_logits_and_gradients_agree(option: str) -> None:
    config = OPTIONS[option]
    for seed in range(3):
        weights, tokens = weights_of(config, seed), batch(seed=seed)
        twins = [mlx_twin(weights, config), torch_twin(weights, config)]
        logits = [twin.logits(tokens[:, :-1]) for twin in twins]
        assert logits[0].shape == (B, T, CONFIG.vocab_size)
        assert relative(*logits) < FORWARD_TOLERANCE
        assert worst(*(twin.gradients(tokens)[1] for twin in twins)) < FORWARD_TOLERANCE


def test_gradients_agree_with_float64() -> None:
    weights, tokens = weights_of(QWEN), batch()
    expected = float64_gradients(weights, tokens, QWEN)
    for name in TWINS:
        assert worst(TWINS[name](weights, QWEN).gradients(tokens)[1], expected) < FORWARD_TOLERANCE


def test_rotation_by_hand() -> None:
    """D = 4: the pair (1, 0) at values 0 and 2 turns by p, the pair (0, 1) at values 1 and 3 by p / 100; here p = 5 and 6."""
    x = np.array([[[[1.0, 0.0, 0.0, 1.0]] * 2]], dtype=np.float32)
    p = np.array([5.0, 6.0])
    expected = np.stack([np.cos(p), -np.sin(p / 100), np.sin(p), np.cos(p / 100)], axis=1)
    rotations: list[tuple[Any, Any]] = [(mlx_gpt.model.rotate, mx.array), (torch_gpt.model.rotate, torch.from_numpy)]
    for rotate, convert in rotations:
        np.testing.assert_allclose(np.asarray(rotate(convert(x), 5))[0, 0], expected, atol=1e-6)


def test_scores_depend_on_distance_alone() -> None:
    """What RoPE is for; and it is why packed rows need no positions of their own."""
    generator = np.random.default_rng(0)
    q, k = (torch.from_numpy(generator.standard_normal((1, 2, 7, 16), dtype=np.float32)) for _ in range(2))
    near, far = (torch_gpt.model.rotate(q, first) @ torch_gpt.model.rotate(k, first).mT for first in (0, 40))
    assert relative(far.numpy(), near.numpy()) < 5e-6  # measured 2.7e-7; another first for the keys gives 0.44
    assert relative((torch_gpt.model.rotate(q, 0) @ torch_gpt.model.rotate(k, 1).mT).numpy(), near.numpy()) > 0.1


def interleaved(x_BHTD: Any, first: int) -> Any:
    """RoPE as GPT-NeoX does not lay it out: neighbours are pairs."""
    return mx.fast.rope(x_BHTD, x_BHTD.shape[3], traditional=True, base=10_000.0, scale=1.0, offset=first)


MISTAKES: dict[str, tuple[Any, str, Any]] = {
    "pairs of neighbours": (mlx_gpt.model, "rotate", interleaved),
    "no rotation": (mlx_gpt.model, "rotate", lambda x, first: x),
    "another base": (mlx_gpt.model, "ROPE_BASE", 500_000.0),
    "another epsilon": (mlx_gpt.model, "RMS_EPS", 1e-3),
    "a GELU as the gate": (mlx_gpt.functional, "silu", mlx_gpt.functional.gelu),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, tokens = weights_of(QWEN), batch()
    right = mlx_twin(weights, QWEN)
    logits, gradients = right.logits(tokens), right.gradients(tokens)[1]
    monkeypatch.setattr(*MISTAKES[mistake])
    wrong = mlx_twin(weights, QWEN)
    assert relative(wrong.logits(tokens), logits) > 10 * FORWARD_TOLERANCE
    assert worst(wrong.gradients(tokens)[1], gradients) > 10 * FORWARD_TOLERANCE


@pytest.mark.parametrize("name", ["mlx", "torch", "torch, autocast"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains(name: str, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step with dropout and token noise against float32. Measured, dropout alone: losses 1.6e-4, norms 3.2e-4."""
    monkeypatch.setattr(torch_gpt.device, "multiplies_bfloat16", lambda: name == "torch, autocast")
    make, found = TWINS[name.split(",")[0]], []
    for kind in ("float32", dtype):
        train = TrainConfig(dtype=kind, micro_batch_size=3, accumulation=2, dropout=0.1, token_noise=0.1)
        tokens = batch(QWEN, (2, 3, QWEN.block_size + 1))
        twin = make(weights_of(QWEN), QWEN, train)
        found.append(twin.train_step(tokens, 1e-3, drawn_at(0, tokens, QWEN, train)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3) and found[1][0] != found[0][0]
    assert found[1][1] == pytest.approx(found[0][1], rel=2e-3)


@pytest.mark.parametrize("name", TWINS)
def test_no_logit_sees_a_later_token(name: str) -> None:
    twin, tokens = TWINS[name](weights_of(QWEN), QWEN), batch(shape=(2, T))
    logits = twin.logits(tokens)
    other = tokens.copy()
    other[:, 7] = (other[:, 7] + 1) % QWEN.vocab_size
    found = twin.logits(other)
    np.testing.assert_array_equal(found[:, :7], logits[:, :7])
    assert np.abs(found[:, 7:] - logits[:, 7:]).max() > 1e-3


@pytest.mark.parametrize("name", TWINS)
def test_the_cache_changes_no_text(name: str) -> None:
    """Greedy continuation with the cache, against the whole text anew for every token."""
    twin, ids = TWINS[name](weights_of(QWEN), QWEN), [0, 5, 60, 7]
    forward = mlx_forward(twin.model) if name == "mlx" else torch_forward(twin.model, torch.device("cpu"))
    made = list(generate(forward, ids[1:], Sampling(temperature=0), 15, QWEN.vocab_size, QWEN.block_size, seed=0))
    assert len(made) > 3
    for token in made:
        logits = twin.logits(np.array([ids], dtype=np.int32))[0, -1]
        assert token == int(logits.argmax())
        ids.append(token)


def test_an_odd_head_cannot_rotate() -> None:
    with pytest.raises(InputError, match="--positions rope rotates pairs: --n-embd 15 / --n-head 3 must be even"):
        GPTConfig(n_embd=15, n_head=3, positions="rope")
