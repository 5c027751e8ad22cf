"""What an engine offers to be timed. Every call returns only when the device is done."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peaks import Product
from benchmarks.spec import Spec
from benchmarks.timing import Clock
from gpt_core.ahead import nothing
from gpt_core.loader import Loader
from gpt_core.shards import TokenStream, read_shard

Generate = Callable[[list[int], int, Clock], tuple[float, float, int]]
"""(prompt, tokens to add, clock) -> (seconds to the first token, seconds for the others, tokens in all)."""


@dataclass(frozen=True)
class Work:
    """One engine with a model and an optimizer."""

    chip: str
    versions: dict[str, str]
    batch_at: Callable[[int], Any]
    """Optimizer step (0-based) -> what `step` takes: a batch (accumulation, B, T+1) int32, by gpt_core's loader for every
    engine, and with ours what the recipe draws for it."""
    step: Callable[..., float]
    """(what `batch_at` gave, what to do while the device works) -> the loss before the step, nats a token, or NaN where an
    engine keeps it to itself."""
    peak_memory: Callable[[], int]
    """Bytes, by the framework's own count where it has one."""
    product: Product
    generate: Generate | None
    parts: dict[str, Callable[[], object]] = field(default_factory=dict)
    """Parts of a step beside the data, for the split."""
    forget: Callable[[], object] = nothing
    """Lets go of what generating alone needs, so that the peak of training is without it."""


def loader(spec: Spec) -> Loader:
    """The batches of a task."""
    return Loader(TokenStream([read_shard(Path(spec.shard))]), spec.model, spec.train)


def resident() -> int:
    """Most bytes that this process has held in memory, libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
