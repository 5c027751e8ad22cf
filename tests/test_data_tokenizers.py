"""Tokenizers side by side: words with their marks, numbers by hand, and files that are none."""

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from commands import call
from helpers import ROWS, TRAIN_ROWS, VAL_ROWS, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_prep.command import main as prepare
from data_prep.compare_tokenizers import compare, encoder, measure, n_gram_bpb, read_other, train_unigram
from data_prep.train_tokenizer import WORDS, pre_tokenizer, train_tokenizer
from gpt_core.errors import InputError
from gpt_core.tokens import load_tokenizer, token_table
from weights.gguf_write import refuse_other_pre_tokenizer
from weights.tokenizer import read_tokenizer, with_start

VOWELLED = "مُحَمَّدٌ"
SIGNS = "ابتثجحخدذرزس"
TEXT = st.text() | st.text(st.sampled_from("واشراك\u064b\u064e\u064f\u0650\u0651\u0652\u0301éç😂\ufe0f ،٣1"), max_size=40)


def words_of(text: str, words: str) -> list[str]:
    """The pieces of a text that no token crosses."""
    return [text[start:end] for _, (start, end) in pre_tokenizer(words).pre_tokenize_str(text)]  # type: ignore[arg-type]


def test_gpt2_cuts_a_word_at_its_vowel_signs_and_marks_does_not():
    assert words_of(f"{VOWELLED} راك", "gpt2") == ["م", "ُ", "ح", "َ", "م", "َّ", "د", "ٌ", " راك"]
    assert words_of(f"{VOWELLED} راك", "marks") == [VOWELLED, " راك"]


@pytest.mark.parametrize(("words", "tokens"), [("gpt2", 8), ("marks", 1)])
def test_the_flag_of_data_prep_and_what_is_exported(words, tokens, tmp_path, capsys):
    """Marks survive on their way to a Hugging Face folder; llama.cpp would cut them off, so no GGUF file is written."""
    (tmp_path / "rows.txt").write_text("".join(f"{a}{b}{a} {VOWELLED} {b}{a}\n" for a in SIGNS for b in SIGNS))
    flags = ["--source", str(tmp_path / "rows.txt"), "--vocab-size", "500", "--shards", "2", "--pre-tokenizer", words]
    prepare([*flags, "--out", str(tmp_path / "out"), "--skip-rules", "near_duplicate,spam"])
    path = tmp_path / "out" / "tokenizer.json"
    assert len(load_tokenizer(path).encode(f" {VOWELLED}").ids) == tokens
    text, _ = read_tokenizer(path)
    exported = Tokenizer.from_str(with_start(text))
    assert len(exported.encode(f" {VOWELLED}").ids) == tokens + 1 and exported.encode("x").ids[0] == 0
    source: Any = SimpleNamespace(tokenizer=text, path=path)
    if words == "gpt2":
        refuse_other_pre_tokenizer(source)
    else:
        with pytest.raises(InputError, match=r"llama\.cpp would split otherwise"):
            refuse_other_pre_tokenizer(source)
        with pytest.raises(InputError, match="--pre-tokenizer marks has no effect with --tokenizer"):
            prepare([*flags, "--out", str(tmp_path / "again"), "--tokenizer", str(path)])


@given(st.text(st.sampled_from("واشabcéç123 ،!؟😂\n'sنt"), max_size=40))
def test_without_marks_both_cut_alike(text):
    assert words_of(text, "gpt2") == words_of(text, "marks")


@pytest.mark.parametrize("words", WORDS)
def test_words_with_marks_become_tokens(words):
    """Ten times the same vowelled word: one token where marks are kept, eight where GPT-2 cuts."""
    tokenizer = train_tokenizer([f"{VOWELLED} {VOWELLED}"] * 10, 400, words)
    assert len(tokenizer.encode(f" {VOWELLED}").ids) == {"gpt2": 8, "marks": 1}[words]


MADE = {words: train_tokenizer(ROWS, 400, words) for words in WORDS} | {"unigram": train_unigram(ROWS, 400)}


@pytest.mark.parametrize("name", MADE)
@given(text=TEXT)
def test_any_text_comes_back(name, text):
    tokenizer = MADE[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text and 0 not in ids
    assert token_table(tokenizer).bytes[ids].sum() == len(text.encode())


def test_unigram_has_our_end_of_row_and_size():
    assert MADE["unigram"].token_to_id("<|endoftext|>") == 0
    assert 300 < MADE["unigram"].get_vocab_size() <= 400  # as many as it finds in 62 rows
    assert len(MADE["unigram"].encode("واش راك خويا").ids) < len("واش راك خويا".encode()) / 2


def test_measures_by_hand():
    """Bytes alone: "ab ab é" is 3 words in 8 bytes and tokens; " ab" and " é" are 3 tokens each, no word is one."""
    bytewise = encoder(make_tokenizer(["x"], vocab_size=257))
    found = measure(bytewise, 257, ["ab ab", "é"])
    assert found == pytest.approx(
        {"vocab_size": 257, "tokens_per_word": 7 / 3, "bytes_per_token": 1, "words_of_one_token": 0, "vocab_used": 5 / 257}
    )
    merged = train_tokenizer([" ab ab ab"] * 5, 300)
    assert measure(encoder(merged), 300, ["ab ab", "é"])["words_of_one_token"] == pytest.approx(2 / 3)


def test_n_grams_do_not_depend_on_the_tokenizer_where_there_is_nothing_to_cut():
    """Rows of one letter: every tokenizer makes one token of each, so bits a byte differ only by the uniform part."""
    splits = [["a", "b", "a"] * 50, ["a", "b"]]
    small, large = (n_gram_bpb(make_tokenizer(["a"], size), splits) for size in (257, 258))
    assert small == pytest.approx(large, rel=1e-2) and 0 < small < 1


def test_a_tiktoken_file_is_read(tmp_path):
    pytest.importorskip("tiktoken")
    path = tmp_path / "some.tiktoken"
    tokens = [*(bytes([value]) for value in range(256)), b"ab", b" ab"]
    path.write_text("\n".join(f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)))
    encode, size = read_other(path)
    assert size == 258 and encode(["ab ab", "é"]) == [[256, 257], [0xC3, 0xA9]]


@pytest.mark.parametrize("name", ["x.tiktoken", "x.json"])
def test_other_files_are_refused_in_one_line(name, tmp_path, monkeypatch, capsys, small_dataset):
    (tmp_path / name).write_text("what is this?")
    for path in (tmp_path / name, tmp_path / "none.json"):
        with pytest.raises(InputError, match="--also") as error:
            read_other(path)
        assert "\n" not in str(error.value)
        assert call(monkeypatch, "data_prep.compare_tokenizers", small_dataset, "--also", path) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_size_out_of_bounds_is_refused(monkeypatch, capsys, small_dataset):
    assert call(monkeypatch, "data_prep.compare_tokenizers", small_dataset, "--vocab-sizes", 300, 100) == 2
    assert capsys.readouterr().err.startswith("error: --vocab-sizes 100: expected 258 to 65536")


def test_the_command(small_dataset, monkeypatch, capsys):
    also = small_dataset / "tokenizer.json"
    assert call(monkeypatch, "data_prep.compare_tokenizers", small_dataset, "--vocab-sizes", 300, "--also", also) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["tokenizers"]) == ["BPE, gpt2, 300", "BPE, marks, 300", "Unigram, gpt2, 300", "tokenizer.json"]
    assert found["rows"] == len(VAL_ROWS)
    expected = measure(encoder(train_tokenizer(TRAIN_ROWS, 300)), 300, VAL_ROWS)
    assert found["tokenizers"]["BPE, gpt2, 300"] == pytest.approx(expected | {"n_gram_bpb": pytest.approx(2, abs=1.5)})
    assert compare(small_dataset, [300], [])["tokenizers"].keys() < found["tokenizers"].keys()
