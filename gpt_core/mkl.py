"""MKL, the BLAS inside torch, with its fast code on CPUs of AMD too. For both twins: MLX multiplies by it on Linux.

MKL asks itself whether Intel made the CPU and otherwise leaves AVX-512 alone. On an EPYC that has it, two cores, the layers of
`seed` in float32: 135 GFLOPS, and 200 with the code that it has for Intel's; a product of one row 10 GB/s, and 20. It asks by
two functions that a library loaded before it can replace: known since MKL 2020 (Daniel de Kok, "Intel MKL on AMD Zen", 2020),
not documented by Intel. Which instructions the CPU has, MKL looks up by itself; its own variable MKL_ENABLE_INSTRUCTIONS, AVX2
for one, still chooses fewer. Measured with the MKL 2024.0 of torch 2.13; one that asks otherwise stays as it is.
"""

import ctypes
import sys
from pathlib import Path

from gpt_core import native

SOURCE = Path(__file__).with_suffix(".cpp")
CPU = Path("/proc/cpuinfo")


def preload() -> bool:
    """Answers for an AMD CPU, and says whether it does. No use once torch is there, so the packages of the twins call it."""
    if "torch" in sys.modules or not CPU.exists() or "AuthenticAMD" not in CPU.read_text(encoding="utf-8", errors="replace"):
        return False
    return native.load(SOURCE, ["-O2"], mode=ctypes.RTLD_GLOBAL) is not None
