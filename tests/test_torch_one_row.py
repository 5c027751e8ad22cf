"""A linear layer of one row in parts, for CPUs whose BLAS leaves threads idle: the same values, and only where it may be."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twins import CPU, fresh, torch_twin

import torch_gpt.device as devices
from gpt_core.generation import generate
from gpt_core.sampling import Sampling
from torch_gpt.generate import make_forward
from torch_gpt.one_row import linear
from torch_gpt.rounded import RoundedProducts, rounded

# Largest difference over the sum of absolute products, against float64, 2,000 shapes: 1.5e-7; that of F.linear is 1.1e-7.
TOLERANCE = 1e-6

Batches = list[tuple[int, ...]]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Batches]:
    """A CPU that needs two parts; shapes of the matrices that were multiplied in parts."""
    seen: Batches = []
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "whole" if rows % 2 else "threads")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for name in ("bmm", "baddbmm"):
        real = getattr(torch, name)

        def spy(*args: Any, real: Any = real) -> torch.Tensor:
            seen.append(tuple(args[-1].shape))
            return real(*args)

        monkeypatch.setattr(torch, name, spy)
    yield seen


def drawn(rows: int, width: int, shape: tuple[int, ...], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in (shape, (rows, width), (rows,))]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.integers(2, 5),
    each=st.integers(1, 40),
    width=st.integers(1, 70),
    lead=st.integers(1, 3),
    biased=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_values_are_those_of_a_linear_layer(
    batches: Batches, monkeypatch: pytest.MonkeyPatch, parts: int, each: int, width: int, lead: int, biased: bool, seed: int
) -> None:
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "threads")
    monkeypatch.setattr(torch, "get_num_threads", lambda: parts)
    x, weight, bias = drawn(parts * each, width, (1,) * (lead - 1) + (width,), seed)
    batches.clear()
    with torch.no_grad():
        found = linear(x, weight, bias if biased else None)
    right = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    assert batches == [(parts, width, each)] and found.shape == right.shape
    scale = (F.linear(x.abs(), weight.abs(), bias.abs() if biased else None)).max().item()
    assert (found - right).abs().max().item() <= TOLERANCE * scale
    if biased:  # negative control: a part that gets its neighbour's bias is seen
        wrong = F.linear(x, weight, bias.roll(each)).double()
        assert each * parts == 1 or (wrong - right).abs().max().item() > TOLERANCE * scale


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rows=st.integers(2, 99), width=st.integers(400, 2048), biased=st.booleans(), seed=st.integers(0, 2**31))
def test_a_product_for_each_row_of_a_wide_matrix(
    batches: Batches, monkeypatch: pytest.MonkeyPatch, rows: int, width: int, biased: bool, seed: int
) -> None:
    """Widths at which torch leaves such products to its BLAS. Largest difference of 2,000 shapes, to 4,095 wide: 6.0e-8."""
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "rows")
    x, weight, bias = drawn(rows, width, (1, 1, width), seed)
    batches.clear()
    with torch.no_grad():
        found = linear(x, weight, bias if biased else None)
    right = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    assert batches == [(rows, width, 1)] and found.shape == right.shape
    scale = (x.abs() @ weight.abs().T).max().item()
    assert (found - right).abs().max().item() <= TOLERANCE * scale
    wrong = F.linear(x[..., 200:], weight[:, 200:], bias if biased else None)  # negative control: a part of the sum is left out
    assert (wrong - right).abs().max().item() > TOLERANCE * scale


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 99),
    width=st.integers(1, 400),
    lead=st.integers(1, 3),
    biased=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_row_beside_one_of_zeros(
    batches: Batches, monkeypatch: pytest.MonkeyPatch, rows: int, width: int, lead: int, biased: bool, seed: int
) -> None:
    """Largest difference of 2,000 shapes: 1.3e-7."""
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "pair")
    x, weight, bias = drawn(rows, width, (1,) * (lead - 1) + (width,), seed)
    batches.clear()
    with torch.no_grad():
        found = linear(x, weight, bias if biased else None)
    right = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    assert batches == [] and found.shape == right.shape
    scale = (F.linear(x.abs(), weight.abs(), bias.abs() if biased else None)).max().item()
    assert (found - right).abs().max().item() <= TOLERANCE * scale
    other = bias if biased else torch.zeros(rows)  # negative control: what the second column holds is another
    assert (other - right).abs().max().item() > TOLERANCE * scale


def test_only_one_float32_row_without_gradients_on_a_cpu(batches: Batches) -> None:
    x, weight, bias = drawn(6, 5, (1, 1, 5), 0)
    with torch.no_grad():
        linear(x.expand(1, 2, 5), weight, bias)  # two rows
        linear(x.double(), weight.double(), bias.double())
        linear(x.to("meta"), weight.to("meta"), bias.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight, bias).dtype == torch.bfloat16
        with RoundedProducts():
            right = F.linear(rounded(x), rounded(weight), bias)
            torch.testing.assert_close(linear(x, weight, bias), right, rtol=0, atol=TOLERANCE)
            assert (right - F.linear(x, weight, bias)).abs().max() == 0 and (right - x @ weight.T - bias).abs().max() > 1e-3
    linear(x, weight.requires_grad_(), bias).sum().backward()
    assert batches == [] and weight.grad is not None
    with torch.inference_mode():
        linear(x, weight, bias)
    assert batches == [(2, 5, 3)]


def test_generated_text_is_the_same(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four products a layer of each token read alone: the first comes of the prompt, and the head's 97 rows are odd."""
    twin = torch_twin(fresh())

    def tokens() -> list[int]:
        forward = make_forward(twin.model, CPU)
        return list(generate(forward, [5, 6, 7], Sampling(temperature=1.0), 9, 97, 24, seed=3))

    found = tokens()
    assert len(found) == 9 and len(batches) == 8 * 4 * len(twin.model.h)
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "whole")
    assert tokens() == found


def test_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = devices.multiplies_one_row_on_one_thread.__wrapped__
    for name, mkl, needed in (("AMD EPYC", True, True), ("AMD EPYC", False, False), ("Intel(R) Xeon(R)", True, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {"cpu_name": name})
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda mkl=mkl: mkl)
        assert ask() is needed
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert ask() is False
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for found, rows, width, way in (
        (True, 1000, 399, "pair"),
        (True, 624, 399, "threads"),  # 249,000 values
        (True, 623, 399, "whole"),  # as many rows as two threads cannot share
        (True, 1000, 400, "rows"),
        (True, 999, 2048, "rows"),
        (True, 1000, 2049, "threads"),
        (True, 999, 2049, "whole"),
        (True, 99, 1000, "whole"),
        (False, 1000, 768, "whole"),
    ):
        monkeypatch.setattr(devices, "multiplies_one_row_on_one_thread", lambda found=found: found)
        assert devices.row_way(rows, width) == way
