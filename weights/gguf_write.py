"""Writing a float32 GGUF file for llama.cpp, through the `gguf` package."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gpt_core.errors import InputError
from gpt_core.files import new_file
from gpt_core.tokens import END_OF_TEXT
from weights.source import Source
from weights.table import to_gguf

PRE_TOKENIZER = "gpt-2"
PADDED = ("token_embd.weight", "output.weight")


def write_gguf(source: Source, path: Path) -> None:
    """Writes the file, complete or not at all; `path` may be replaced.

    The rows that pad the embedding are left out: llama.cpp wants as many rows as tokens, and can then not choose one.
    """
    try:
        import gguf
    except ImportError as error:
        raise InputError("--to gguf needs the package gguf: pip install gguf") from error
    architecture = source.architecture
    refuse_other_pre_tokenizer(source)
    tokenizer = Tokenizer.from_str(source.tokenizer)
    used = tokenizer.get_vocab_size()
    with new_file(path) as beside, closing(gguf.GGUFWriter(beside, architecture.gguf_name)) as writer:
        _add_architecture(writer, source, path.stem)
        _add_tokenizer(writer, source, tokenizer)
        for name, array in to_gguf(source.weights, source.model.n_layer, architecture.table).items():
            writer.add_tensor(name, array[:used] if name in PADDED else array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def refuse_other_pre_tokenizer(source: Source) -> None:
    """Raises InputError unless texts are split as GPT-2 does: the one way that the file declares to llama.cpp."""
    data = json.loads(source.tokenizer)
    split = data["pre_tokenizer"] or {}
    plain = split.get("type") == "ByteLevel" and split.get("use_regex", True) and not split.get("add_prefix_space")
    if not plain or data["normalizer"] is not None or data["model"]["type"] != "BPE":
        raise InputError(f"{source.path} has a tokenizer that is not GPT-2's byte-level BPE: llama.cpp would split otherwise")


def _add_architecture(writer: Any, source: Source, name: str) -> None:
    model, architecture = source.model, source.architecture
    writer.add_name(name)
    writer.add_file_type(0)  # all float32
    writer.add_vocab_size(Tokenizer.from_str(source.tokenizer).get_vocab_size())
    writer.add_context_length(model.block_size)
    writer.add_embedding_length(model.n_embd)
    writer.add_feed_forward_length(model.n_hidden)
    writer.add_block_count(model.n_layer)
    writer.add_head_count(model.n_head)
    for key, value in architecture.gguf(model).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(f"{architecture.gguf_name}.{key}", value)


def _add_tokenizer(writer: Any, source: Source, tokenizer: Tokenizer) -> None:
    import gguf

    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.NORMAL}
    end = tokenizer.token_to_id(END_OF_TEXT)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(source.tokenizer)["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([kinds[index == end] for _, index in vocabulary])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(True)
