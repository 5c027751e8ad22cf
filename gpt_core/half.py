"""Half precision on a chip that has none: it works, slower than float32, and is told in one line."""

import re
import sys

from gpt_core.config import DType


def emulated_by(chip: str, dtype: DType) -> bool:
    """Whether a GPU, by its reported name, computes `dtype` in software: bfloat16 on M1 and M2 (transformers PR #40458)."""
    return dtype == "bfloat16" and re.match(r"Apple M[12]\b", chip) is not None


def warn_emulated(chip: str, dtype: DType) -> None:
    """Prints the line."""
    print(f"warning: --dtype {dtype} is emulated on {chip}, float32 is faster there: leave --dtype out", file=sys.stderr)
