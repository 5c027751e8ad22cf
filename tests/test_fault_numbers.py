"""Numbers that are none, memory that is not there, and half precision that a chip emulates."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from commands import call, train_flags
from twins import CONFIG, TWINS, batch, fresh

import mlx_gpt.device
import mlx_gpt.step
import torch_gpt.device
import torch_gpt.step
from gpt_core import checkpoint, memory
from gpt_core.config import DType, GPTConfig, TrainConfig
from gpt_core.flops import training_memory
from gpt_core.metrics import Record, read_metrics
from mlx_gpt.state import read_moments as mlx_moments
from torch_gpt.state import read_moments as torch_moments

MOMENTS: dict[str, Callable] = {
    "mlx": lambda twin: mlx_moments(twin.optimizer),
    "torch": lambda twin: torch_moments(twin.model, twin.optimizer),
}
STEPS = {"mlx": mlx_gpt.step, "torch": torch_gpt.step}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", TWINS)
def test_a_step_that_is_no_number_changes_nothing(name: str, dtype: DType) -> None:
    """Neither weights nor moments, nor the count of steps that corrects their bias. Control: the finite step does."""
    train = TrainConfig(micro_batch_size=2, accumulation=2, dtype=dtype)
    tokens = batch(shape=(2, 2, 20))
    weights = fresh()
    whole, broken = TWINS[name](weights, CONFIG, train), TWINS[name](weights, CONFIG, train)
    for twin in (whole, broken):
        assert np.isfinite(twin.train_step(tokens, 1e-3)).all()
    before = {key: value.copy() for key, value in (broken.weights() | MOMENTS[name](broken)).items()}
    poisoned = broken.model.wpe.weight
    if name == "mlx":
        value = np.array(poisoned)
        broken.model.wpe.weight = mx.array(np.where(np.arange(value.size).reshape(value.shape) == 7, np.inf, value))
    else:
        poisoned.data[0, 7] = torch.inf
    before["wpe.weight"][0, 7] = np.inf
    loss, norm = broken.train_step(tokens, 1e-3)
    assert not np.isfinite([loss, norm]).all()
    for key, value in (broken.weights() | MOMENTS[name](broken)).items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    whole.train_step(tokens, 1e-3)
    assert any((value != before[key]).any() for key, value in whole.weights().items() if key != "wpe.weight")
    # the next step that is finite goes on as if the other one had not been
    if name == "mlx":
        broken.model.wpe.weight = mx.array(
            np.where(np.isinf(before["wpe.weight"]), weights["wpe.weight"], before["wpe.weight"])
        )
    else:
        poisoned.data[0, 7] = float(weights["wpe.weight"][0, 7])
    assert np.isfinite(broken.train_step(tokens, 1e-3)).all()


@pytest.mark.parametrize("name", TWINS)
def test_gradients_beyond_all_numbers_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As float16's would be with too large a scale of the loss: the loss is a number, its gradient times 1e38 is not."""
    monkeypatch.setitem(STEPS[name].LOSS_SCALE, "float16", 1e38)
    twin = TWINS[name](fresh(), CONFIG, TrainConfig(micro_batch_size=2, accumulation=1, dtype="float16"))
    before = {key: value.copy() for key, value in twin.weights().items()}
    _, norm = twin.train_step(batch(shape=(1, 2, 20)), 1e-3)
    assert not np.isfinite(norm)
    for key, value in twin.weights().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


MODEL = GPTConfig(vocab_size=512, block_size=64, n_layer=2, n_head=2, n_embd=32)


def test_advice_halves_the_micro_batch_and_keeps_the_tokens() -> None:
    train = TrainConfig(micro_batch_size=12, accumulation=3)
    said = memory.advice(MODEL, train)
    assert "lower --micro-batch-size to 9 and raise --accumulation to 4" in said and "2,304 tokens of a step" in said
    assert "with --val-batches 6 for as much validation" in said  # 4 x 12 windows are 5.3 x 9
    assert f"about {training_memory(MODEL, TrainConfig(micro_batch_size=9)) / 2**30:.2f} GiB instead of " in said


def test_advice_goes_as_far_down_as_the_memory_asks() -> None:
    train = TrainConfig(micro_batch_size=64, accumulation=1)
    room = training_memory(MODEL, TrainConfig(micro_batch_size=9))
    assert "to 8 and raise --accumulation to 8" in memory.advice(MODEL, train, room)
    assert "to 1 and raise --accumulation to 64" in memory.advice(MODEL, train, 1)


def test_advice_for_a_micro_batch_of_one() -> None:
    assert "is 1 already: lower --block-size to 32" in memory.advice(MODEL, TrainConfig(micro_batch_size=1))


# As the frameworks word them; those of MPS, Metal and CUDA from reports by their users.
MESSAGES = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.50 GB, other allocations: 14.76 GB, max allowed: 20.40 GB)."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError(
        "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum allowed buffer size of 8 bytes."
    ),
    RuntimeError("[metal::malloc] Resource limit (499000) exceeded."),
    RuntimeError(
        "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
    ),
    RuntimeError("[malloc_or_wait] Unable to allocate 8 bytes."),
    MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type float64"),
    MemoryError(),
]


@pytest.mark.parametrize("error", MESSAGES, ids=range(len(MESSAGES)))
@pytest.mark.parametrize("name", TWINS)
def test_out_of_memory_is_one_line(
    name: str,
    error: Exception,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"

    def fails(*_arguments: object) -> Record:
        raise error

    monkeypatch.setattr("gpt_core.loader.Loader.batch_at", fails)
    assert call(monkeypatch, f"{name}_gpt.train", *train_flags(small_dataset, run, "--steps", 9)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "lower --micro-batch-size to 2 and raise --accumulation to 3" in said
    assert said.endswith("last good checkpoint: none\n")


@pytest.mark.parametrize("name", TWINS)
def test_the_advice_can_be_followed_in_the_same_run(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same six sequences a step in other micro-batches: the same curve, to rounding (measured 1e-6)."""
    flags = ("--schedule", "constant", "--val-every", 100)
    for run, more in (("whole", ()), ("split", ("--micro-batch-size", 2, "--accumulation", 3))):
        first = train_flags(small_dataset, tmp_path / run, *flags, "--steps", 4)
        assert call(monkeypatch, f"{name}_gpt.train", *first) == 0
        assert (
            call(monkeypatch, f"{name}_gpt.train", *train_flags(small_dataset, tmp_path / run, *flags, *more, "--steps", 9))
            == 0
        )
    curves = [[r["loss"] for r in read_metrics(tmp_path / run / "metrics.jsonl")] for run in ("whole", "split")]
    assert np.abs(np.subtract(curves[0], curves[1])).max() < 1e-5
    assert checkpoint.load(tmp_path / "split" / "step_000009").train.micro_batch_size == 2


def test_other_sequences_a_step_are_another_run(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, code in (((), 0), (("--micro-batch-size", 2, "--accumulation", 2), 2)):
        flags = train_flags(small_dataset, tmp_path / "run", "--schedule", "constant", "--steps", 4, *more)
        assert call(monkeypatch, "torch_gpt.train", *flags) == code
    assert "--micro-batch-size 2 differs from 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["GPU Timeout Error (00000002", "Impacting Interactivity (0000000e:kIOGPU...ImpactingInteractivity)"]
)
def test_the_watchdog_is_explained(text: str) -> None:
    error = RuntimeError(f"[METAL] Command buffer execution failed: Caused {text}")
    assert "caffeinate" in (memory.explain(error, MODEL, TrainConfig()) or "")
    assert memory.explain(RuntimeError("a tensor has the wrong shape"), MODEL, TrainConfig()) is None  # control


LIMITED = """
import resource, sys
from pathlib import Path
import torch_gpt.train
from gpt_core import cli
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv.pop()) * 2**20,) * 2)
cli.run(torch_gpt.train.main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit a process's address space")
def test_torch_without_memory(small_dataset: Path, tmp_path: Path) -> None:
    """200 MiB, and a step of 384 tokens whose logits alone take 88, three times. On a CPU
    MLX is killed by a signal in this place, see docs/faults.md."""
    flags = train_flags(small_dataset, tmp_path / "run", "--vocab-size", 60_000, "--micro-batch-size", 24, "--accumulation", 1)
    command = [sys.executable, "-c", LIMITED, *map(str, flags), "--steps", "3"]
    for limit in ("200", "300"):  # in 2 of 6 runs memory ended earlier, at the run folder
        found = subprocess.run([*command, limit], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
        if "Cannot allocate memory" not in found.stderr:
            break
    assert found.returncode == 2 and found.stderr.count("\n") == 1, found.stderr
    assert "out of memory" in found.stderr and "lower --micro-batch-size to 12 and raise --accumulation to 2" in found.stderr


@pytest.mark.parametrize(
    ("chip", "dtype", "emulated"),
    [
        ("Apple M1 Pro", "bfloat16", True),
        ("Apple M2", "bfloat16", True),
        ("Apple M1 Pro", "float16", False),
        ("Apple M3 Max", "bfloat16", False),
        ("Apple M10", "bfloat16", False),
        ("NVIDIA H100", "bfloat16", False),
        ("Apple M1", "float32", False),
    ],
)
def test_gpus_that_emulate(chip: str, dtype: DType, emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, device in ((torch_gpt.device, torch.device("mps")), (mlx_gpt.device, mx.Device(mx.gpu))):
        monkeypatch.setattr(module, "describe", lambda _device: chip)
        assert module.emulates(device, dtype) == emulated


@pytest.mark.parametrize("native", [True, False])
def test_torch_asks_the_cpu(native: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: native, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "amx_bf16": native})
    for dtype in ("float32", "bfloat16", "float16"):
        torch_gpt.device.pick("cpu", dtype)
    assert capsys.readouterr().err.count("warning: --dtype") == (0 if native else 2)


def test_mlx_warns_on_every_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    mlx_gpt.device.pick("cpu")
    assert capsys.readouterr().err == ""
    mlx_gpt.device.pick("cpu", "bfloat16")
    said = capsys.readouterr().err
    assert said.startswith("warning: --dtype bfloat16 is emulated on ") and said.count("\n") == 1
