"""GPT-2, or Qwen3, in MLX: what `GPTConfig` chooses.

- decoder-only transformer, pre-norm (LayerNorm, or RMSNorm), residual stream in float32
- positions: learned, or rotated queries and keys (RoPE)
- attention: fused, causal, within a row if sequences are packed; `reference_attention` is the same in readable form
- MLP: tanh GELU, 4 C wide, or SwiGLU, 8/3 C wide
- the head is the embedding: one tensor `wte.weight`
- half precision: MLX has no autocast, so `Linear` casts what it multiplies; weights stay float32

Shapes: B batch, T tokens, C width, H heads, D head width, V vocab; S tokens seen so far, with a cache;
P places of dropout.
Twin of torch_gpt/model.py: keep the order of the definitions. Names follow gpt_core/names.py.
"""

import math

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from gpt_core.config import RMS_EPS, ROPE_BASE, GPTConfig
from mlx_gpt import functional as F
from mlx_gpt.loss import head_loss
from mlx_gpt.recompute import linear_of_gelu


class KVCache:
    """Keys and values of the tokens seen so far, (B, H, S, D) a layer, in buffers with room for a whole context."""

    def __init__(self, block_size: int):
        self.block_size = block_size
        self.length: int | array = 0
        """S, tokens seen so far; the model counts on after its last layer. An array in `one_token.Places`."""
        self.seen_BTS: array | None = None
        """Which keys of those that `extend` returns count, bool; None for all of them, up to each query."""
        self.keys: list[array] = []
        self.values: list[array] = []

    def extend(self, layer: int, k_BHTD: array, v_BHTD: array) -> tuple[array, array]:
        """Writes new tokens behind the others and returns views of all of them, (B, H, S + T, D) each."""
        if layer == len(self.keys):
            B, H, _, D = k_BHTD.shape
            for buffers in (self.keys, self.values):
                buffers.append(mx.zeros((B, H, self.block_size, D), k_BHTD.dtype))
        keys, values = self.keys[layer], self.values[layer]
        end = self.length + k_BHTD.shape[2]
        keys[:, :, self.length : end] = k_BHTD
        values[:, :, self.length : end] = v_BHTD
        return keys[:, :, :end], values[:, :, :end]


def row_mask(positions_BT: array) -> array:
    """Which tokens each may see, (B, T, S = T) bool: itself and, at position p of its row, the p tokens before it."""
    index_T = mx.arange(positions_BT.shape[1])
    first_BT = index_T - positions_BT
    return (index_T <= index_T[:, None]) & (index_T >= first_BT[:, :, None])


def attention(q_BHTD: array, k_BHSD: array, v_BHSD: array, seen_BTS: array | None = None) -> array:
    """Causal attention by the fused kernel, (B, H, T, D). Either T = S, or T = 1 with S tokens in the cache.

    `seen_BTS` (bool), as of `row_mask`, replaces the causal mask.
    """
    return F.attention(q_BHTD, k_BHSD, v_BHSD, seen_BTS)


def reference_attention(q_BHTD: array, k_BHSD: array, v_BHSD: array, seen_BTS: array | None = None) -> array:
    """softmax(q k^T / sqrt(D)) v over the tokens up to each query (Vaswani et al. 2017, section 3.2.1), or over `seen_BTS`."""
    T, S, D = q_BHTD.shape[2], k_BHSD.shape[2], q_BHTD.shape[3]
    scores_BHTS = q_BHTD @ k_BHSD.swapaxes(2, 3) / math.sqrt(D)
    seen_TS = mx.tril(mx.ones((T, S), dtype=mx.bool_), k=S - T)
    seen_B1TS = seen_TS if seen_BTS is None else seen_BTS[:, None]
    weights_BHTS = mx.softmax(mx.where(seen_B1TS, scores_BHTS, -mx.inf), axis=-1)
    return weights_BHTS @ v_BHSD


def rotate(x_BHTD: array, first: int | array) -> array:
    """Turns the pair of values (i, i + D/2) at position p by the angle p / 10,000^(2i / D), as Llama and Qwen lay RoPE out.

    Su et al. 2021, equation 34. Position `first` is that of the first token here.
    """
    return mx.fast.rope(x_BHTD, x_BHTD.shape[3], traditional=False, base=ROPE_BASE, scale=1.0, offset=first)


def dropped(x_BTC: array, kept_BPTC: array | None, place: int) -> array:
    """Times the factors of one of P places in the model: 0 for what is dropped, 1 / (1 - rate) for the rest."""
    return x_BTC if kept_BPTC is None else x_BTC * kept_BPTC[:, place]


def make_norm(config: GPTConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016), or RMSNorm (Zhang and Sennrich 2019), over C values."""
    return nn.LayerNorm(config.n_embd, eps=1e-5) if config.norm == "layernorm" else nn.RMSNorm(config.n_embd, eps=RMS_EPS)


class Linear(nn.Linear):
    """x W^T + b in `compute` precision; the weights stay float32."""

    def __init__(self, width_in: int, width_out: int, bias: bool, compute: mx.Dtype):
        super().__init__(width_in, width_out, bias)
        self.compute = compute

    def __call__(self, x: array) -> array:
        """(..., in) -> (..., out), in `compute` precision."""
        x, weight = x.astype(self.compute), self.weight.astype(self.compute)
        return mx.addmm(self.bias.astype(self.compute), x, weight.T) if "bias" in self else x @ weight.T


class Attention(nn.Module):
    """Multi-head causal self-attention; queries and keys with RMSNorm if `qk_norm` (Dehghani et al. 2023, section 2)."""

    def __init__(self, config: GPTConfig, compute: mx.Dtype):
        super().__init__()
        self.n_head, self.rotates, D = config.n_head, config.positions == "rope", config.n_embd // config.n_head
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd, config.bias, compute)
        self.q_norm = nn.RMSNorm(D, eps=RMS_EPS) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(D, eps=RMS_EPS) if config.qk_norm else None
        self.c_proj = Linear(config.n_embd, config.n_embd, config.bias, compute)

    def __call__(self, x_BTC: array, layer: int, cache: KVCache | None, seen_BTS: array | None) -> array:
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x_BTC.shape
        q, k, v = mx.split(self.c_attn(x_BTC), 3, axis=2)
        q = q.reshape(B, T, self.n_head, -1).swapaxes(1, 2)
        k = k.reshape(B, T, self.n_head, -1).swapaxes(1, 2)
        v = v.reshape(B, T, self.n_head, -1).swapaxes(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = (norm(x.astype(norm.weight.dtype)).astype(x.dtype) for norm, x in ((self.q_norm, q), (self.k_norm, k)))
        if self.rotates:
            first = cache.length if cache is not None else 0
            q, k = rotate(q, first), rotate(k, first)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        y_BTC = attention(q, k, v, seen_BTS).swapaxes(1, 2).reshape(B, T, C)
        return self.c_proj(y_BTC)


class MLP(nn.Module):
    """Two linear layers around a tanh GELU (Hendrycks and Gimpel 2016)."""

    def __init__(self, config: GPTConfig, compute: mx.Dtype):
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.n_hidden, config.bias, compute)
        self.c_proj = Linear(config.n_hidden, config.n_embd, config.bias, compute)

    def __call__(self, x_BTC: array) -> array:
        """(B, T, C) -> (B, T, C)."""
        return linear_of_gelu(self.c_proj, self.c_fc(x_BTC))


class SwiGLU(nn.Module):
    """Two linear layers, and a third whose SiLU gates what is between them (Shazeer 2020)."""

    def __init__(self, config: GPTConfig, compute: mx.Dtype):
        super().__init__()
        self.c_gate = Linear(config.n_embd, config.n_hidden, config.bias, compute)
        self.c_fc = Linear(config.n_embd, config.n_hidden, config.bias, compute)
        self.c_proj = Linear(config.n_hidden, config.n_embd, config.bias, compute)

    def __call__(self, x_BTC: array) -> array:
        """(B, T, C) -> (B, T, C)."""
        return self.c_proj(F.silu(self.c_gate(x_BTC)) * self.c_fc(x_BTC))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: GPTConfig, compute: mx.Dtype):
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = Attention(config, compute)
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config, compute) if config.mlp == "gelu" else SwiGLU(config, compute)

    def __call__(
        self, x_BTC: array, layer: int, cache: KVCache | None, seen_BTS: array | None, kept_BPTC: array | None
    ) -> array:
        """(B, T, C) -> (B, T, C)."""
        x_BTC = x_BTC + dropped(self.attn(self.ln_1(x_BTC), layer, cache, seen_BTS), kept_BPTC, 2 * layer + 1)
        return x_BTC + dropped(self.mlp(self.ln_2(x_BTC)), kept_BPTC, 2 * layer + 2)


class GPT(nn.Module):
    """The language model."""

    def __init__(self, config: GPTConfig, compute: mx.Dtype = mx.float32):
        super().__init__()
        self.compute, self.block_size = compute, config.block_size
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.positions == "learned" else None
        self.h = [Block(config, compute) for _ in range(config.n_layer)]
        self.ln_f = make_norm(config)

    def __call__(
        self,
        idx_BT: array,
        cache: KVCache | None = None,
        positions_BT: array | None = None,
        kept_BPTC: array | None = None,
        loss_of: tuple[array, array] | None = None,
    ) -> array:
        """Token ids (B, T) -> logits (B, T, V), float32.

        With a cache, idx holds the new tokens only, and the logits are those after the last of them, (B, 1, V).
        `positions_BT` are those of tokens in their rows where several rows are packed into a sequence: none sees another.
        `kept_BPTC` are the factors of dropout, as of `dropped`. With `loss_of`, targets and factors (B, T) each, the sum of
        factor x nats comes instead of logits, a scalar.
        """
        seen_BTS = cache.seen_BTS if cache is not None else None if positions_BT is None else row_mask(positions_BT)
        if positions_BT is None:
            first = cache.length if cache is not None else 0
            positions_BT = first + mx.arange(idx_BT.shape[1])
        x_BTC = self.wte(idx_BT)
        if self.wpe is not None:
            x_BTC = x_BTC + self.wpe(positions_BT)
        x_BTC = dropped(x_BTC, kept_BPTC, 0)
        for layer, block in enumerate(self.h):
            x_BTC = block(x_BTC, layer, cache, seen_BTS, kept_BPTC)
        if cache is not None:
            cache.length += idx_BT.shape[1]
            x_BTC = x_BTC[:, -1:]
        x_BTC, weight_VC = self.ln_f(x_BTC).astype(self.compute), self.wte.weight.astype(self.compute)
        if loss_of is not None:
            return head_loss(x_BTC.flatten(0, 1), weight_VC, *(values_BT.flatten() for values_BT in loss_of))
        return (x_BTC @ weight_VC.T).astype(mx.float32)
