"""tokenizer.json in the two forms: as trained (the twins'), and with <|endoftext|> put before every text (for tools)."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gpt_core.errors import InputError
from gpt_core.files import read_json
from gpt_core.tokens import END_OF_TEXT, parse_tokenizer


def read_tokenizer(path: Path) -> tuple[str, Tokenizer]:
    """The text of a tokenizer.json as data_prep writes it, and the tokenizer. Raises InputError.

    What tools add to the file is taken off again: the post-processor, truncation and padding.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: put the tokenizer.json that the model was trained with there")
    data = read_json(path)
    data |= {"post_processor": None, "truncation": None, "padding": None}
    tokenizer = parse_tokenizer(data, path, "restore the file")
    text = tokenizer.to_str(pretty=True)
    if END_OF_TEXT not in {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}:
        raise InputError(f"{path} has no special token {END_OF_TEXT}: give the tokenizer of a GPT-2 style model")
    return text, tokenizer


def refuse_too_many(tokenizer: Tokenizer, vocab_size: int, origin: str) -> None:
    """Raises InputError if the model has fewer embedding rows than there are tokens."""
    if tokenizer.get_vocab_size() > vocab_size:
        raise InputError(
            f"{origin} has {tokenizer.get_vocab_size()} tokens in its tokenizer.json, more than the {vocab_size} of its config"
        )


def with_start(text: str) -> str:
    """The tokenizer.json that puts <|endoftext|> before a text, as every row of the training data starts."""
    data = json.loads(text)
    index = next(token["id"] for token in data["added_tokens"] if token["content"] == END_OF_TEXT)
    start, body = {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, body],
        "pair": [start, body, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [index], "tokens": [END_OF_TEXT]}},
    }
    return json.dumps(data, ensure_ascii=False, indent=2)


def tokenizer_config(block_size: int) -> dict[str, Any]:
    """tokenizer_config.json for transformers: the file as it stands, with <|endoftext|> in every special role."""
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END_OF_TEXT)
    return roles | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 would add token_type_ids to the embeddings
    }
