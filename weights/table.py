"""The one place of names: contract, Hugging Face and GGUF, a table an architecture, `{layer}` for the number of a block."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig
from gpt_core.errors import InputError


class Row(NamedTuple):
    """A parameter under its three names. Contract and GGUF hold matrices (out, in); Hugging Face's Conv1D (in, out)."""

    twin: str
    hf: str
    gguf: str
    conv1d: bool = False
    third: int | None = None
    """Which third of the contract's rows it is, where queries, keys and values are tensors of their own elsewhere."""
    by_head: bool = False
    """Whether Hugging Face's rows are those of one head after another, each with its query, key and value."""
    again: tuple[str, str] | None = None
    """Names in Hugging Face and GGUF for the head, where a tool does not tie it to the embedding by itself."""


GPT2 = (
    Row("wte.weight", "wte.weight", "token_embd.weight"),
    Row("wpe.weight", "wpe.weight", "position_embd.weight"),
    Row("h.{layer}.ln_1.weight", "h.{layer}.ln_1.weight", "blk.{layer}.attn_norm.weight"),
    Row("h.{layer}.ln_1.bias", "h.{layer}.ln_1.bias", "blk.{layer}.attn_norm.bias"),
    Row("h.{layer}.attn.c_attn.weight", "h.{layer}.attn.c_attn.weight", "blk.{layer}.attn_qkv.weight", conv1d=True),
    Row("h.{layer}.attn.c_attn.bias", "h.{layer}.attn.c_attn.bias", "blk.{layer}.attn_qkv.bias"),
    Row("h.{layer}.attn.c_proj.weight", "h.{layer}.attn.c_proj.weight", "blk.{layer}.attn_output.weight", conv1d=True),
    Row("h.{layer}.attn.c_proj.bias", "h.{layer}.attn.c_proj.bias", "blk.{layer}.attn_output.bias"),
    Row("h.{layer}.ln_2.weight", "h.{layer}.ln_2.weight", "blk.{layer}.ffn_norm.weight"),
    Row("h.{layer}.ln_2.bias", "h.{layer}.ln_2.bias", "blk.{layer}.ffn_norm.bias"),
    Row("h.{layer}.mlp.c_fc.weight", "h.{layer}.mlp.c_fc.weight", "blk.{layer}.ffn_up.weight", conv1d=True),
    Row("h.{layer}.mlp.c_fc.bias", "h.{layer}.mlp.c_fc.bias", "blk.{layer}.ffn_up.bias"),
    Row("h.{layer}.mlp.c_proj.weight", "h.{layer}.mlp.c_proj.weight", "blk.{layer}.ffn_down.weight", conv1d=True),
    Row("h.{layer}.mlp.c_proj.bias", "h.{layer}.mlp.c_proj.bias", "blk.{layer}.ffn_down.bias"),
    Row("ln_f.weight", "ln_f.weight", "output_norm.weight"),
    Row("ln_f.bias", "ln_f.bias", "output_norm.bias"),
)

_QWEN = "model.layers.{layer}"
QWEN3 = (  # llama.cpp rotates the pairs (i, i + D/2) for it, as the twins do: queries and keys keep their order
    Row("wte.weight", "model.embed_tokens.weight", "token_embd.weight"),
    Row("h.{layer}.ln_1.weight", f"{_QWEN}.input_layernorm.weight", "blk.{layer}.attn_norm.weight"),
    Row("h.{layer}.attn.c_attn.weight", f"{_QWEN}.self_attn.q_proj.weight", "blk.{layer}.attn_q.weight", third=0),
    Row("h.{layer}.attn.c_attn.weight", f"{_QWEN}.self_attn.k_proj.weight", "blk.{layer}.attn_k.weight", third=1),
    Row("h.{layer}.attn.c_attn.weight", f"{_QWEN}.self_attn.v_proj.weight", "blk.{layer}.attn_v.weight", third=2),
    Row("h.{layer}.attn.q_norm.weight", f"{_QWEN}.self_attn.q_norm.weight", "blk.{layer}.attn_q_norm.weight"),
    Row("h.{layer}.attn.k_norm.weight", f"{_QWEN}.self_attn.k_norm.weight", "blk.{layer}.attn_k_norm.weight"),
    Row("h.{layer}.attn.c_proj.weight", f"{_QWEN}.self_attn.o_proj.weight", "blk.{layer}.attn_output.weight"),
    Row("h.{layer}.ln_2.weight", f"{_QWEN}.post_attention_layernorm.weight", "blk.{layer}.ffn_norm.weight"),
    Row("h.{layer}.mlp.c_gate.weight", f"{_QWEN}.mlp.gate_proj.weight", "blk.{layer}.ffn_gate.weight"),
    Row("h.{layer}.mlp.c_fc.weight", f"{_QWEN}.mlp.up_proj.weight", "blk.{layer}.ffn_up.weight"),
    Row("h.{layer}.mlp.c_proj.weight", f"{_QWEN}.mlp.down_proj.weight", "blk.{layer}.ffn_down.weight"),
    Row("ln_f.weight", "model.norm.weight", "output_norm.weight"),
)

_NEOX = "gpt_neox.layers.{layer}"
GPT_NEOX = (  # rotated as Qwen3 is; llama.cpp splits attn_qkv in thirds, as the contract does, and not head by head
    Row("wte.weight", "gpt_neox.embed_in.weight", "token_embd.weight", again=("embed_out.weight", "output.weight")),
    Row("h.{layer}.ln_1.weight", f"{_NEOX}.input_layernorm.weight", "blk.{layer}.attn_norm.weight"),
    Row("h.{layer}.ln_1.bias", f"{_NEOX}.input_layernorm.bias", "blk.{layer}.attn_norm.bias"),
    Row(
        "h.{layer}.attn.c_attn.weight", f"{_NEOX}.attention.query_key_value.weight", "blk.{layer}.attn_qkv.weight", by_head=True
    ),
    Row("h.{layer}.attn.c_attn.bias", f"{_NEOX}.attention.query_key_value.bias", "blk.{layer}.attn_qkv.bias", by_head=True),
    Row("h.{layer}.attn.c_proj.weight", f"{_NEOX}.attention.dense.weight", "blk.{layer}.attn_output.weight"),
    Row("h.{layer}.attn.c_proj.bias", f"{_NEOX}.attention.dense.bias", "blk.{layer}.attn_output.bias"),
    Row("h.{layer}.ln_2.weight", f"{_NEOX}.post_attention_layernorm.weight", "blk.{layer}.ffn_norm.weight"),
    Row("h.{layer}.ln_2.bias", f"{_NEOX}.post_attention_layernorm.bias", "blk.{layer}.ffn_norm.bias"),
    Row("h.{layer}.mlp.c_fc.weight", f"{_NEOX}.mlp.dense_h_to_4h.weight", "blk.{layer}.ffn_up.weight"),
    Row("h.{layer}.mlp.c_fc.bias", f"{_NEOX}.mlp.dense_h_to_4h.bias", "blk.{layer}.ffn_up.bias"),
    Row("h.{layer}.mlp.c_proj.weight", f"{_NEOX}.mlp.dense_4h_to_h.weight", "blk.{layer}.ffn_down.weight"),
    Row("h.{layer}.mlp.c_proj.bias", f"{_NEOX}.mlp.dense_4h_to_h.bias", "blk.{layer}.ffn_down.bias"),
    Row("ln_f.weight", "gpt_neox.final_layer_norm.weight", "output_norm.weight"),
    Row("ln_f.bias", "gpt_neox.final_layer_norm.bias", "output_norm.bias"),
)
SHOWN, LETTERS = 5, 80  # names listed in an error, and letters of each, so that it stays one readable line


def rows(table: tuple[Row, ...], n_layer: int) -> list[Row]:
    """The table with every layer's number filled in."""
    single = [row for row in table if "{layer}" not in row.twin]
    blocks = [row for row in table if "{layer}" in row.twin]
    filled = [
        row._replace(twin=row.twin.format(layer=layer), hf=row.hf.format(layer=layer), gguf=row.gguf.format(layer=layer))
        for layer in range(n_layer)
        for row in blocks
    ]
    return single + filled


def layers_in(names: Iterable[str]) -> int:
    """Blocks that Hugging Face names speak of: one more than the highest number in `h.N.` or `....layers.N.`."""
    found = [int(match[1]) for name in names if (match := re.match(r"(?:h|(?:model|gpt_neox)\.layers)\.(\d{1,6})\.", name))]
    return max(found, default=-1) + 1


def refuse_left_over(expected: Iterable[str], given: Iterable[str], origin: str) -> None:
    """Raises InputError listing the names that are only on one side."""
    missing, extra = set(expected) - set(given), set(given) - set(expected)
    if missing or extra:
        raise InputError(f"{origin} does not fit its config: missing {_listed(missing)}; left over {_listed(extra)}")


def to_hf(weights: Arrays, model: GPTConfig, table: tuple[Row, ...]) -> Arrays:
    """Contract weights under Hugging Face's names, matrices of Conv1D layers turned to (in, out)."""
    filled = rows(table, model.n_layer)
    refuse_left_over([row.twin for row in filled], weights, "the checkpoint")
    tensors = {row.hf: _stored(row, weights, model.n_head) for row in filled}
    return tensors | {row.again[0]: weights[row.twin] for row in filled if row.again}


def to_gguf(weights: Arrays, n_layer: int, table: tuple[Row, ...]) -> Arrays:
    """Contract weights under GGUF's names; the layout is the same."""
    filled = rows(table, n_layer)
    refuse_left_over([row.twin for row in filled], weights, "the checkpoint")
    return {row.gguf: _part(row, weights) for row in filled} | {row.again[1]: weights[row.twin] for row in filled if row.again}


def from_hf(tensors: Arrays, filled: list[Row], n_head: int) -> Arrays:
    """The inverse of `to_hf` on tensors whose Conv1D layers are turned back: thirds become one tensor again, a copy."""
    parts: dict[str, list[np.ndarray]] = {}
    for row in filled:
        value = tensors[row.hf]
        parts.setdefault(row.twin, []).append(_regrouped(value, n_head, 3) if row.by_head else value)
    return {name: found[0] if len(found) == 1 else np.concatenate(found) for name, found in parts.items()}


def stored_shape(row: Row, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that Hugging Face's tensor has, Conv1D's turning left aside, for the contract's shape."""
    return shape if row.third is None else (shape[0] // 3, *shape[1:])


def _part(row: Row, weights: Arrays) -> np.ndarray:
    value = weights[row.twin]
    return value if row.third is None else np.split(value, 3)[row.third]


def _stored(row: Row, weights: Arrays, n_head: int) -> np.ndarray:
    value = _part(row, weights)
    return value.T if row.conv1d else _regrouped(value, 3, n_head) if row.by_head else value


def _regrouped(value: np.ndarray, outer: int, inner: int) -> np.ndarray:
    """Rows in `outer` groups of `inner` blocks -> in `inner` groups of `outer` blocks, a copy."""
    return value.reshape(outer, inner, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)


def _listed(names: set[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(name[:LETTERS] for name in sorted(names)[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
