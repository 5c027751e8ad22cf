"""MKL computes for an AMD CPU as for one of Intel's: for our commands, and for nobody else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT

from gpt_core import mkl, native

FAST = ("AVX2", "AVX-512")
"""What MKL says of a CPU that it knows; of others it says "Intel(R) Architecture processors"."""
PRODUCT = "torch.ones(64, 64) @ torch.ones(64, 64)"
AMD = mkl.CPU.exists() and "AuthenticAMD" in mkl.CPU.read_text() and torch.backends.mkl.is_available()
needs_amd = pytest.mark.skipif(not (AMD and torch.cpu.get_capabilities().get("avx2")), reason="for MKL on an AMD CPU with AVX2")


def told(script: str, **environment: str) -> str:
    """The first line that MKL tells of itself in a new process."""
    given = os.environ | {"MKL_VERBOSE": "1"} | environment
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    return next(line for line in done.stdout.splitlines() if line.startswith("MKL_VERBOSE"))


@needs_amd
@pytest.mark.skipif(shutil.which("g++") is None, reason="it is built by g++")
def test_both_twins_multiply_by_fast_code() -> None:
    own = f"import torch_gpt, torch; {PRODUCT}"
    timed = f"from benchmarks.torch_work import torch; {PRODUCT}"
    for script in (own, timed, "import mlx_gpt, mlx.core as mx; mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))"):
        assert any(name in told(script) for name in FAST)
    assert "SSE4.2" in told(own, MKL_ENABLE_INSTRUCTIONS="SSE4_2"), "what a user chooses is taken"


@needs_amd
@pytest.mark.parametrize("before", ["", "import benchmarks.peer_transformers, ", "import benchmarks.peer_nanogpt, "])
def test_torch_by_itself_and_its_benchmarks_are_left_alone(before: str) -> None:
    """Control of the test above: whoever imports torch first has what torch does."""
    if "transformers" in before:
        pytest.importorskip("transformers")
    line = told(f"{before or 'import '}torch; {PRODUCT}")
    assert "Intel(R) Architecture processors" in line and not any(name in line for name in FAST)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Sources that would be loaded, in a process without torch."""
    sources: list[Path] = []

    def load(source: Path, flags: list[str], mode: int) -> str:
        sources.append(source)
        return "a library"

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(native, "load", load)
    return sources


def test_which_cpu_needs_it(loaded: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = {
        "vendor_id\t: AuthenticAMD": True,
        "vendor_id\t: GenuineIntel": False,
        "CPU implementer\t: 0x41": False,
        None: False,
    }
    for number, (text, needed) in enumerate(cpus.items()):
        cpu = tmp_path / f"cpu{number}"
        if text is not None:
            cpu.write_text(text)
        monkeypatch.setattr(mkl, "CPU", cpu)
        assert mkl.preload() is needed, text
    assert loaded == [mkl.SOURCE]


@pytest.fixture
def amd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An AMD CPU."""
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("vendor_id\t: AuthenticAMD")
    monkeypatch.setattr(mkl, "CPU", cpu)


def test_too_late_once_torch_is_there(loaded: list[Path], amd: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert mkl.preload() is False and loaded == []


def test_without_a_compiler_torch_stays_as_it_is(loaded: list[Path], amd: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mkl.preload() is True
    monkeypatch.setattr(native, "load", lambda source, flags, mode: None)
    assert mkl.preload() is False
