"""Writing a Hugging Face folder that transformers and mlx-lm load without flags."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from gpt_core.checkpoint import Arrays
from gpt_core.files import new_folder
from gpt_core.tokens import END_OF_TEXT
from weights.card import card
from weights.hf_read import RECORDS
from weights.source import Source, records_to_dict
from weights.table import to_hf
from weights.tensors import SINGLE
from weights.tokenizer import tokenizer_config, with_start


def write_hf(source: Source, folder: Path) -> None:
    """Writes the folder, complete or not at all; `folder` may be replaced."""
    tokenizer = Tokenizer.from_str(source.tokenizer)
    end, used = int(tokenizer.token_to_id(END_OF_TEXT) or 0), int(tokenizer.get_vocab_size())
    with new_folder(folder) as beside:
        save_tensors(to_hf(source.weights, source.model, source.architecture.table), beside / SINGLE)
        _write_json(beside / "config.json", config(source, end))
        _write_json(beside / "generation_config.json", generation_config(end, used, source.model.vocab_size))
        _write_json(beside / "tokenizer_config.json", tokenizer_config(source.model.block_size))
        (beside / "tokenizer.json").write_text(with_start(source.tokenizer), encoding="utf-8")
        (beside / "README.md").write_text(card(source, folder.name), encoding="utf-8")


def save_tensors(tensors: Arrays, path: Path) -> None:
    """A safetensors file that transformers accepts: rows contiguous, marked as of PyTorch."""
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library makes it readable for its owner only; this folder is made to be shared


def config(source: Source, end: int) -> dict[str, Any]:
    """config.json."""
    architecture = source.architecture
    written: dict[str, Any] = {"architectures": [architecture.class_name], "model_type": architecture.model_type}
    written |= architecture.settings | {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "dtype": "float32"}
    written |= architecture.sizes(source.model)
    written |= {theirs: getattr(source.model, ours) for theirs, ours in architecture.fields.items()}
    return written | ({RECORDS: records_to_dict(source.records)} if source.known else {})


def generation_config(end: int, used: int, vocab_size: int) -> dict[str, Any]:
    """generation_config.json: the embedding rows beyond the `used` ones of the tokenizer are padding, and never chosen."""
    padding = list(range(used, vocab_size))
    ids: dict[str, Any] = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    return ids | ({"suppress_tokens": padding} if padding else {})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
