"""The tokenizer and what each of its tokens contributes to a text."""

import json

import numpy as np
import pytest
from helpers import ROWS, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gpt_core.errors import InputError
from gpt_core.scoring import script_of
from gpt_core.tokens import byte_alphabet, load_tokenizer, token_table

TOKENIZER = make_tokenizer()
TABLE = token_table(TOKENIZER)


def ids(text: str) -> np.ndarray:
    return np.array(TOKENIZER.encode(text, add_special_tokens=False).ids, dtype=np.int64)


# All planes, and letters of the dialect more often than chance would have them.
TEXT = st.text() | st.text(st.sampled_from("واشراكخويابزاف éçABcd😂،٣ \n"), max_size=40)


@given(TEXT)
def test_tokens_add_up_to_the_bytes_and_characters_of_any_text(text):
    assert TABLE.bytes[ids(text)].sum() == len(text.encode())
    assert TABLE.characters[ids(text)].sum() == len(text)


def test_the_tokenizer_merges_letters():
    """Negative control of the test above: it would hold trivially if every token were a byte."""
    assert len(ids("واش راك خويا")) < len("واش راك خويا".encode()) / 2
    assert (TABLE.bytes > 1).sum() > 100


@given(st.text(st.sampled_from("ابتثجحخدذرزسشصضطظعغفقكلمنهويگڨپڤ"), max_size=20), st.text("abcXYZàéçÉœŸ", max_size=20))
def test_letters_of_both_scripts_are_counted(arabic, latin):
    tokens = ids(arabic + "! 12 " + latin)
    assert TABLE.arabic_letters[tokens].sum() == len(arabic)
    assert TABLE.latin_letters[tokens].sum() == len(latin)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("واش راك", "arabic"), ("salut ça va", "latin"), ("واش ok", "arabic"), ("و ok", "latin"), ("وا ok", "other"),
        ("123 !? 😂", "other"), ("", "other"), ("привет", "other"), ("été", "latin"),
    ],
)  # fmt: skip
def test_script_of_most_letters(text, expected):
    assert script_of(np.array([0, *ids(text), 0]), TABLE) == expected


SIGNS = "،؟؛٣٤٥×÷"
WHOLE = make_tokenizer([f"{a}{b} {a}" for a in SIGNS + "وéçŒﻼ" for b in SIGNS + "وéçŒﻼ"], 400)


@pytest.mark.parametrize(
    ("text", "arabic", "latin"),
    [*((sign, 0, 0) for sign in SIGNS), ("و", 1, 0), ("ﻼ", 1, 0), ("é", 0, 1), ("ç", 0, 1), ("Œ", 0, 1), (" ", 0, 0)],
)
def test_letters_of_whole_characters_are_exact(text, arabic, latin):
    """Signs of either script are none: a comma, a question mark, digits, multiplication and division."""
    (token,) = WHOLE.encode(text, add_special_tokens=False).ids
    found = token_table(WHOLE)
    assert (found.bytes[token], found.characters[token]) == (len(text.encode()), 1)
    assert (found.arabic_letters[token], found.latin_letters[token]) == (arabic, latin)


@pytest.mark.parametrize(("text", "column"), [("و", "arabic_letters"), ("é", "latin_letters"), ("،", "arabic_letters")])
def test_a_character_cut_by_a_token_boundary_counts_at_its_first_byte(text, column):
    """Even a comma, which the first byte does not tell from a letter."""
    bytewise = make_tokenizer(vocab_size=257)
    tokens = bytewise.encode(text, add_special_tokens=False).ids
    assert getattr(token_table(bytewise), column)[tokens].tolist() == [1, 0]


def test_the_end_of_a_row_is_one_byte_and_one_character_and_no_letter():
    assert [int(column[0]) for column in (TABLE.bytes, TABLE.characters, TABLE.arabic_letters, TABLE.latin_letters)] == [
        1,
        1,
        0,
        0,
    ]


def test_byte_alphabet_is_that_of_gpt2():
    """All 256 bytes once; space, newline, and the three bytes that are hidden between printable ones, by hand."""
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256)) and len(alphabet) == 256
    for name, byte in {"!": 0x21, "~": 0x7E, "Ġ": 0x20, "Ċ": 0x0A, "ÿ": 0xFF, "Ń": 0xAD, "ġ": 0x7F, "ł": 0xA0}.items():
        assert alphabet[name] == byte


def test_end_of_text_in_a_text_is_plain_characters(tmp_path):
    """A comment that holds the string must not end a row."""
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(str(path))
    tokens = load_tokenizer(path).encode("a<|endoftext|>b", add_special_tokens=False).ids
    assert 0 not in tokens and TABLE.bytes[tokens].sum() == len("a<|endoftext|>b")
    assert 0 in Tokenizer.from_file(str(path)).encode("a<|endoftext|>b").ids  # negative control: what it would be


def test_every_row_comes_back(tmp_path):
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(str(path))
    loaded = load_tokenizer(path)
    assert [loaded.decode(loaded.encode(row).ids) for row in ROWS] == ROWS


def test_a_token_that_is_not_byte_level_is_named():
    value = json.loads(TOKENIZER.to_str())
    value["model"]["vocab"]["واش"] = len(value["model"]["vocab"])
    with pytest.raises(InputError, match="واش"):
        token_table(Tokenizer.from_str(json.dumps(value)))
