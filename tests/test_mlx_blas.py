"""Which BLAS multiplies in MLX on Linux."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

from mlx_gpt import blas

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
LOADED = "import mlx_gpt, mlx.core; print(open('/proc/self/maps').read())"


def start(switch: str | None) -> tuple[set[str], str]:
    """Names of the libraries that a new process has loaded once it has MLX, and its stderr."""
    environment = {name: value for name, value in os.environ.items() if name != blas.SWITCH}
    given = environment | ({} if switch is None else {blas.SWITCH: switch})
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    return {Path(line.split()[-1]).name for line in done.stdout.splitlines() if "/" in line}, done.stderr


def test_the_blas_of_torch_is_loaded_unless_it_is_switched_off() -> None:
    assert "libtorch_cpu.so" in start(None)[0]
    assert "libtorch_cpu.so" not in start("off")[0]


def test_another_library_only_if_it_is_named_or_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both twins in one process share it, and torch is slow with another one's threads."""
    monkeypatch.setattr(blas.ctypes.util, "find_library", lambda name: f"lib{name}.so.0")
    monkeypatch.delenv(blas.SWITCH, raising=False)
    assert Path(next(blas.candidates())).name == "libtorch_cpu.so"
    monkeypatch.setenv(blas.SWITCH, "/opt/libother.so")
    assert next(blas.candidates()) == "/opt/libother.so"
    monkeypatch.delenv(blas.SWITCH)
    monkeypatch.setattr(blas.importlib.util, "find_spec", lambda name: None)
    assert list(blas.candidates())[-2:] == ["libopenblas.so.0", "libmkl_rt.so.0"]


def test_a_named_library_that_cannot_be_loaded_is_told_and_passed_over(tmp_path: Path) -> None:
    wrong = tmp_path / "libwrong.so"
    wrong.write_bytes(b"no library")
    libraries, told = start(str(wrong))
    assert "libtorch_cpu.so" in libraries
    assert f"{blas.SWITCH}={wrong} cannot be loaded" in told and not start(None)[1]
