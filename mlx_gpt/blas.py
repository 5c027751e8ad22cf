"""An optimized BLAS for MLX on Linux, whose wheel links the reference one: 60 times slower at matrix products.

A library that is in the global symbol scope before MLX is loaded takes the reference BLAS's place. macOS needs nothing.
"""

import ctypes
import ctypes.util
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from gpt_core import mkl

SWITCH = "MLX_GPT_BLAS"
"""Environment variable: "off" leaves the reference BLAS in place, a path names the library to load."""


def preload() -> str | None:
    """Loads the first BLAS found into the global scope and returns its path; None where there is none or no need."""
    if sys.platform != "linux" or os.environ.get(SWITCH) == "off" or "mlx.core" in sys.modules:
        return None
    mkl.preload()
    for path in candidates():
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            if path == os.environ.get(SWITCH):
                warnings.warn(f"{SWITCH}={path} cannot be loaded, another BLAS is taken: {error}", stacklevel=2)
            continue
        return path
    return None


def candidates() -> Iterator[str]:
    """Libraries to try: a named one, else the BLAS inside torch, else MKL from its wheel or OpenBLAS of the system.

    What is loaded here replaces torch's own BLAS too where both twins share a process (`python -m compare`). The threads of
    another library and torch's wait for each other by spinning: with Debian's OpenBLAS, steps of torch took 2.8 times as long.
    """
    if os.environ.get(SWITCH):
        yield os.environ[SWITCH]
    torch = importlib.util.find_spec("torch")  # finds the package without importing it
    if torch and torch.origin:
        yield str(Path(torch.origin).parent / "lib" / "libtorch_cpu.so")
    yield from (str(path) for path in sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*")))
    for name in ("openblas", "mkl_rt"):
        found = ctypes.util.find_library(name)
        if found:
            yield found
