"""Everything that depends on the device. Twin of torch_gpt/device.py.

Metal: written from the documentation, not run by the authors; tests marked `metal` run on a Mac. CUDA: run on an H200.
"""

import ctypes
import os
import shutil
from functools import cache
from importlib.metadata import version
from typing import Literal

import mlx.core as mx

from gpt_core import malloc
from gpt_core.config import DType
from gpt_core.errors import InputError
from gpt_core.half import emulated_by, warn_emulated

DEVICES = ("auto", "gpu", "cpu")
RowWay = Literal["whole", "threads"]
"""How `one_row.linear` multiplies: at once, or as one product for each of two threads."""


def pick(name: str, dtype: DType = "float32") -> mx.Device:
    """The device of --device, made the default; "auto" is the GPU if there is one. Raises InputError for one that is absent."""
    gpu = mx.is_available(mx.gpu)
    if name == "gpu" and not gpu:
        raise InputError(f"--device gpu is not available to mlx {version('mlx')} here: choose cpu")
    device = mx.Device(mx.gpu if gpu and name != "cpu" else mx.cpu)
    mx.set_default_device(device)
    if device == mx.cpu and not shutil.which(os.environ.get("CXX", "g++")) and not shutil.which("clang++"):
        mx.disable_compile()  # compiled CPU kernels need a C++ compiler when they are first used
    if device == mx.gpu and mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info(device)["max_recommended_working_set_size"]))
    if emulates(device, dtype):
        warn_emulated(describe(device), dtype)
    return device


def keep_freed_memory(device: mx.Device) -> None:
    """Keeps what a step frees for the next one, on a CPU: gpt_core/malloc.py."""
    if device == mx.cpu:
        malloc.keep_freed_memory()


def emulates(device: mx.Device, dtype: DType) -> bool:
    """Whether the device computes a half precision in software. MLX does on every CPU: measured 26 times slower and more."""
    return dtype != "float32" if device == mx.cpu else emulated_by(describe(device), dtype)


def describe(device: mx.Device) -> str:
    """The chip's name, as peaks are listed: "Apple M1 Pro", "NVIDIA A100-SXM4-40GB", or the CPU's."""
    name = str(mx.device_info(device)["device_name"])
    return name if device == mx.gpu else f"{name} CPU"


def peak_memory() -> int:
    """Most bytes in use so far, by MLX's own count."""
    return mx.get_peak_memory()


def reads_columns(rows: int, width: int) -> bool:
    """Whether a matrix that is multiplied by one row is better stored by columns: on an AMD CPU, unless it is wide.

    On an EPYC with AVX-512, whose cache does not hold it, MKL reads it at 10 to 17 GB/s so, by rows at 5 to 10; 768 x 3,072 at
    12, by rows at 13. `tiny` decodes 1.3 times as fast, `best` 1.3, `fast` 1.2, `seed` 1.05 (by rows, on two streams).
    """
    return rows >= width and multiplies_one_row_on_one_thread()


def row_way(rows: int, width: int) -> RowWay:
    """How to multiply a matrix by one row: "whole" where MKL is good at it, or the matrix is stored by columns.

    Also below a million values: streams that wait for each other cost 0.1 ms. Else as two halves, each on a stream of its own;
    more were not tried, since the machine had two cores. As in the other twin, beside a row of zeros, MKL would use its threads
    too, but they go on spinning, and the next graph is late: 0.8 to 0.9 of the tokens.
    """
    large = rows * width >= 1_000_000 and rows % 2 == 0
    return "threads" if large and multiplies_one_row_on_one_thread() and rows < width else "whole"


@cache
def multiplies_one_row_on_one_thread() -> bool:
    """Whether this is MKL on an AMD CPU. On an EPYC with AVX2, two cores, all products of a token of `seed` take 45 ms, in two
    halves on two streams 34. On an Intel Xeon, MKL reads 23 GB/s for them on its own.
    """
    amd = str(mx.device_info(mx.Device(mx.cpu)).get("device_name", "")).startswith("AMD")
    return amd and hasattr(ctypes.CDLL(None), "mkl_serv_get_max_threads")


def versions() -> dict[str, str]:
    """Framework and version, for the state of a checkpoint; MLX_ENABLE_TF32 where it is not the 0 of mlx_gpt/__init__.py."""
    tf32 = os.environ["MLX_ENABLE_TF32"]
    return {"framework": "mlx", "mlx": version("mlx")} | ({} if tf32 == "0" else {"MLX_ENABLE_TF32": tf32})
