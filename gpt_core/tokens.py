"""The tokenizer: GPT-2 style byte-level BPE, where every character of a token's name stands for one byte."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from gpt_core.errors import InputError

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json whose id 0 is <|endoftext|>, set to read that string in a text as plain characters."""
    if not path.is_file():
        raise InputError(f"{path} is missing: it is written by python -m data_prep and kept in every checkpoint")
    remedy = "make the data again with python -m data_prep"
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a tokenizer.json ({type(error).__name__}): {remedy}") from error
    tokenizer = parse_tokenizer(data, path, remedy)
    if tokenizer.token_to_id(END_OF_TEXT) != END_OF_TEXT_ID:
        raise InputError(f"{path} gives {END_OF_TEXT} the id {tokenizer.token_to_id(END_OF_TEXT)}, expected {END_OF_TEXT_ID}")
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()  # tools leave both switched on in the file, and both change what is encoded
    tokenizer.no_padding()
    return tokenizer


def parse_tokenizer(data: Any, path: Path, remedy: str) -> Tokenizer:
    """The tokenizer of the parsed `path`. InputError unless the library takes it and its ids are 0, 1, 2, ...

    The ids are looked at first: the library would fill a gap of 2^31 with 8 GiB of memory.
    """
    try:
        ids = {*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])}
        whole = all(type(index) is int for index in ids) and ids == set(range(len(ids)))
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{path} does not number its tokens from 0 without gaps: {remedy}")
    try:
        return Tokenizer.from_str(json.dumps(data))
    except BaseException as error:  # bare Exception for what is wrong, a Rust panic (no Exception) for what is absurd
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} is not a tokenizer.json ({reason}): {remedy}") from error


def byte_alphabet() -> dict[str, int]:
    """Character in a token's name -> the byte it stands for (GPT-2, `bytes_to_unicode` of its encoder).

    Printable Latin-1 bytes stand for themselves, the other 68 are named by the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


@dataclass(frozen=True)
class TokenTable:
    """What each token contributes to a text, four int64 arrays of (vocab,).

    Letters are of the Arabic and of the Latin script. One that a token cuts counts where it starts, unseen: it may also be
    one of the script's signs, which only a rare row notices.
    """

    bytes: np.ndarray
    characters: np.ndarray
    arabic_letters: np.ndarray
    latin_letters: np.ndarray


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of every token, by id; a line end for <|endoftext|>, which ends a row. Raises InputError."""
    alphabet = byte_alphabet()
    found = [b"\n"] * tokenizer.get_vocab_size()
    for name, index in tokenizer.get_vocab().items():
        if index == END_OF_TEXT_ID:
            continue
        try:
            found[index] = bytes(alphabet[character] for character in name)
        except KeyError as error:
            raise InputError(
                f"tokenizer.json has the token {name!r}, which is not byte-level: use one made by data_prep"
            ) from error
    return found


def token_table(tokenizer: Tokenizer) -> TokenTable:
    """Bytes, characters and letters of every token. <|endoftext|> counts as one byte and one character, a row's end."""
    table = TokenTable(*(np.zeros(tokenizer.get_vocab_size(), dtype=np.int64) for _ in range(4)))
    for index, values in enumerate(token_bytes(tokenizer)):
        table.bytes[index] = len(values)
        table.characters[index] = sum(value & 0xC0 != 0x80 for value in values)  # all but continuation bytes
        letters = [ord(character) for character in values.decode("utf-8", "ignore") if character.isalpha()]
        table.arabic_letters[index] = sum(0x600 <= letter < 0x700 or 0xFB50 <= letter < 0xFF00 for letter in letters)
        table.latin_letters[index] = sum(letter < 0x250 for letter in letters)
        table.arabic_letters[index] += 0xD8 <= values[-1] <= 0xDB  # the first byte of U+0600 to U+06FF, alone
        table.latin_letters[index] += 0xC3 <= values[-1] <= 0xC5  # the first byte of U+00C0 to U+017F, alone
    return table
