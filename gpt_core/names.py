"""The contract table: every parameter of the model, by name. Counts, decay, initial weights and files derive from it."""

import math
from typing import NamedTuple

from gpt_core.config import GPTConfig, TrainConfig


class Parameter(NamedTuple):
    """One row of the table. Matrices are stored (out, in), as both frameworks' Linear layers hold them."""

    name: str
    shape: tuple[int, ...]
    decays: bool
    """Whether weight decay applies: to matrices only, not to biases and norms."""
    init: float | None
    """Standard deviation of the normal initial values; None for a norm's scale (ones), 0.0 for zeros."""


def parameters(config: GPTConfig) -> list[Parameter]:
    """The table for a configuration, in the order of the forward pass.

    Initial values: normal with 0.02, the two projections into the residual stream with 0.02 / sqrt(2 L)
    (GPT-2, Radford et al. 2019, section 2.3).
    """
    C, D, std = config.n_embd, config.n_embd // config.n_head, 0.02
    residual_std = std / math.sqrt(2 * config.n_layer)

    def linear(name: str, width_out: int, width_in: int, init: float) -> list[Parameter]:
        bias = [Parameter(f"{name}.bias", (width_out,), False, 0.0)] if config.bias else []
        return [Parameter(f"{name}.weight", (width_out, width_in), True, init), *bias]

    def norm(name: str) -> list[Parameter]:
        bias = [Parameter(f"{name}.bias", (C,), False, 0.0)] if config.norm == "layernorm" else []
        return [Parameter(f"{name}.weight", (C,), False, None), *bias]

    table = [Parameter("wte.weight", (config.vocab_size, C), True, std)]
    if config.positions == "learned":
        table += [Parameter("wpe.weight", (config.block_size, C), True, std)]
    for layer in range(config.n_layer):
        h = f"h.{layer}"
        table += norm(f"{h}.ln_1")
        table += linear(f"{h}.attn.c_attn", 3 * C, C, std)
        if config.qk_norm:
            table += [Parameter(f"{h}.attn.{part}_norm.weight", (D,), False, None) for part in "qk"]
        table += linear(f"{h}.attn.c_proj", C, C, residual_std)
        table += norm(f"{h}.ln_2")
        if config.mlp == "swiglu":
            table += linear(f"{h}.mlp.c_gate", config.n_hidden, C, std)
        table += linear(f"{h}.mlp.c_fc", config.n_hidden, C, std)
        table += linear(f"{h}.mlp.c_proj", C, config.n_hidden, residual_std)
    return table + norm("ln_f")


def by_muon(name: str, ndim: int, train: TrainConfig) -> bool:
    """Whether Muon updates a parameter: where it is chosen, the matrices of the layers, not the embeddings."""
    return train.optimizer == "muon" and name.startswith("h.") and ndim == 2


def moment_shapes(model: GPTConfig, train: TrainConfig) -> dict[str, tuple[int, ...]]:
    """What the optimizer remembers, by name: `<name>.m` and `<name>.v` of AdamW, `<name>.m` of Muon."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape, *_ in parameters(model):
        shapes |= {f"{name}.{moment}": shape for moment in ("m" if by_muon(name, len(shape), train) else "mv")}
    return shapes


def parameter_count(config: GPTConfig) -> int:
    """Parameters in all; the tied head adds none."""
    return sum(math.prod(parameter.shape) for parameter in parameters(config))
