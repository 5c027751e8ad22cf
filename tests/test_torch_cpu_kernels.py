"""The kernels for torch on a CPU against torch in float64, with the mistakes that each check must catch."""

import math
import shutil
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpt_core import native
from torch_gpt import cpu_kernels, functional
from torch_gpt import device as devices
from torch_gpt.model import reference_attention, row_mask

if not devices.takes_kernels(torch.float32) or shutil.which("g++") is None:
    pytest.skip("the kernels are for Linux on x86-64 with AVX2, and need g++", allow_module_level=True)

# Outputs and gradients over their largest value (or 1), in float32, measured on the inputs below and on five other seeds:
# attention 1.1e-6, GELU 1e-7. An exact GELU is 7e-4 away, attention that sees one later key 0.7.
TOLERANCE = 4e-6
# In bfloat16 half a unit in the last place of the largest value is 2e-3, and torch's own attention is up to 1.2e-2 away.
# Measured: attention 4.7e-3, GELU 2.4e-3.
HALF_TOLERANCE = 8e-3
TOLERANCES = {torch.float32: TOLERANCE, torch.bfloat16: HALF_TOLERANCE}
EXACT_GELU = torch.nn.functional.gelu


def tanh_gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def masked(seen_BTT: Tensor) -> Callable[..., Tensor]:
    return lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen_BTT[:, None])


def both(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor) -> list[Tensor]:
    """The output and the gradient of each input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]


def exactly(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor) -> list[Tensor]:
    """The same, calculated in float64."""
    return both(function, tuple(x.double() for x in inputs), gradient.double())


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference over the largest value, or over 1: of rows of a single token, gradients of scores are 0."""
    assert all(a.shape == b.shape for a, b in zip(found, expected, strict=True))
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in zip(found, expected, strict=True))


def heads(B: int, T: int, H: int, D: int, dtype: torch.dtype, seed: int = 0) -> tuple[tuple[Tensor, ...], Tensor]:
    """Queries, keys and values as a linear layer lays them out side by side, and a gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    together = torch.randn(B, T, 3 * H * D, generator=generator).to(dtype)
    inputs = tuple(x.reshape(B, T, H, D).transpose(1, 2) for x in together.chunk(3, dim=2))
    return inputs, torch.randn(B, T, H, D, generator=generator).to(dtype).transpose(1, 2)


def causal(B: int, T: int, later: int = 0) -> Tensor:
    return torch.ones(T, T).tril(later).bool().expand(B, T, T)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", [(2, 2, 3, 16), (1, 64, 2, 32), (2, 130, 3, 48), (1, 513, 2, 64), (1, 200, 1, 80)])
def test_causal_attention(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    """B, T, H, D: a whole tile of tokens, and less and more than that; heads as wide as one to five registers of AVX-512."""
    B, T, _, _ = shape
    inputs, gradient = heads(*shape, dtype)
    found = both(cpu_kernels.attention, inputs, gradient)
    assert all(x.dtype == dtype for x in found)
    assert worst(found, exactly(masked(causal(B, T)), inputs, gradient)) < TOLERANCES[dtype]
    assert worst(found, exactly(masked(causal(B, T, later=1)), inputs, gradient)) > 10 * TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("lengths", [(5, 61), (64, 1), (300, 70), (129, 64)])
def test_packed_rows(lengths: tuple[int, int], dtype: torch.dtype) -> None:
    """Rows shorter and longer than a tile, one that ends with it, and rows of a single token; two of them are different."""
    T = 300
    positions = torch.stack([torch.arange(T) % length for length in lengths])
    inputs, gradient = heads(2, T, 3, 32, dtype)
    found = both(lambda q, k, v: cpu_kernels.attention(q, k, v, row_mask(positions)), inputs, gradient)
    assert worst(found, exactly(masked(row_mask(positions)), inputs, gradient)) < TOLERANCES[dtype]
    others = exactly(masked(row_mask(positions.flip(0))), inputs, gradient)
    assert worst(found, others) > 10 * TOLERANCES[dtype], "the rows of the other sequence"


@given(st.data(), st.integers(2, 150), st.sampled_from([16, 32]), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_rows_of_any_lengths(data: st.DataObject, T: int, D: int, seed: int) -> None:
    starts = data.draw(st.sets(st.integers(1, T - 1), max_size=12))
    first, positions = 0, torch.zeros(1, T, dtype=torch.long)
    for token in range(T):
        first = token if token in starts else first
        positions[0, token] = token - first
    inputs, gradient = heads(1, T, 2, D, torch.float32, seed)
    found = both(lambda q, k, v: cpu_kernels.attention(q, k, v, row_mask(positions)), inputs, gradient)
    assert worst(found, exactly(masked(row_mask(positions)), inputs, gradient)) < TOLERANCE


def test_attention_with_large_scores() -> None:
    """Scores of +-1,000, where a softmax without its largest score taken away is infinity over infinity."""
    (q, k, v), _ = heads(1, 90, 2, 16, torch.float32)
    found, expected = (
        cpu_kernels.attention(30 * q, 30 * k, v),
        reference_attention(30 * q.double(), 30 * k.double(), v.double()),
    )
    assert worst([found], [expected]) < 1e-4  # scores of 1,000 are themselves only known to 6e-5


def test_a_training_that_diverges_shows_it() -> None:
    (q, k, v), gradient = heads(1, 70, 1, 16, torch.float32)
    q[0, 0, 30, 3] = math.nan
    output, dq, dk, dv = both(cpu_kernels.attention, (q, k, v), gradient)
    broken = torch.arange(70) == 30
    assert torch.equal(output.isnan()[0, 0].any(1), broken) and torch.equal(dq.isnan()[0, 0].any(1), broken)
    assert dk.isnan()[0, 0, :31].any(1).all() and dv.isnan()[0, 0, :31].any(1).all(), "every key that the query sees"
    assert cpu_kernels.gelu(torch.tensor([math.nan, math.inf])).isnan().tolist() == [True, False]
    assert cpu_kernels.gelu(torch.tensor([math.nan], dtype=torch.bfloat16)).isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", [(7, 300), (3,), (16,), (0,), (2, 3, 37)])
def test_gelu(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Whole registers, less than one, nothing, and some with a rest."""
    generator = torch.Generator().manual_seed(1)
    x, gradient = (torch.randn(shape, generator=generator).mul(3).to(dtype) for _ in range(2))
    found = both(cpu_kernels.gelu, (x,), gradient)
    assert all(value.dtype == dtype and value.shape == x.shape for value in found)
    if x.numel():
        assert worst(found, exactly(tanh_gelu, (x,), gradient)) < TOLERANCES[dtype]
    if x.numel() > 100 and dtype == torch.float32:
        assert worst(found, exactly(EXACT_GELU, (x,), gradient)) > 10 * TOLERANCE


def test_bfloat16_is_float32_rounded_at_the_end() -> None:
    """To the nearest, of two the even one, as torch rounds: the same bits."""
    inputs, gradient = heads(2, 100, 2, 16, torch.bfloat16)
    wide = tuple(x.float() for x in inputs)
    assert torch.equal(cpu_kernels.attention(*inputs), cpu_kernels.attention(*wide).bfloat16())
    found, expected = (both(cpu_kernels.gelu, x[:1], y) for x, y in ((inputs, gradient), (wide, gradient.float())))
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(found, expected, strict=True))
    v = torch.tensor([[1.0, 1.0078125], [1.0078125, 1.015625]], dtype=torch.bfloat16).repeat(1, 8)[None, None]
    halfway = cpu_kernels.attention(torch.zeros_like(v), torch.zeros_like(v), v)[0, 0, 1, :2]  # mean of two neighbours
    assert halfway.tolist() == [1.0, 1.015625]
    assert not torch.equal(found[0], (expected[0].view(torch.int32) & -65536).view(torch.float32).bfloat16()), "cut off"


def test_gelu_of_values_that_do_not_lie_together() -> None:
    x, gradient = torch.randn(40, 50).T, torch.randn(40, 50).T
    assert worst(both(cpu_kernels.gelu, (x,), gradient), exactly(tanh_gelu, (x,), gradient)) < TOLERANCE


def test_gelu_far_out() -> None:
    """Where e^-2u is out of float32."""
    x = torch.tensor([-1e10, -1000, -50, 50, 1000, 1e10])
    found, gradient = both(cpu_kernels.gelu, (x,), torch.ones_like(x))
    torch.testing.assert_close(found, x.relu(), atol=1e-20, rtol=1e-6)
    torch.testing.assert_close(gradient, (x > 0).float(), atol=1e-5, rtol=0)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    """So a run goes on with the same bits where it gets other cores."""
    inputs, gradient = heads(2, 150, 3, 32, torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append([*both(cpu_kernels.attention, inputs, gradient), *both(cpu_kernels.gelu, inputs[:1], gradient)])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_tensors_that_are_not_alike_are_refused() -> None:
    """A kernel would read what is not there."""
    (q, k, v), _ = heads(1, 20, 2, 16, torch.float32)
    for wrong in (k.bfloat16(), k[:, :, 1:], k[:, :1]):
        with pytest.raises(ValueError, match="must be alike"):
            cpu_kernels.attention(q, wrong, v)


def test_values_of_a_head_that_do_not_lie_together_are_refused() -> None:
    (q, k, v), gradient = heads(1, 20, 2, 16, torch.float32)
    scattered = q.transpose(2, 3).contiguous().transpose(2, 3)
    with pytest.raises(ValueError, match="20 apart"):
        cpu_kernels.attention(scattered, k, v)
    found = both(cpu_kernels.attention, (q, k, v), gradient)
    again = both(cpu_kernels.attention, (q, k, v), gradient.transpose(2, 3).contiguous().transpose(2, 3))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True)), "a gradient is laid out anew"


def test_who_takes_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calling one where it does not belong fails here."""
    (q, k, v), _ = heads(1, 20, 2, 16, torch.float32)
    narrow, _ = heads(1, 20, 2, 8, torch.float32)
    for name in ("attention", "gelu"):
        monkeypatch.setattr(cpu_kernels, name, None)

    def left_alone(*tensors: Tensor) -> bool:
        functional.attention(*tensors)
        functional.gelu(tensors[0])
        return True

    with pytest.raises(TypeError):
        functional.attention(q, k, v)
    with pytest.raises(TypeError):
        functional.gelu(q)
    functional.attention(q[:, :, :1], k, v)  # one new token against a cache
    functional.attention(*narrow)  # a head width that is no whole register
    assert left_alone(q.half(), k.half(), v.half()) and left_alone(q.double(), k.double(), v.double())
    with monkeypatch.context() as patch:
        patch.setattr(cpu_kernels, "library", lambda: None)
        assert left_alone(q, k, v), "no compiler"
    for cpu in ({"architecture": "x86_64"}, {"architecture": "aarch64", "avx2": True}):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cpu, "get_capabilities", lambda cpu=cpu: cpu)
            assert left_alone(q, k, v), cpu
    with monkeypatch.context() as patch:
        amx = {"architecture": "x86_64", "avx2": True, "amx_bf16": True}
        patch.setattr(torch.cpu, "get_capabilities", lambda: amx)
        assert devices.takes_kernels(torch.float32) and not devices.takes_kernels(torch.bfloat16)
        assert left_alone(q.bfloat16(), k.bfloat16(), v.bfloat16())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert left_alone(q, k, v)


def test_another_machine_builds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be shared, and the compiler builds for the CPU that it runs on."""
    machines = []
    monkeypatch.setattr(native, "load", lambda source, flags, machine: machines.append(machine))
    for cpu in ({"cpu_name": "one"}, {"cpu_name": "another"}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda cpu=cpu: cpu)
        cpu_kernels.library.__wrapped__()  # its answer is kept otherwise
    assert machines == [{"cpu_name": "one"}, {"cpu_name": "another"}]
