"""Everything that depends on the device. Twin of torch_gpt/device.py.

Metal: written from the documentation, not run by the authors; tests marked `metal` run on a Mac. CUDA: run on an H200.
"""

import os
import shutil
from importlib.metadata import version

import mlx.core as mx

from gpt_core import malloc
from gpt_core.config import DType
from gpt_core.errors import InputError
from gpt_core.half import emulated_by, warn_emulated

DEVICES = ("auto", "gpu", "cpu")


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


def versions() -> dict[str, str]:
    """Framework and version, for the state of a checkpoint; MLX_ENABLE_TF32 where it is not the 0 of mlx_gpt/__init__.py."""
    tf32 = os.environ["MLX_ENABLE_TF32"]
    return {"framework": "mlx", "mlx": version("mlx")} | ({} if tf32 == "0" else {"MLX_ENABLE_TF32": tf32})
