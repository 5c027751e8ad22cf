"""The one table of names: contract, Hugging Face GPT-2 and GGUF, with `{layer}` for the number of a block."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from gpt_core.checkpoint import Arrays
from gpt_core.errors import InputError


class Row(NamedTuple):
    """A parameter under its three names. Contract and GGUF hold matrices (out, in); Hugging Face's Conv1D (in, out)."""

    twin: str
    hf: str
    gguf: str
    conv1d: bool = False


TABLE = (
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
SHOWN, LETTERS = 5, 80  # names listed in an error, and letters of each, so that it stays one readable line


def rows(n_layer: int, table: tuple[Row, ...] = TABLE) -> list[Row]:
    """The table with every layer's number filled in."""
    single = [row for row in table if "{layer}" not in row.twin]
    blocks = [row for row in table if "{layer}" in row.twin]
    filled = [
        Row(row.twin.format(layer=layer), row.hf.format(layer=layer), row.gguf.format(layer=layer), row.conv1d)
        for layer in range(n_layer)
        for row in blocks
    ]
    return single + filled


def layers_in(names: Iterable[str]) -> int:
    """Blocks that contract or Hugging Face names speak of: one more than the highest number in `h.N.`."""
    found = [int(match[1]) for name in names if (match := re.match(r"h\.(\d{1,6})\.", name))]
    return max(found, default=-1) + 1


def refuse_left_over(expected: Iterable[str], given: Iterable[str], origin: str) -> None:
    """Raises InputError listing the names that are only on one side."""
    missing, extra = set(expected) - set(given), set(given) - set(expected)
    if missing or extra:
        raise InputError(f"{origin} does not fit its config: missing {_listed(missing)}; left over {_listed(extra)}")


def to_hf(weights: Arrays, n_layer: int, table: tuple[Row, ...] = TABLE) -> Arrays:
    """Contract weights under Hugging Face's names, matrices of linear layers turned to (in, out). No copies are made."""
    filled = rows(n_layer, table)
    refuse_left_over([row.twin for row in filled], weights, "the checkpoint")
    return {row.hf: weights[row.twin].T if row.conv1d else weights[row.twin] for row in filled}


def to_gguf(weights: Arrays, n_layer: int) -> Arrays:
    """Contract weights under GGUF's names; the layout is the same."""
    filled = rows(n_layer)
    refuse_left_over([row.twin for row in filled], weights, "the checkpoint")
    return {row.gguf: weights[row.twin] for row in filled}


def _listed(names: set[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(name[:LETTERS] for name in sorted(names)[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
