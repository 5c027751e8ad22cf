"""The kernels for MLX's CPU backend against torch in float64, with the mistakes that each check must catch."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import mx, relative

import mlx_gpt.functional
import mlx_gpt.model
from mlx_gpt import cpu_kernels, functional
from mlx_gpt.model import row_mask
from mlx_gpt.recompute import linear_of_gelu

Arrays = tuple[np.ndarray, ...]
# Outputs and gradients over their largest value, measured on the inputs below and on four other seeds: attention 1.2e-6,
# GELU 4e-7, cross-entropy 3.6e-7. An exact GELU is 2e-4 away, attention that sees one later key 1e-1.
TOLERANCE = 4e-6


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    mx.disable_compile()  # building the kernels takes seconds; tests/test_twin_parity.py compares compiled with eager
    yield


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(scale)


def by_mlx(function: Callable[..., Any], inputs: Arrays, cotangent: np.ndarray) -> list[np.ndarray]:
    """The output and the gradient of each input."""
    outputs, gradients = mx.vjp(function, [mx.array(x) for x in inputs], [mx.array(cotangent)])
    return [np.array(x) for x in [*outputs, *gradients]]


def by_torch(function: Callable[..., Any], inputs: Arrays, cotangent: np.ndarray) -> list[np.ndarray]:
    """The same, calculated in float64."""
    leaves = [torch.from_numpy(x).double().requires_grad_() for x in inputs]
    output = function(*leaves)
    output.backward(torch.from_numpy(cotangent).double())
    return [x.detach().numpy() for x in [output, *(leaf.grad for leaf in leaves if leaf.grad is not None)]]


def worst(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(relative(a, b) for a, b in zip(found, expected, strict=True))


def exp_bound(x: Any) -> Any:
    """Half a unit in the last place of x log2(e), the error of that constant, and the polynomial."""
    return 2e-7 + 8e-8 * np.abs(x)


@given(st.floats(-87, 80, width=32))
@settings(max_examples=300, deadline=None)
def test_exp_of_any_number(x: float) -> None:
    expected = np.exp(np.float64(x))
    assert abs(cpu_kernels.exp(mx.array([x])).item() / expected - 1) < exp_bound(x)


def test_exp_over_its_range_and_beyond() -> None:
    x = np.linspace(-87, 80, 200_001, dtype=np.float32)
    error = np.abs(np.array(cpu_kernels.exp(mx.array(x))) / np.exp(x.astype(np.float64)) - 1)
    assert (error < exp_bound(x)).all()  # measured: 1.6e-7 within +-1, 3.9e-6 at -87
    assert cpu_kernels.exp(mx.array([0.0, -88.0, -1000.0, cpu_kernels.HIDDEN])).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert np.isnan(cpu_kernels.exp(mx.array([np.nan])).item())


@pytest.mark.parametrize(("T", "packed"), [(7, False), (130, False), (300, False), (300, True)])
def test_attention(T: int, packed: bool) -> None:
    """One block, two, and three with an incomplete one; rows of 5 and of 61 tokens packed into a sequence."""
    inputs, cotangent = tuple(normal(2, 3, T, 5, seed=seed, scale=2) for seed in (1, 2, 3)), normal(2, 3, T, 5, seed=4)
    seen = row_mask(mx.array(np.stack([np.arange(T) % 5, np.arange(T) % 61]))) if packed else None

    def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, later: int = 0) -> torch.Tensor:
        mask = torch.ones(T, T).tril(later).bool() if seen is None else torch.from_numpy(np.array(seen))[:, None]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    found = by_mlx(lambda q, k, v: cpu_kernels.attention(q, k, v, seen), inputs, cotangent)
    assert worst(found, by_torch(exact, inputs, cotangent)) < TOLERANCE
    if not packed:
        assert worst(found, by_torch(lambda q, k, v: exact(q, k, v, 1), inputs, cotangent)) > 1000 * TOLERANCE


def test_attention_with_large_scores() -> None:
    """Scores of +-1,000, where a softmax without its largest score taken away is infinity over infinity."""
    q, k, v = (mx.array(normal(1, 2, 9, 4, seed=seed, scale=scale)) for seed, scale in ((1, 30), (2, 30), (3, 1)))
    found = np.array(cpu_kernels.attention(q, k, v))
    expected = np.array(mlx_gpt.model.reference_attention(q, k, v))
    assert relative(found, expected) < 1e-4  # scores of 1,000 are themselves only known to 6e-5


def test_gelu() -> None:
    x, cotangent = normal(7, 300, scale=3), normal(7, 300, seed=1)
    found = by_mlx(cpu_kernels.gelu, (x,), cotangent)
    assert worst(found, by_torch(lambda x: torch.nn.functional.gelu(x, approximate="tanh"), (x,), cotangent)) < TOLERANCE
    assert worst(found, by_torch(torch.nn.functional.gelu, (x,), cotangent)) > 10 * TOLERANCE


def test_gelu_far_out() -> None:
    """Where e^-2u is out of float32, and where u itself is beyond what `exp` rounds."""
    x = np.array([-1e10, -1000, -50, 50, 1000, 1e10], np.float32)
    found, gradient = by_mlx(cpu_kernels.gelu, (x,), np.ones_like(x))
    np.testing.assert_allclose(found, np.maximum(x, 0), atol=1e-20)
    np.testing.assert_allclose(gradient, x > 0, atol=1e-5)
    assert np.isnan(np.array(cpu_kernels.gelu(mx.array([np.nan])))).all(), "a training that diverges must show it"


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_gelu_keeps_its_input_alone_and_gives_the_same_bits(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays in memory at the peak of a backward pass that each layer adds, and the gradients, against the plain line.

    Measured from 16 to 32 layers: 1.1 (the next layer's input, and a gradient of the weight that is a third of that), and 2.9.
    """
    monkeypatch.setattr(functional, "slow", lambda x: True)  # on a Mac, the plain line is taken
    x = mx.array(normal(512, 192))

    def run(layer: Callable[..., mx.array], count: int) -> tuple[float, list[np.ndarray]]:
        mx.random.seed(0)
        linears = [mlx_gpt.model.Linear(192, 192, bias, mx.float32) for _ in range(count)]
        values = [linear.parameters() for linear in linears]
        mx.eval(x, values)

        def loss(values: list[dict[str, mx.array]], x: mx.array) -> mx.array:
            for linear, own in zip(linears, values, strict=True):
                x = layer(linear.update(own), x)
            return x.square().sum()

        mx.reset_peak_memory()
        before = mx.get_active_memory()
        gradients = mx.grad(loss)(values, x)
        mx.eval(gradients)
        used = (mx.get_peak_memory() - before) / x.nbytes
        return used, [np.array(gradient) for own in gradients for gradient in own.values()]

    def plain(linear: mlx_gpt.model.Linear, x: mx.array) -> mx.array:
        return linear(functional.gelu(x))

    (few, _), (many, found) = run(linear_of_gelu, 16), run(linear_of_gelu, 32)
    (few_plain, _), (many_plain, expected) = run(plain, 16), run(plain, 32)
    for value, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(value, right)
    assert (many - few) / 16 < 1.6 < 2.4 < (many_plain - few_plain) / 16


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy(seed: int) -> None:
    logits, cotangent = normal(4, 9, 97, seed=seed, scale=5), normal(4, 9, seed=seed + 10)
    targets = np.random.default_rng(seed).integers(0, 97, (4, 9))

    def exact(logits: torch.Tensor, shift: int = 0) -> torch.Tensor:
        flat = torch.from_numpy((targets + shift) % 97).flatten()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), flat, reduction="none").view(4, 9)

    found = by_mlx(lambda logits: cpu_kernels.cross_entropy(logits, mx.array(targets)), (logits,), cotangent)
    assert worst(found, by_torch(exact, (logits,), cotangent)) < TOLERANCE
    assert worst(found, by_torch(lambda logits: exact(logits, 1), (logits,), cotangent)) > 1000 * TOLERANCE


def test_half_precision_and_other_devices_keep_functions_of_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are for float32 on a CPU without Apple's vector library; calling one elsewhere fails here."""
    for name in ("attention", "gelu", "cross_entropy"):
        monkeypatch.setattr(cpu_kernels, name, None)
    x = mx.array(normal(2, 3, 8, 4))

    def all_three(x: mx.array) -> None:
        functional.attention(x, x, x)
        functional.gelu(x)
        functional.cross_entropy(x, mx.zeros(x.shape[:-1], mx.int32))

    all_three(x.astype(mx.float16))
    functional.attention(x[:, :, :1], x, x)  # one new token against a cache
    with monkeypatch.context() as patch:
        patch.setattr(mlx_gpt.functional.sys, "platform", "darwin")
        all_three(x)
    monkeypatch.setattr(mlx_gpt.functional.sys, "platform", "linux")
    with pytest.raises(TypeError):
        all_three(x)
