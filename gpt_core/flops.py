"""Floating-point operations and memory of a training step, from the configuration alone."""

import math

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.names import by_muon, parameter_count, parameters

MUON_ITERATIONS = 5
"""Of Newton and Schulz, an update, in both twins."""


def flops_per_token(config: GPTConfig) -> int:
    """Forward and backward FLOPs a token: 6 N + 12 L d T (PaLM, Chowdhery et al. 2022, Appendix B).

    N counts every parameter but the position table, which is only looked up; the tied embedding counts once, as the
    head. Attention counts the full square: the causal half is not subtracted, as is usual in published figures.
    """
    wpe = sum(math.prod(p.shape) for p in parameters(config) if p.name == "wpe.weight")
    matmul_parameters = parameter_count(config) - wpe
    return 6 * matmul_parameters + 12 * config.n_layer * config.n_embd * config.block_size


def optimizer_flops(config: GPTConfig, train: TrainConfig) -> int:
    """FLOPs of one update: about 15 a parameter (AdamW), and the products of Muon's iterations, 4 r^2 c + 2 r^3 each for a
    matrix of r rows and c >= r columns, or the other way round (torch_gpt/muon.py)."""
    total = 15 * parameter_count(config)
    for name, shape, *_ in parameters(config):
        if by_muon(name, len(shape), train):
            r, c = sorted(shape)
            total += MUON_ITERATIONS * (4 * r * r * c + 2 * r**3)
    return total


def mfu(config: GPTConfig, tokens_per_s: float, peak_tflops: float) -> float:
    """Model FLOPs utilization, a fraction of `peak_tflops` (1e12 FLOP/s): achieved FLOPs over the chip's peak."""
    return flops_per_token(config) * tokens_per_s / (peak_tflops * 1e12)


def tokens_per_step(config: GPTConfig, train: TrainConfig) -> int:
    """Tokens of one optimizer step, over all micro-batches."""
    return train.sequences_per_step * config.block_size


def training_memory(config: GPTConfig, train: TrainConfig) -> int:
    """Estimated bytes of a training step: an order of magnitude to choose a batch by, not a measurement.

    Weights, gradients and two moments take 16 bytes a parameter. Kept for the backward pass, a token: about 18 C
    values a layer (two norms, q k v, attention out, projection, 4C before and after GELU, residuals), and the logits,
    their softmax and their gradient, all in float32.
    """
    kept = 18 * config.n_layer * config.n_embd + 3 * config.vocab_size
    return 16 * parameter_count(config) + 4 * kept * train.micro_batch_size * config.block_size
