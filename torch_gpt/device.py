"""Everything that depends on the device. Twin of mlx_gpt/device.py.

MPS: written from the documentation, not run by the authors; tests marked `mps` run on a Mac. CUDA: run on an H200.
"""

import platform
import resource
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from gpt_core import malloc
from gpt_core.config import DType
from gpt_core.errors import InputError
from gpt_core.half import emulated_by, warn_emulated
from torch_gpt.muon import norm
from torch_gpt.rounded import RoundedProducts

DEVICES = ("auto", "mps", "cuda", "cpu")
MPS_MICRO_BATCH_TOKENS = 32_768


def pick(name: str, dtype: DType = "float32") -> torch.device:
    """The device of --device, "auto" being the best there is. Raises InputError for one that is absent or known bad."""
    there = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        have = ", ".join(device for device, present in there.items() if present)
        raise InputError(f"--device {name} is not available to torch {torch.__version__} here: choose among {have}")
    if name == "mps":
        refuse_known_bad(torch.__version__, dtype)
    if name == "cuda" and dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError(f"--dtype bfloat16 is not supported by {torch.cuda.get_device_name()}: use float16 or float32")
    device = torch.device(name)
    if emulates(device, dtype):
        warn_emulated(describe(device), dtype)
    return device


def keep_freed_memory(device: torch.device) -> None:
    """Keeps what a step frees for the next one, on a CPU: gpt_core/malloc.py."""
    if device.type == "cpu":
        malloc.keep_freed_memory()


def zero_gradients(parameters: list[nn.Parameter]) -> None:
    """Forgets them, or on a CPU fills them with zeros, in the same memory from the first step on.

    Made anew in each step, they lie where activations were, whose next ones need new memory: a step of `seed` in float32 then
    holds 2.60 GiB in place of 2.41.
    """
    for parameter in parameters:
        if parameter.device.type != "cpu":
            parameter.grad = None
        elif parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        else:
            parameter.grad.zero_()


def emulates(device: torch.device, dtype: DType) -> bool:
    """Whether the device computes a half precision in software, slower than float32."""
    if device.type != "cpu":
        return emulated_by(describe(device), dtype)
    native: dict[str, Callable[[], bool]] = {
        "bfloat16": multiplies_bfloat16,
        "float16": lambda: onednn_says("_is_mkldnn_fp16_supported"),
    }
    return dtype in native and not native[dtype]()


def refuse_known_bad(version: str, dtype: DType) -> None:
    """Raises InputError for torch versions that compute wrong numbers on MPS, naming the upstream issue."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) < (2, 6):
        reason = "versions before 2.6 train or generate wrongly on MPS (pytorch #118115, #122016)"
    elif (major, minor) == (2, 8):
        reason = "2.8 multiplies non-contiguous weights wrongly on MPS (pytorch #162730)"
    elif dtype != "float32" and (major, minor) < (2, 13):
        reason = f"causal attention in {dtype} sees future tokens on MPS before 2.13 (pytorch #195910)"
    else:
        return
    raise InputError(f"--device mps with torch {version}: {reason}; pip install torch==2.13.0, or use --device cpu")


def refuse_large_micro_batch(device: torch.device, tokens: int) -> None:
    """Raises InputError for a micro-batch of so many tokens that MPS may compute wrong gradients, silently.

    pytorch #177116 (open): batch x sequence above 32,768, once another shape has run in the process, as validation may.
    """
    if device.type == "mps" and tokens > MPS_MICRO_BATCH_TOKENS:
        raise InputError(
            f"--device mps with {tokens:,} tokens a micro-batch (--micro-batch-size x --block-size) may compute wrong "
            f"gradients (pytorch #177116): keep to {MPS_MICRO_BATCH_TOKENS:,}, with more --accumulation for the same step"
        )


def describe(device: torch.device) -> str:
    """The chip's name, as peaks are listed: "Apple M1 Pro", "NVIDIA A100-SXM4-40GB", or the CPU's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return torch.backends.mps.get_name()
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: allocated on CUDA; held by the driver on MPS, which keeps what it took; resident on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compiled(function: Callable, device: torch.device) -> Callable:
    """torch.compile on CUDA only: on MPS it is a prototype and slower than eager for language models (pytorch #150121)."""
    if device.type != "cuda":
        return function
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # float32 means float32 here, as in the other twin
    return torch.compile(function)


def norms(tensors: list[Tensor]) -> Sequence[Tensor]:
    """The norm of each, scalars: on CUDA in a few kernels for all of them, elsewhere one after the other, axis by axis.

    One after the other they are 200 kernels a step of `seed`: 32.4 ms of it at 32 x 512 in bfloat16 on an H200, now 29.2.
    """
    return torch._foreach_norm(tensors) if tensors[0].device.type == "cuda" else [norm(tensor) for tensor in tensors]


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32, as far as oneDNN finds instructions for it.

    On x86-64 that takes AMX, or an AMD CPU with avx512_bf16. For the layers of `seed`, oneDNN 3.12 reaches 360 GFLOPS on such
    an EPYC (float32: 190), but 165 on an Intel CPU with avx512_bf16 alone (float32: 315).
    """
    cpu = torch.cpu.get_capabilities()
    if cpu.get("architecture") != "x86_64":
        return onednn_says("_is_mkldnn_bf16_supported")
    amd = str(cpu.get("cpu_name", "")).startswith("AMD")
    return bool(cpu.get("amx_bf16") or (cpu.get("avx512_bf16") and amd))


def takes_kernels(dtype: torch.dtype) -> bool:
    """Whether `cpu_kernels` serve this CPU: on Linux, x86-64 with AVX2; for bfloat16 only without AMX, which they do not use.

    On an EPYC with AVX-512, two threads, attention of a layer and micro-batch of `seed`, with gradients: 22 ms, torch 51; with
    packed rows 13, torch 56. Built for AVX2 alone 24. Not measured on an Intel CPU.
    """
    cpu = torch.cpu.get_capabilities()
    if sys.platform != "linux" or cpu.get("architecture") != "x86_64" or not cpu.get("avx2"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and not cpu.get("amx_bf16"))


def onednn_says(name: str) -> bool:
    """What oneDNN answers about this CPU; no where torch is built without it, as for Apple silicon."""
    ask = getattr(torch.ops.mkldnn, name, None)
    return ask is not None and ask()


def half_precision(device: torch.device, dtype: DType) -> AbstractContextManager:
    """Linear layers multiply in `dtype` inside it; weights and residual stream stay float32."""
    if device.type == "cpu" and dtype == "bfloat16" and not multiplies_bfloat16():
        return RoundedProducts()
    return torch.autocast(device.type, getattr(torch, dtype))


def versions() -> dict[str, str]:
    """Framework and version, for the state of a checkpoint."""
    return {"framework": "torch", "torch": torch.__version__}
