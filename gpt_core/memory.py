"""Out of memory, and a graphics chip whose work the system ended: how the frameworks say it, and what to do about it."""

import dataclasses
import os

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.flops import tokens_per_step, training_memory

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "unable to allocate", "[metal::malloc]", "insufficient memory")
"""In the RuntimeErrors of torch on CUDA, MPS and CPU, and of MLX on Metal and CUDA; without regard to case."""
ENDED_BY_SYSTEM = ("GPU Timeout", "ImpactingInteractivity")
"""In MLX's, where macOS keeps the display responsive (mlx #3267)."""
DISPLAY = "the system ended the work of the graphics chip to keep the display responsive"


def cause(error: BaseException) -> str | None:
    """What an error of a framework is about, or None for one that is no matter of memory or of the system."""
    text = str(error)
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in OUT_OF_MEMORY):
        return f"out of memory ({' '.join(text.split())[:120] or 'no memory left'})"
    if any(sign in text for sign in ENDED_BY_SYSTEM):
        return DISPLAY
    return None


def explain(error: BaseException, model: GPTConfig, train: TrainConfig) -> str | None:
    """The cause and what to do about it in training, or None where there is no such cause."""
    found = cause(error)
    if found is None:
        return None
    first = "switch the display off and run under caffeinate -s, or " if found == DISPLAY else ""
    return f"{found}: {first}{advice(model, train)}"


def advice(model: GPTConfig, train: TrainConfig, room: int | None = None) -> str:
    """Which flags to lower and to what, with the memory of a step before and after in GiB, by `training_memory`.

    The micro-batch is the largest smaller one that divides the sequences of a step and, if what the step takes now is
    beyond the machine's memory (`room`, bytes), does not take more than that.
    """
    room = room or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    now = training_memory(model, train)
    sequences = train.sequences_per_step
    smaller = [
        dataclasses.replace(train, micro_batch_size=size, accumulation=sequences // size)
        for size in range(train.micro_batch_size - 1, 0, -1)
        if sequences % size == 0
    ]
    if not smaller:
        half = dataclasses.replace(model, block_size=max(1, model.block_size // 2))
        return (
            f"--micro-batch-size is 1 already: lower --block-size to {half.block_size} (about "
            f"{_gib(training_memory(half, train))} GiB instead of {_gib(now)}), --n-layer or --n-embd, in another --run"
        )
    fitting = [choice for choice in smaller if now <= room or training_memory(model, choice) <= room]
    chosen = (fitting or smaller[-1:])[0]
    kept = -(-train.val_batches * train.micro_batch_size // chosen.micro_batch_size)
    return (
        f"lower --micro-batch-size to {chosen.micro_batch_size} and raise --accumulation to {chosen.accumulation}, which keeps "
        f"the {tokens_per_step(model, train):,} tokens of a step, with --val-batches {kept} for as much validation (about "
        f"{_gib(training_memory(model, chosen))} GiB instead of {_gib(now)})"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"
