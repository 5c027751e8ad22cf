"""Reading a Hugging Face folder of GPT-2, GPT-NeoX or Qwen3: ours, one saved by transformers, or OpenAI's of any size."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from gpt_core.config import GPTConfig, from_dict
from gpt_core.errors import InputError
from gpt_core.files import read_json
from weights.architectures import Architecture, architecture_of, named
from weights.source import Source, contract_weights, records_from_dict
from weights.tensors import Tensor, Tensors, open_folder
from weights.tokenizer import read_tokenizer, refuse_too_many

RECORDS = "darija_gpt"
"""Key of our own records in config.json; transformers and mlx-lm carry unknown keys along."""
BUFFERS = re.compile(r"(?:h\.\d+\.attn|gpt_neox\.layers\.\d+\.attention)\.(?:bias|masked_bias|rotary_emb\.inv_freq)")
"""Causal masks and frequencies, which old versions stored with GPT-2 and GPT-NeoX."""
HEADS = ("lm_head.weight", "embed_out.weight")


def read_hf(folder: Path) -> Source:
    """A folder with config.json, safetensors weights and tokenizer.json. Raises InputError."""
    config = read_json(folder / "config.json")
    model = read_config(config, str(folder / "config.json"))
    text, tokenizer = read_tokenizer(folder / "tokenizer.json")
    refuse_too_many(tokenizer, model.vocab_size, str(folder))
    tensors = plain_names(open_folder(folder), architecture_of(model, str(folder)), str(folder))
    weights = contract_weights(tensors, model, conv1d=True, origin=str(folder))
    if RECORDS not in config:
        return Source(folder, model, weights, text)
    records = records_from_dict(config[RECORDS], str(folder / "config.json"))
    return Source(folder, model, weights, text, records, known=True)


def read_config(config: dict[str, Any], origin: str) -> GPTConfig:
    """The model in a config.json; InputError for everything that the twins would compute differently."""
    architecture = named(config.get("model_type"), origin)
    if "quantization" in config or "quantization_config" in config:
        raise InputError(f"{origin} is of a quantized model: give the folder that it was made from")
    missing = [name for name in architecture.fields if name not in config]
    if missing:
        raise InputError(f"{origin} has no {', '.join(missing)}: restore the file")
    sizes = {ours: config[theirs] for theirs, ours in architecture.fields.items()}
    model = from_dict(GPTConfig, sizes | architecture.options, origin)
    rope = config.get("rope_parameters")
    config = {
        architecture.rope[name]: rope[name] for name in architecture.rope if isinstance(rope, dict) and name in rope
    } | config
    for name, allowed in architecture.allowed(model).items():
        value = _each_once(config.get(name, architecture.absent.get(name, allowed[0])))
        if not any(value == choice for choice in allowed):
            raise InputError(f"{origin} has {name} {_shown(value)}, the twins compute {allowed[0]!r}: it cannot be converted")
    return model


def plain_names(tensors: Tensors, architecture: Architecture, origin: str) -> dict[str, Tensor]:
    """Tensors without the prefixes of wrappers, without masks, and without a head that repeats the embedding."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = re.sub(architecture.prefixes, "", name)
        if short in plain:
            raise InputError(f"{origin} holds {short} twice, once as {name}: restore the file")
        if not BUFFERS.fullmatch(short):
            plain[short] = tensor
    embedding = plain.get(architecture.embedding)
    for name in HEADS:
        head = plain.pop(name, None)
        if head and embedding and (head.shape != embedding.shape or not np.array_equal(head.read(), embedding.read())):
            raise InputError(
                f"{origin} has an {name} other than {architecture.embedding}: the twins tie them, it cannot be converted"
            )
    return plain


def _each_once(value: Any) -> Any:
    """A list's words without repetitions: one that says the same of every layer says it once."""
    return sorted({str(word) for word in value}) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return repr(value)[:60]
