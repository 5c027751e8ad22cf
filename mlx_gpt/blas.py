"""An optimized BLAS for MLX on Linux, whose wheel links the reference one: 60 times slower at matrix products.

A library that is in the global symbol scope before MLX is loaded takes the reference BLAS's place. macOS needs nothing.
"""

import ctypes
import ctypes.util
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SWITCH = "MLX_GPT_BLAS"
"""Environment variable: "off" leaves the reference BLAS in place, a path names the library to load."""


def preload() -> str | None:
    """Loads the first BLAS found into the global scope and returns its path; None where there is none or no need."""
    if sys.platform != "linux" or os.environ.get(SWITCH) == "off" or "mlx.core" in sys.modules:
        return None
    for path in candidates():
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return path
    return None


def candidates() -> Iterator[str]:
    """Libraries to try, fastest first: a named one, MKL from its wheel, OpenBLAS of the system, the BLAS inside torch."""
    if os.environ.get(SWITCH):
        yield os.environ[SWITCH]
    yield from (str(path) for path in sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*")))
    for name in ("openblas", "mkl_rt"):
        found = ctypes.util.find_library(name)
        if found:
            yield found
    torch = importlib.util.find_spec("torch")  # finds the package without importing it
    if torch and torch.origin:
        yield str(Path(torch.origin).parent / "lib" / "libtorch_cpu.so")
