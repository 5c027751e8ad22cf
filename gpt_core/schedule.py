"""The learning rate as a pure function of the step."""

import math

from gpt_core.config import TrainConfig


def lr_at(step: int, config: TrainConfig, total_steps: int) -> float:
    """Learning rate of optimizer step `step` (0-based) of `total_steps`.

    Warm-up is linear and reaches the peak at step `warmup_steps`; its first step is above zero. A decay then goes from
    the peak to `min_lr`, which it would reach at step `total_steps`, one past the last. A run shorter than its warm-up
    never reaches the peak.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / (total_steps - config.warmup_steps)
    remaining = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.min_lr + (config.lr - config.min_lr) * remaining
