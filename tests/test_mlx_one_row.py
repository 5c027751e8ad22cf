"""A linear layer of one row as two halves on two streams, for CPUs whose BLAS leaves threads idle."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx_gpt  # noqa: F401  # isort: skip
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twins import fresh, mlx_twin, scaled_up

import mlx_gpt.device as devices
from gpt_core.generation import generate
from gpt_core.sampling import Sampling
from mlx_gpt.generate import make_forward
from mlx_gpt.model import GPT
from mlx_gpt.one_row import lay_out, linear
from mlx_gpt.state import flat

# Largest difference over the sum of absolute products, against float64, 2,000 shapes: 1.3e-7.
TOLERANCE = 1e-6

pytestmark = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="for CPUs")


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """A CPU that needs it; shapes of the halves that were multiplied, transposed."""
    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "whole" if rows % 2 else "threads")
    for name in ("matmul", "addmm"):
        real = getattr(mx, name)

        def spy(*args: Any, real: Any = real, **stream: Any) -> mx.array:
            seen.extend([tuple(args[-1].shape)] if stream else [])
            return real(*args, **stream)

        monkeypatch.setattr(mx, name, spy)
    yield seen


def drawn(rows: int, width: int, shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(size, dtype=np.float32) for size in (shape, (rows, width), (rows,))]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    each=st.integers(1, 40),
    width=st.integers(1, 70),
    lead=st.integers(1, 3),
    biased=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_values_are_those_of_a_linear_layer(
    halves: list[tuple[int, ...]], each: int, width: int, lead: int, biased: bool, seed: int
) -> None:
    x, weight, bias = drawn(2 * each, width, (1,) * (lead - 1) + (width,), seed)
    added = bias if biased else np.zeros_like(bias)
    halves.clear()
    found = np.array(linear(mx.array(x), mx.array(weight), mx.array(bias) if biased else None))
    assert halves == [(width, each)] * 2
    right = x.astype(np.float64) @ weight.T.astype(np.float64) + added
    scale = (np.abs(x) @ np.abs(weight.T) + np.abs(added)).max()
    assert found.shape == right.shape and np.abs(found - right).max() <= TOLERANCE * scale
    # negative control: halves in the wrong order are seen
    assert np.abs(np.roll(found, each, axis=-1) - right).max() > TOLERANCE * scale


def test_only_one_float32_row(halves: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = (mx.array(value) for value in drawn(6, 5, (1, 1, 5), 0))
    mx.eval(
        linear(mx.broadcast_to(x, (1, 2, 5)), weight, bias),
        linear(x, weight[:5], bias[:5]),
        linear(*(value.astype(mx.bfloat16) for value in (x, weight, bias))),
    )
    assert halves == []
    mx.eval(linear(x, weight, bias))
    assert halves == [(5, 3)] * 2
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "whole")
    mx.eval(linear(x, weight, bias))
    assert halves == [(5, 3)] * 2


def test_generated_text_is_the_same_in_any_thread(halves: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of four products a layer of each token read alone; the head's 97 rows are odd."""
    twin = mlx_twin(fresh())

    def tokens() -> list[int]:
        mx.set_default_device(mx.Device(mx.cpu))
        return list(generate(make_forward(twin.model), [5, 6, 7], Sampling(temperature=1.0), 9, 97, 24, seed=3))

    found = tokens()
    assert len(found) == 9 and len(halves) == 2 * 8 * 4 * len(twin.model.h)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(tokens).result() == found
    monkeypatch.setattr(devices, "row_way", lambda rows, width: "whole")
    assert tokens() == found


def by_columns(model: GPT) -> list[str]:
    """Names of the matrices that are stored so."""
    arrays = {name: np.asarray(value) for name, value in flat(model.parameters()).items()}
    return sorted(name for name, value in arrays.items() if value.ndim == 2 and not value.flags.c_contiguous)


def test_a_model_that_generates_is_stored_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same names, shapes, values and, within rounding, logits, also of a prompt; the same gradients."""
    plain, laid_out = mlx_twin(scaled_up(fresh())), mlx_twin(scaled_up(fresh()))
    monkeypatch.setattr(devices, "multiplies_one_row_on_one_thread", lambda: True)
    lay_out(laid_out.model)
    layers = [f"h.{layer}.{name}.weight" for layer in range(3) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")]
    assert by_columns(plain.model) == [] and by_columns(laid_out.model) == sorted([*layers, "wte.weight"])
    before, after = plain.weights(), laid_out.weights()
    assert list(before) == list(after) and all(np.array_equal(before[name], after[name]) for name in before)
    idx = np.random.default_rng(2).integers(0, 97, (3, 11))
    right, found = plain.logits(idx), laid_out.logits(idx)
    assert np.abs(found - right).max() < 5e-6 * np.abs(right).max()  # with MKL no difference, nor in the gradients
    first, second = (twin.gradients(idx)[1] for twin in (plain, laid_out))
    for name, value in first.items():
        if not name.endswith("c_attn.bias"):  # whose keys have a gradient of rounding noise alone
            assert np.abs(second[name] - value).max() < 1e-5 * np.abs(value).max(), name


def test_nothing_is_stored_by_columns_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = mlx_twin(fresh())
    monkeypatch.setattr(devices, "multiplies_one_row_on_one_thread", lambda: False)
    lay_out(twin.model)
    assert by_columns(twin.model) == []


def test_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mkl:
        mkl_serv_get_max_threads = None

    ask = devices.multiplies_one_row_on_one_thread.__wrapped__
    for name, blas, needed in (("AMD EPYC", Mkl, True), ("AMD EPYC", object, False), ("Apple M1 Pro", Mkl, False)):
        monkeypatch.setattr(mx, "device_info", lambda _device, name=name: {"device_name": name})
        monkeypatch.setattr(devices.ctypes, "CDLL", lambda _name, blas=blas: blas())
        assert ask() is needed
    for found, rows, width, way, columns in (
        (True, 998, 1002, "whole", False),  # 999,996 values
        (True, 1000, 1002, "threads", False),
        (True, 1001, 1002, "whole", False),  # as many rows as two threads cannot share
        (True, 1002, 1002, "whole", True),
        (True, 10240, 128, "whole", True),
        (False, 1000, 1002, "whole", False),
        (False, 10240, 128, "whole", False),
    ):
        monkeypatch.setattr(devices, "multiplies_one_row_on_one_thread", lambda found=found: found)
        assert devices.row_way(rows, width) == way and devices.reads_columns(rows, width) is columns
