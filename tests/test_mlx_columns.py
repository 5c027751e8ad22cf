"""A model that generates is stored by columns where MKL reads them faster: the same model."""

import mlx_gpt  # noqa: F401  # isort: skip
import mlx.core as mx
import numpy as np
import pytest
from twins import fresh, mlx_twin, scaled_up

import mlx_gpt.device as devices
from mlx_gpt.generate import lay_out
from mlx_gpt.model import GPT
from mlx_gpt.state import flat

pytestmark = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="for CPUs")


def by_columns(model: GPT) -> list[str]:
    """Names of the matrices that are stored so."""
    arrays = {name: np.asarray(value) for name, value in flat(model.parameters()).items()}
    return sorted(name for name, value in arrays.items() if value.ndim == 2 and not value.flags.c_contiguous)


def test_a_model_that_generates_is_stored_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same names, shapes, values and, within rounding, logits, also of a prompt; the same gradients."""
    plain, laid_out = mlx_twin(scaled_up(fresh())), mlx_twin(scaled_up(fresh()))
    monkeypatch.setattr(devices, "multiplies_by_mkl_on_amd", lambda: True)
    lay_out(laid_out.model)
    layers = [f"h.{layer}.{name}.weight" for layer in range(3) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")]
    assert by_columns(plain.model) == [] and by_columns(laid_out.model) == sorted([*layers, "wte.weight"])
    before, after = plain.weights(), laid_out.weights()
    assert list(before) == list(after) and all(np.array_equal(before[name], after[name]) for name in before)
    idx = np.random.default_rng(2).integers(0, 97, (3, 11))
    right, found = plain.logits(idx), laid_out.logits(idx)
    assert np.abs(found - right).max() < 5e-6 * np.abs(right).max()
    first, second = (twin.gradients(idx)[1] for twin in (plain, laid_out))
    for name, value in first.items():
        if not name.endswith("c_attn.bias"):  # whose keys have a gradient of rounding noise alone
            assert np.abs(second[name] - value).max() < 1e-5 * np.abs(value).max(), name


def test_nothing_is_stored_by_columns_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = mlx_twin(fresh())
    monkeypatch.setattr(devices, "multiplies_by_mkl_on_amd", lambda: False)
    lay_out(twin.model)
    assert by_columns(twin.model) == []


def test_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mkl:
        mkl_serv_get_max_threads = None

    ask = devices.multiplies_by_mkl_on_amd.__wrapped__
    for name, blas, needed in (("AMD EPYC", Mkl, True), ("AMD EPYC", object, False), ("Apple M1 Pro", Mkl, False)):
        monkeypatch.setattr(mx, "device_info", lambda _device, name=name: {"device_name": name})
        monkeypatch.setattr(devices.ctypes, "CDLL", lambda _name, blas=blas: blas())
        assert ask() is needed
    for found, rows, width, columns in (
        (True, 1001, 1002, False),
        (True, 1002, 1002, True),
        (True, 10240, 128, True),
        (False, 10240, 128, False),
    ):
        monkeypatch.setattr(devices, "multiplies_by_mkl_on_amd", lambda found=found: found)
        assert devices.reads_columns(rows, width) is columns
