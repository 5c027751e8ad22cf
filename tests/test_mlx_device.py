"""float32 means float32 in MLX, on whatever device, unless the user asks for less."""

import json
import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from commands import ROOT

FOUND = "import json, mlx_gpt.device as d; print(json.dumps(d.versions()))"


def versions(switch: str | None) -> dict[str, str]:
    """What a new process would write into a checkpoint."""
    environment = {name: value for name, value in os.environ.items() if name != "MLX_ENABLE_TF32"}
    given = environment | ({} if switch is None else {"MLX_ENABLE_TF32": switch})
    done = subprocess.run([sys.executable, "-c", FOUND], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_rounded_products_are_asked_for_by_the_user_alone_and_then_told() -> None:
    plain = versions(None)
    assert set(plain) == {"framework", "mlx"} and versions("0") == plain
    assert versions("1") == plain | {"MLX_ENABLE_TF32": "1"}


@pytest.mark.parametrize("device", [pytest.param(mx.cpu), pytest.param(mx.gpu, marks=pytest.mark.metal)])
def test_a_product_is_float32(device: mx.DeviceType) -> None:
    """Against float64, over the largest value. Measured on a CPU, four seeds: 2.2e-7 to 3.2e-7; with factors of 11 bits 2.6e-4
    to 3.2e-4."""
    if not mx.is_available(device):
        pytest.skip("no GPU for MLX on this machine")
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((48, 256), np.float32), generator.standard_normal((256, 80), np.float32)
    expected = a.astype(np.float64) @ b.astype(np.float64)

    def error(a: np.ndarray, b: np.ndarray) -> float:
        with mx.stream(device):
            return float(np.abs(np.array(mx.array(a) @ mx.array(b)) - expected).max() / np.abs(expected).max())

    assert error(a, b) < 2e-6
    assert error(*(eleven_bits(factor) for factor in (a, b))) > 1e-4


def eleven_bits(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to 11 significant bits, as TF32 has them."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 2**11) / 2**11, exponent).astype(np.float32)
