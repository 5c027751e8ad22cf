"""The tokenizer: GPT-2 style byte-level BPE, so that every text has tokens and every row comes back as it was."""

import sys
from collections.abc import Iterable
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, Model
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split
from tokenizers.trainers import BpeTrainer, Trainer

from gpt_core.tokens import END_OF_TEXT

MIN_VOCAB_SIZE = 258  # <|endoftext|>, the 256 bytes, one merge
MAX_VOCAB_SIZE = 65_536  # a shard holds uint16
MIN_PAIR_COUNT = 2  # a pair seen once is not worth a token
Words = Literal["gpt2", "marks"]
WORDS: tuple[Words, ...] = ("gpt2", "marks")
"""How a text is cut into words, which no token crosses: as GPT-2 does, which cuts letters from their combining marks, such as
Arabic vowel signs, or with the marks kept."""
GPT2_WITH_MARKS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's, plus \p{M}
)


def pre_tokenizer(words: Words) -> PreTokenizer:
    """What cuts a text into words, spelled as bytes."""
    if words == "gpt2":
        return ByteLevel(add_prefix_space=False, use_regex=True)
    split = Split(Regex(GPT2_WITH_MARKS), behavior="isolated")
    return Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])


def train_tokenizer(rows: Iterable[str], vocab_size: int, words: Words = "gpt2") -> Tokenizer:
    """A tokenizer of `vocab_size` tokens, fewer where `rows` have fewer repeated pairs; always the same.

    Id 0 is <|endoftext|>, then come the 256 bytes, then the merges. <|endoftext|> in a text is plain characters.
    """
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_PAIR_COUNT,
        special_tokens=[AddedToken(END_OF_TEXT, special=True, normalized=False)],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    return trained(BPE(), trainer, rows, words)


def trained(model: Model, trainer: Trainer, rows: Iterable[str], words: Words) -> Tokenizer:
    """A byte-level tokenizer of any kind: the model as the trainer makes it from the words of `rows`."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer(words)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.train_from_iterator(rows, trainer=trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer
