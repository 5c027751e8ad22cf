"""FLOPs and bytes of each part of a training step in float32: what the roofline is made of. Derived, not measured.

m is the tokens of a micro-batch, A the micro-batches of a step, P the parameters; C, L, H, T, V as in the models.
Bytes are those of a kernel a line: read the inputs, write the output, caches ignored. So they are what an eager framework
moves at least; compiled element-wise chains move less.
"""

from typing import NamedTuple

from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.flops import MUON_ITERATIONS, optimizer_flops, tokens_per_step
from gpt_core.names import by_muon, parameter_count, parameters

FLOAT = 4
"""Bytes of a float32."""


class Part(NamedTuple):
    """Work of one part of an optimizer step, over all micro-batches."""

    name: str
    flops: float
    bytes: float
    matmul: bool = False
    """Whether it runs at the rate of matrix products."""


def parts(config: GPTConfig, train: TrainConfig) -> list[Part]:
    """The parts of a step. Matmuls and attention together are gpt_core.flops.flops_per_token less biases and norms."""
    C, L, T = config.n_embd, config.n_layer, config.block_size
    tokens, A = tokens_per_step(config, train), train.accumulation
    P = parameter_count(config)
    # A matrix of r rows and c >= r columns, an iteration: X X^T reads 2 rc and writes r^2, its square moves 3 r^2, b times the
    # one and c times the other 4 r^2, the product with X reads r^2 and rc and writes rc, a X and the sum move 5 rc.
    by_muon_shapes = [sorted(shape) for name, shape, *_ in parameters(config) if by_muon(name, len(shape), train)]
    muon_bytes = FLOAT * MUON_ITERATIONS * sum(9 * r * c + 9 * r * r for r, c in by_muon_shapes)
    muon = [Part("Muon", optimizer_flops(config, train) - 15 * P, muon_bytes, True)] if by_muon_shapes else []
    return [
        matmuls(config, train),
        # 12 L C T a token forward and backward (PaLM, Appendix B). Unfused, as MLX trains on Metal on purpose and torch on
        # MPS has it. Passes over the T x T scores: 4 forward (written; softmax reads and writes; read), 7 backward (dP
        # written; P and dP read, dS written; dS read twice, P once). Passes over q, k, v and outputs: 12.
        Part("attention", 12 * L * C * T * tokens, FLOAT * L * tokens * (11 * config.n_head * T + 12 * C), True),
        norms_and_activations(config, tokens),
        # Forward: maximum, exp, sum; backward: exp, scale, subtract. Logits are read twice, their gradient written once.
        Part("cross-entropy", 6 * config.vocab_size * tokens, FLOAT * 3 * config.vocab_size * tokens),
        Part("accumulation", A * P, FLOAT * 3 * P * A),  # the sum read, the new gradients read, the sum written
        Part("clipping", 3 * P, FLOAT * 3 * P),  # the norm reads; the scaling reads and writes
        # Fused: p, g, m, v read, p, m, v written. m 3, v 4, corrections 2, root, eps, division, decay, lr, update 6.
        Part("AdamW", 15 * P, FLOAT * 7 * P),
        *muon,
    ]


def matmuls(config: GPTConfig, train: TrainConfig) -> Part:
    """Linear layers and the tied head: 2 FLOPs a weight and token forward, 4 backward.

    Each of the three products (output, gradient of the input, gradient of the weight) touches two of the three matrices
    and writes the third; the weights are read anew for every micro-batch.
    """
    matrices = [p.shape for p in parameters(config) if len(p.shape) == 2 and p.name != "wpe.weight"]
    tokens, A = tokens_per_step(config, train), train.accumulation
    weights = sum(rows * columns for rows, columns in matrices)
    moved = sum(3 * (tokens * (rows + columns) + A * rows * columns) for rows, columns in matrices)
    return Part("matmuls", 6 * weights * tokens, FLOAT * moved, True)


def norms_and_activations(config: GPTConfig, tokens: int) -> Part:
    """LayerNorms, GELUs, residual additions, embedding.

    A value of a LayerNorm takes 7 FLOPs (mean, centre, square and sum, scale, affine 2) and of a tanh GELU 9; backward is
    counted twice that. Both read and write once forward, and read two and write one backward; an addition of two branches
    reads two and writes one, both ways. The embedding is as a residual addition. RMSNorm and SwiGLU are taken for the same.
    """
    C, L = config.n_embd, config.n_layer
    norms, wide, sums = (2 * L + 1) * C + 2 * C * L * config.qk_norm, config.n_hidden * L, (2 * L + 1) * C
    return Part(
        "norms, activations",
        tokens * (21 * norms + 27 * wide + 2 * sums),
        FLOAT * tokens * (5 * norms + 5 * wide + 6 * sums),
    )
