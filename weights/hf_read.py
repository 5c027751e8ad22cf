"""Reading a Hugging Face GPT-2 folder: ours, one saved by transformers, or OpenAI's of any size."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from gpt_core.config import GPTConfig, from_dict
from gpt_core.errors import InputError
from weights.source import Source, contract_weights, records_from_dict
from weights.tensors import Tensor, Tensors, open_folder, read_json
from weights.tokenizer import read_tokenizer, refuse_too_many

RECORDS = "darija_gpt"
"""Key of our own records in config.json; transformers and mlx-lm carry unknown keys along."""
FIELDS = {"vocab_size": "vocab_size", "n_positions": "block_size", "n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd"}
FIXED: dict[str, tuple[Any, ...]] = {  # what the twins compute, and nothing else; first the default of transformers
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
PREFIXES = re.compile(r"^(?:_orig_mod\.|module\.|transformer\.)+")
BUFFERS = re.compile(r"h\.\d+\.attn\.(?:bias|masked_bias)")  # causal masks that old versions stored


def read_hf(folder: Path) -> Source:
    """A folder with config.json, safetensors weights and tokenizer.json. Raises InputError."""
    config = read_json(folder / "config.json")
    model = read_config(config, str(folder / "config.json"))
    text, tokenizer = read_tokenizer(folder / "tokenizer.json")
    refuse_too_many(tokenizer, model.vocab_size, str(folder))
    weights = contract_weights(plain_names(open_folder(folder), str(folder)), model, conv1d=True, origin=str(folder))
    if RECORDS not in config:
        return Source(folder, model, weights, text)
    records = records_from_dict(config[RECORDS], str(folder / "config.json"))
    return Source(folder, model, weights, text, records, known=True)


def read_config(config: dict[str, Any], origin: str) -> GPTConfig:
    """The architecture in a GPT-2 config.json; InputError for everything that the twins would compute differently."""
    if config.get("model_type") != "gpt2":
        raise InputError(f"{origin} has model_type {_shown(config.get('model_type'))}, expected 'gpt2': no other is converted")
    if "quantization" in config or "quantization_config" in config:
        raise InputError(f"{origin} is of a quantized model: give the folder that it was made from")
    missing = [name for name in FIELDS if name not in config]
    if missing:
        raise InputError(f"{origin} has no {', '.join(missing)}: restore the file")
    model = from_dict(GPTConfig, {ours: config[theirs] for theirs, ours in FIELDS.items()}, origin)
    for name, allowed in FIXED.items():
        value = config.get(name, allowed[0])
        if not any(value == choice for choice in allowed):
            raise InputError(f"{origin} has {name} {_shown(value)}, the twins compute {allowed[0]!r}: it cannot be converted")
    if config.get("n_inner") not in (None, 4 * model.n_embd):
        raise InputError(f"{origin} has n_inner {_shown(config['n_inner'])}, the twins compute 4 x n_embd")
    return model


def plain_names(tensors: Tensors, origin: str) -> dict[str, Tensor]:
    """Tensors without the prefixes of wrappers, without masks, and without a head that repeats the embedding."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = PREFIXES.sub("", name)
        if short in plain:
            raise InputError(f"{origin} holds {short} twice, once as {name}: restore the file")
        if not BUFFERS.fullmatch(short):
            plain[short] = tensor
    head, embedding = plain.pop("lm_head.weight", None), plain.get("wte.weight")
    if head and embedding and (head.shape != embedding.shape or not np.array_equal(head.read(), embedding.read())):
        raise InputError(f"{origin} has an lm_head.weight other than wte.weight: the twins tie them, it cannot be converted")
    return plain


def _shown(value: Any) -> str:
    return repr(value)[:60]
