"""The same model twice: logits, gradients, attention, causality, and what each check must catch."""

import dataclasses
from typing import Any

import mlx.nn
import numpy as np
import pytest
import torch
from twins import CONFIG, TWINS, B, T, Twin, batch, float64_gradients, fresh, mlx_twin, mx, relative, scaled_up, torch_twin

import mlx_gpt.device
import mlx_gpt.functional
import mlx_gpt.model
import torch_gpt.device
import torch_gpt.model
from gpt_core.config import DType, GPTConfig, TrainConfig
from gpt_core.names import parameter_count, parameters
from mlx_gpt.optim import clip as mlx_clip
from torch_gpt.optim import clip as torch_clip

# Largest difference over the largest value of a tensor, weights x 5, four seeds: logits 6e-7, gradients 1.0e-6.
# An exact GELU in one twin gives 2e-4 and 5e-4.
FORWARD_TOLERANCE = 5e-6
# Half precision against the same twin's float32, weights x 5, three seeds: bfloat16 1.0e-2, float16 1.1e-3.
HALF_TOLERANCE = {"bfloat16": 3e-2, "float16": 3.3e-3}

ATTENTIONS: dict[str, tuple[Any, Any, Any]] = {
    "mlx": (mlx_gpt.model.attention, mlx_gpt.model.reference_attention, mx.array),
    "torch": (torch_gpt.model.attention, torch_gpt.model.reference_attention, torch.from_numpy),
}
DEVICES = [
    pytest.param("mlx", "cpu"),
    pytest.param("mlx", "gpu", marks=pytest.mark.metal),
    pytest.param("torch", "cpu"),
    pytest.param("torch", "mps", marks=pytest.mark.mps),
    pytest.param("torch", "cuda", marks=pytest.mark.cuda),
]


def pick(name: str, device: str, dtype: DType = "float32") -> Any:
    """A device that may be missing here, which skips the test."""
    if name == "mlx":
        if device == "gpu" and not mx.is_available(mx.gpu):
            pytest.skip("no GPU for MLX on this machine")
        return mlx_gpt.device.pick(device, dtype)
    if not {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}[device]:
        pytest.skip(f"no {device} on this machine")
    return torch_gpt.device.pick(device, dtype)


def twin_on(name: str, device: str, dtype: DType, config: GPTConfig = CONFIG, factor: float = 5.0) -> Twin:
    """A twin on a device that may be missing here."""
    train, picked = TrainConfig(dtype=dtype), pick(name, device, dtype)
    weights = scaled_up(fresh(config), factor)
    return mlx_twin(weights, config, train) if name == "mlx" else torch_twin(weights, config, train, picked)


@pytest.mark.parametrize("name", TWINS)
def test_parameters_are_those_of_the_contract_table(name: str) -> None:
    twin = TWINS[name](fresh())
    found = {key: value.shape for key, value in twin.weights().items()}
    assert found == {parameter.name: parameter.shape for parameter in parameters(CONFIG)}
    assert sum(value.size for value in twin.weights().values()) == parameter_count(CONFIG)


@pytest.mark.parametrize("seed", range(3))
def test_logits_and_gradients_agree(seed: int) -> None:
    weights, tokens = scaled_up(fresh(seed=seed)), batch(seed=seed)
    twins = [mlx_twin(weights), torch_twin(weights)]
    logits = [twin.logits(tokens[:, :-1]) for twin in twins]
    assert logits[0].shape == (B, T, CONFIG.vocab_size)
    assert relative(*logits) < FORWARD_TOLERANCE
    gradients = [twin.gradients(tokens)[1] for twin in twins]
    assert worst(*gradients) < FORWARD_TOLERANCE


def test_an_exact_gelu_is_seen_on_scaled_up_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, tokens = scaled_up(fresh()), batch()
    right = mlx_twin(weights).gradients(tokens)[1], mlx_twin(weights).logits(tokens)
    monkeypatch.setattr(mlx_gpt.functional, "gelu", mlx.nn.gelu)
    wrong = mlx_twin(weights).gradients(tokens)[1], mlx_twin(weights).logits(tokens)
    assert worst(wrong[0], right[0]) > 10 * FORWARD_TOLERANCE
    assert relative(wrong[1], right[1]) > 10 * FORWARD_TOLERANCE


def test_gradients_agree_with_float64() -> None:
    weights, tokens = scaled_up(fresh()), batch()
    expected = float64_gradients(weights, tokens)
    for name in TWINS:
        assert worst(TWINS[name](weights).gradients(tokens)[1], expected) < FORWARD_TOLERANCE


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize(("new", "seen"), [(7, 7), (1, 7), (1, 1)])
def test_fused_attention_is_the_reference(name: str, new: int, seen: int) -> None:
    fused, reference, convert = ATTENTIONS[name]
    generator = np.random.default_rng(0)
    q, k, v = (generator.standard_normal((2, 3, length, 5), dtype=np.float32) for length in (new, seen, seen))
    found, expected = (np.asarray(f(convert(q), convert(k), convert(v))) for f in (fused, reference))
    assert found.shape == (2, 3, new, 5)
    assert relative(found, expected) < 2e-6  # measured 2.2e-7, four seeds


@pytest.mark.parametrize("name", ATTENTIONS)
def test_reference_attention_by_hand(name: str) -> None:
    """D = 1, so scores are q k. First query: only v = 10. Second: weights 1/3 and 2/3 of 10 and 40, since e^ln2 = 2."""
    _, reference, convert = ATTENTIONS[name]
    q = np.array([[[[5.0], [1.0]]]], dtype=np.float32)
    k = np.array([[[[0.0], [np.log(2.0)]]]], dtype=np.float32)
    v = np.array([[[[10.0], [40.0]]]], dtype=np.float32)
    found = np.asarray(reference(convert(q), convert(k), convert(v)))
    np.testing.assert_allclose(found[0, 0, :, 0], [10.0, 30.0], rtol=1e-6)


@pytest.mark.parametrize(("name", "device"), DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_no_logit_sees_a_later_token(name: str, device: str, dtype: DType) -> None:
    twin = twin_on(name, device, dtype)
    tokens = batch(shape=(2, T))
    logits = twin.logits(tokens)
    for changed in (1, T // 2, T - 1):
        other = tokens.copy()
        other[:, changed] = (other[:, changed] + 1) % CONFIG.vocab_size
        found = twin.logits(other)
        np.testing.assert_array_equal(found[:, :changed], logits[:, :changed])
        assert np.abs(found[:, changed:] - logits[:, changed:]).max() > 1e-3  # the change is seen where it may be


@pytest.mark.parametrize("name", TWINS)
def test_the_causality_test_sees_a_missing_mask(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unmasked(q: Any, k: Any, v: Any, _seen: Any) -> Any:
        if name == "mlx":
            return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[3] ** -0.5)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    monkeypatch.setattr(mlx_gpt.model if name == "mlx" else torch_gpt.model, "attention", unmasked)
    with pytest.raises(AssertionError):
        test_no_logit_sees_a_later_token(name, "cpu", "float32")


@pytest.mark.parametrize(("name", "device"), DEVICES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_float32_and_is_half_precision(name: str, device: str, dtype: DType) -> None:
    tokens = batch(shape=(B, T))
    exact = twin_on(name, device, "float32").logits(tokens)
    found = twin_on(name, device, dtype).logits(tokens)
    assert found.dtype == np.float32
    assert 1e-4 < relative(found, exact) < HALF_TOLERANCE[dtype]


def test_weights_stay_float32_in_half_precision() -> None:
    for dtype in ("bfloat16", "float16"):
        for name in TWINS:
            twin = TWINS[name](fresh(), CONFIG, TrainConfig(dtype=dtype))
            before = twin.weights()["wte.weight"].copy()
            loss, norm = twin.train_step(batch(shape=(2, 3, T + 1)), 1e-5)
            assert np.isfinite([loss, norm]).all()
            after = twin.weights()["wte.weight"]
            assert after.dtype == np.float32
            # Updates of 1e-5 on weights of 0.02 are lost in bfloat16 (8 bits), kept in float32.
            assert 0 < np.abs(after - before).max() < 2e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_twins_agree_in_half_precision(dtype: DType) -> None:
    weights, tokens = scaled_up(fresh()), batch(shape=(2, 3, T + 1))
    train = TrainConfig(dtype=dtype, accumulation=2, micro_batch_size=3)
    found = [TWINS[name](weights, CONFIG, train).train_step(tokens, 1e-3) for name in TWINS]
    # Measured, relative: losses 1.5e-4 (bfloat16) and 1.6e-5 (float16), norms 2.2e-4 and 9e-5.
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3)
    assert found[0][1] == pytest.approx(found[1][1], rel=2e-3)


@pytest.mark.parametrize(("name", "device"), DEVICES)
def test_clipping_has_the_norm_of_float64(name: str, device: str) -> None:
    """A million squares in one float32 sum are wrong by up to 4e-3; summed axis by axis they are right to 1e-6 (measured)."""
    picked, generator = pick(name, device), np.random.default_rng(0)
    config = dataclasses.replace(CONFIG, vocab_size=20_000)
    gradients = {p.name: generator.standard_normal(p.shape, dtype=np.float32) * 1e-3 for p in parameters(config)}
    gradients["wte.weight"][0] *= 100  # a large beginning, after which small squares are easily lost
    expected = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
    norm: Any
    if name == "mlx":
        clipped, norm = mlx_clip({key: mx.array(value) for key, value in gradients.items()}, 0.1)
        found = {key: np.array(value) for key, value in clipped.items()}
    else:
        model = torch_gpt.model.GPT(config).to(picked)
        for key, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients[key].copy()).to(picked)
        norm = torch_clip(model, 0.1)
        clipped = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}
        found = {key: gradient.cpu().numpy() for key, gradient in clipped.items()}
    assert float(norm) == pytest.approx(expected, rel=4e-6)  # measured on a CPU: mlx 1.1e-6, torch 1e-7; not yet on a GPU
    total = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in found.values()))
    assert total == pytest.approx(0.1 * expected / (expected + 1e-6), rel=4e-6)


@pytest.mark.parametrize("name", TWINS)
def test_small_gradients_are_not_scaled_up(name: str) -> None:
    twin = TWINS[name](fresh(), CONFIG, TrainConfig(grad_clip=1e6))
    other = TWINS[name](fresh(), CONFIG, TrainConfig(grad_clip=1e9))
    tokens = batch(shape=(1, 4, T + 1))
    assert twin.train_step(tokens, 1e-3) == other.train_step(tokens, 1e-3)
    assert worst(twin.weights(), other.weights()) == 0.0


def test_compiled_mlx_step_is_the_eager_one() -> None:
    """mx.compile is on by default; most tests run eagerly because its kernels take seconds to build."""
    tokens, results = batch(shape=(2, 3, T + 1)), []
    small = dataclasses.replace(CONFIG, n_layer=1)
    for switch in (mx.enable_compile, mx.disable_compile):
        switch()
        twin = mlx_twin(scaled_up(fresh(small)), small, TrainConfig(lr=1e-3))
        results.append(([twin.train_step(tokens, 1e-3) for _ in range(3)], twin.weights()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=2e-6)
    for weights in (results[0][1], results[1][1]):
        del weights["h.0.attn.c_attn.bias"]  # its key part has no gradient but rounding noise, which Adam magnifies
    assert worst(results[0][1], results[1][1]) < 1e-6  # measured 8e-8


def worst(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Largest relative difference of any tensor."""
    assert found.keys() == expected.keys()
    return max(relative(found[name], expected[name]) for name in expected)
