"""float32 products by oneDNN, for CPUs where they are faster than MKL's: the same values, and only where they may be."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twins import CONFIG, CPU, T, batch, fresh, scaled_up, torch_twin

import torch_gpt.device as devices
from torch_gpt import one_row, onednn
from torch_gpt.model import GPT
from torch_gpt.onednn import linear, matmul
from torch_gpt.rounded import RoundedProducts

# Largest difference over the sum of absolute products, against float64, 2,000 shapes: 2.4e-7, and so is that of F.linear.
TOLERANCE = 1e-6

Shapes = list[tuple[int, ...]]


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shapes]:
    """A CPU that prefers oneDNN; shapes of what it multiplied."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch is built without oneDNN here")
    seen: Shapes = []
    real = onednn.product

    def spy(*args: Any) -> torch.Tensor:
        seen.append(tuple(args[0].shape))
        return real(*args)

    monkeypatch.setattr(devices, "prefers_onednn", lambda device: device.type == "cpu")
    monkeypatch.setattr(onednn, "product", spy)
    yield seen


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lead=st.lists(st.integers(1, 9), min_size=1, max_size=2),
    width=st.integers(1, 70) | st.sampled_from([16, 48, 80]),  # multiples of 16 have a kernel for the gradient of the weight
    rows=st.integers(1, 70) | st.sampled_from([16, 48, 80]),
    biased=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_values_and_gradients_are_those_of_a_linear_layer(
    products: Shapes, lead: list[int], width: int, rows: int, biased: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(*lead, width), (rows, width), (rows,)][: 3 if biased else 2]
    given_f32 = [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]
    gradient = torch.randn(*lead, rows, generator=generator)
    products.clear()
    y = linear(*given_f32)
    found = [y, *torch.autograd.grad(y, given_f32, gradient)]
    assert products == [sizes[0], gradient.shape]

    def right(cut: Any, of: torch.Tensor = gradient) -> list[torch.Tensor]:
        exact = [cut(values.detach()).double().requires_grad_() for values in given_f32]
        y = F.linear(*exact)
        return [y, *torch.autograd.grad(y, exact, cut(of).double())]

    scales = right(torch.abs)
    for value, exact, scale in zip(found, right(lambda values: values), scales, strict=True):
        assert value.shape == exact.shape and value.dtype == torch.float32
        assert (value - exact).abs().max().item() <= TOLERANCE * scale.abs().max().item()
    wrong = right(lambda values: values, of=gradient * 1.001)  # negative control: a thousandth is seen in each gradient
    for value, other, scale in zip(found[1:], wrong[1:], scales[1:], strict=True):
        assert other.abs().max() < 0.01 * scale.max() or (value - other).abs().max().item() > TOLERANCE * scale.max().item()


def test_the_order_of_a_matrix_in_memory_does_not_matter(products: Shapes) -> None:
    """The backward pass and the head multiply by matrices that lie transposed."""
    a, b = torch.arange(15.0).view(5, 3).T, torch.arange(20.0).view(5, 4)
    right = [[360.0, 390, 420, 450], [400, 435, 470, 505], [440, 480, 520, 560]]  # a is [[0 3 6 9 12], [1 4 7 10 13], [2 ...]]
    assert matmul(a, b).tolist() == right and linear(a, b.T).tolist() == right and len(products) == 2


def test_not_for_half_precision_modes_or_other_devices(products: Shapes) -> None:
    x, weight = torch.randn(2, 3, 5), torch.randn(7, 5)
    linear(x.double(), weight.double())
    linear(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with RoundedProducts():
        linear(x, weight)
        matmul(x[0], weight.T)
    assert products == []
    linear(x, weight)
    matmul(x[0], weight.T)
    assert products == [(2, 3, 5), (3, 5)]


def test_a_step_computes_the_same_by_it(products: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured: the same bits in this size; in `seed` norms 2.5e-7 apart, relative. Control: products 1e-4 too large."""
    tokens, found = batch(shape=(2, 3, T + 1)), []
    for prefers in (True, False):
        monkeypatch.setattr(devices, "prefers_onednn", lambda device, prefers=prefers: prefers)
        products.clear()
        found.append(torch_twin(scaled_up(fresh())).train_step(tokens, 1e-3))
        assert bool(products) is prefers
    assert found[0] == pytest.approx(found[1], rel=2e-6)
    monkeypatch.setattr(devices, "prefers_onednn", lambda device: True)
    monkeypatch.setattr(onednn, "product", lambda *args, real=onednn.product: real(*args) * 1.0001)
    wrong = torch_twin(scaled_up(fresh())).train_step(tokens, 1e-3)
    assert all(value != pytest.approx(right, rel=2e-6) for value, right in zip(wrong, found[1], strict=True))


@pytest.mark.parametrize(
    ("name", "avx512", "built", "chosen"),
    [
        ("AMD EPYC", True, True, True),
        ("AMD EPYC", False, True, False),
        ("AMD EPYC", True, False, False),
        ("Intel(R) Xeon(R)", True, True, False),
    ],
)
def test_which_cpu_prefers_it(name: str, avx512: bool, built: bool, chosen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name, "avx512_f": avx512})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: built)
    assert devices.prefers_onednn(CPU) is chosen and not devices.prefers_onednn(torch.device("meta"))


def test_a_gpu_still_gets_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile traces for CUDA, on tensors without values; a question about this CPU would split it."""
    model = GPT(CONFIG).to("meta")
    idx, counted = (torch.zeros(2, T, dtype=dtype, device="meta") for dtype in (torch.long, torch.float32))

    def loss() -> torch.Tensor:
        return model(idx, loss_of=(idx, counted))

    assert torch.compile(loss, backend="eager", fullgraph=True)().shape == ()
    torch.compiler.reset()
    monkeypatch.setattr(devices, "prefers_onednn", lambda device: bool(torch.cpu.get_capabilities()) and False)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(loss, backend="eager", fullgraph=True)()
    torch.compiler.reset()


def test_one_row_without_gradients_is_left_to_torch(products: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's way to a product took 1.4 to 1.8 times as long for each token of `fast` and `tiny`."""
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "whole")
    weight = torch.randn(3, 5)
    with torch.no_grad():
        torch.testing.assert_close(one_row.linear(torch.ones(1, 1, 5), weight)[0, 0], weight.sum(1))
        assert products == []
        one_row.linear(torch.ones(1, 2, 5), weight)  # a prompt
    one_row.linear(torch.ones(1, 1, 5), weight)  # training
    assert products == [(1, 2, 5), (1, 1, 5)]
