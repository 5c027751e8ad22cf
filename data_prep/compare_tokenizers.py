"""python -m data_prep.compare_tokenizers: vocabularies and kinds of tokenizer on a dataset's rows, trained on its train split.

Bits a byte come from a 5-gram Kneser-Ney model of the tokens: a tokenizer that saves tokens by making each of them harder to
predict gains nothing there, while tokens a word alone would always favour the larger vocabulary.
"""

import base64
import binascii
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import UnigramTrainer

from data_prep.anchors import text_of
from data_prep.kneser_ney import train
from data_prep.train_tokenizer import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, WORDS, Words, train_tokenizer, trained
from gpt_core.cli import Parser, run
from gpt_core.dataset import open_dataset
from gpt_core.errors import InputError
from gpt_core.progress import bar
from gpt_core.tokens import END_OF_TEXT, END_OF_TEXT_ID, token_bytes

VOCAB_SIZES = (4_000, 6_000, 8_000, 10_000, 16_000)
ORDER = 5
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

Encode = Callable[[list[str]], list[list[int]]]
"""Rows to tokens."""


def train_unigram(rows: Sequence[str], vocab_size: int, words: Words = "gpt2") -> Tokenizer:
    """A Unigram tokenizer (Kudo 2018) on the same words, bytes and end of row as our BPE."""
    trainer = UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(END_OF_TEXT, special=True, normalized=False)],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    return trained(Unigram(), trainer, rows, words)


def read_other(path: Path) -> tuple[Encode, int]:
    """Another tokenizer and its size: a tokenizer.json, or a .tiktoken file split as GPT-2 does. Raises InputError."""
    if not path.is_file():
        raise InputError(f"--also {path} does not exist: give a tokenizer.json or a .tiktoken file")
    try:
        if path.suffix == ".tiktoken":
            return _read_tiktoken(path)
        tokenizer = Tokenizer.from_file(str(path))
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"--also {path} is no tokenizer.json and no .tiktoken file ({error}): give one of these") from error
    return encoder(tokenizer), tokenizer.get_vocab_size()


def _read_tiktoken(path: Path) -> tuple[Encode, int]:
    try:
        import tiktoken
    except ImportError as error:
        raise InputError(f"--also {path} needs the package tiktoken: pip install tiktoken") from error
    try:
        pairs = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line]
        ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error) as error:
        raise InputError(f"--also {path} is no .tiktoken file: expected a base64 token and its rank on each line") from error
    encoding = tiktoken.Encoding(path.stem, pat_str=GPT2_WORDS, mergeable_ranks=ranks, special_tokens={})
    return lambda rows: encoding.encode_ordinary_batch(rows, num_threads=1), len(ranks)


def encoder(tokenizer: Tokenizer) -> Encode:
    """The rows' tokens, without what a tokenizer adds around a text."""
    return lambda rows: [row.ids for row in tokenizer.encode_batch_fast(rows, add_special_tokens=False)]


def measure(encode: Encode, size: int, rows: Sequence[str]) -> dict[str, Any]:
    """What a tokenizer makes of the validation rows. Words are parted by spaces and encoded with the space before them."""
    tokens = encode(list(rows))
    words = Counter(word for row in rows for word in row.split(" ") if word)
    pieces = encode([f" {word}" for word in words])
    whole = sum(count for count, piece in zip(words.values(), pieces, strict=True) if len(piece) == 1)
    total = sum(map(len, tokens))
    return {
        "vocab_size": size,
        "tokens_per_word": total / words.total(),
        "bytes_per_token": sum(len(row.encode()) for row in rows) / total,
        "words_of_one_token": whole / words.total(),
        "vocab_used": len({token for row in tokens for token in row}) / size,
    }


def n_gram_bpb(tokenizer: Tokenizer, splits: Sequence[Sequence[str]]) -> float:
    """Bits a byte of the validation rows under a Kneser-Ney model of the training rows, both in this tokenizer's tokens."""
    encode = encoder(tokenizer)
    before, after = (
        np.array([token for row in encode(list(rows)) for token in (END_OF_TEXT_ID, *row)], dtype=np.int64) for rows in splits
    )
    sizes = np.array([len(piece) for piece in token_bytes(tokenizer)])
    nats = train(before, tokenizer.get_vocab_size(), ORDER).token_nats(after)
    return float(nats.sum()) / math.log(2) / int(sizes[after].sum())


def compare(data: Path, vocab_sizes: Sequence[int], others: Sequence[Path]) -> dict[str, Any]:
    """Every tokenizer on the rows of a dataset folder."""
    foreign = {path.name: read_other(path) for path in others}
    dataset = open_dataset(data)
    pieces = token_bytes(dataset.tokenizer)
    splits = [
        text_of(stream.read(0, len(stream)), pieces).decode("utf-8").removesuffix("\n").split("\n")
        for stream in (dataset.train, dataset.val)
    ]
    kinds: dict[str, Callable[[int], Tokenizer]] = {
        **{f"BPE, {words}": lambda size, words=words: train_tokenizer(splits[0], size, words) for words in WORDS},  # type: ignore[misc]
        "Unigram, gpt2": lambda size: train_unigram(splits[0], size),
    }
    found = {}
    with bar(total=len(kinds) * len(vocab_sizes) + len(foreign), desc="tokenizers", unit="tokenizer") as progress:
        for size in vocab_sizes:
            for kind, make in kinds.items():
                tokenizer = make(size)
                part = measure(encoder(tokenizer), tokenizer.get_vocab_size(), splits[1])
                found[f"{kind}, {size}"] = part | {"n_gram_bpb": n_gram_bpb(tokenizer, splits)}
                progress.update()
        for name, (encode, size) in foreign.items():
            found[name] = measure(encode, size, splits[1]) | {"n_gram_bpb": None}
            progress.update()
    return {"data": str(data), "manifest_sha256": dataset.manifest_sha256, "rows": len(splits[1]), "tokenizers": found}


def report(result: dict[str, Any]) -> str:
    """A table for people, then the same as one line of JSON."""
    lines = [f"{'':<24} tokens/word  bytes/token  words of 1 token  vocabulary used  {ORDER}-gram bits/byte"]
    for name, part in result["tokenizers"].items():
        bpb = "" if part["n_gram_bpb"] is None else f"{part['n_gram_bpb']:.4f}"
        lines.append(
            f"{name:<24} {part['tokens_per_word']:>11.3f}  {part['bytes_per_token']:>11.3f}  "
            f"{part['words_of_one_token']:>16.1%}  {part['vocab_used']:>15.1%}  {bpb:>16}".rstrip()
        )
    return "\n".join([*lines, json.dumps(result)])


def parser() -> Parser:
    """The flags of python -m data_prep.compare_tokenizers."""
    made = Parser(prog="python -m data_prep.compare_tokenizers", description="Tokenizers side by side; last line JSON.")
    made.add_argument("data", type=Path, metavar="DIR", help="dataset folder: trained on its train split, measured on val")
    made.add_argument(
        "--vocab-sizes", type=int, nargs="+", default=list(VOCAB_SIZES), metavar="N", help="vocabularies to train, tokens"
    )
    made.add_argument(
        "--also", type=Path, nargs="+", default=[], metavar="FILE", help="a tokenizer.json, or a .tiktoken file (GPT-2's words)"
    )
    return made


def main() -> None:
    """The command."""
    args = parser().parse_args()
    for size in args.vocab_sizes:
        if not MIN_VOCAB_SIZE <= size <= MAX_VOCAB_SIZE:
            raise InputError(f"--vocab-sizes {size}: expected {MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE}, since tokens are uint16")
    print(report(compare(args.data, args.vocab_sizes, args.also)))


if __name__ == "__main__":
    run(main)
