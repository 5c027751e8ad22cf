"""Tokenizer, encoding and shards."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_reader import read_llm_c, rows_of

from data_prep.encode import (
    BATCH_CHARACTERS,
    BATCH_ROWS,
    Counts,
    Encoded,
    batches,
    cut_points,
    encode_rows,
    shard_counts,
    write_shards,
)
from data_prep.train_tokenizer import train_tokenizer
from gpt_core.errors import InputError
from gpt_core.tokens import END_OF_TEXT, load_tokenizer

ROOT = Path(__file__).parents[1]
ROWS = [f"{a} {b} {c}" for a in ("واش", "كيفاش", "وين") for b in ("راك", "راكم", "رحت") for c in ("خويا", "اليوم", "😂")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(ROWS, 280)


def test_vocabulary(tokenizer):
    assert tokenizer.get_vocab_size() == 280
    assert tokenizer.token_to_id(END_OF_TEXT) == 0
    # ids 1 to 256 are the bytes: single characters
    assert all(len(tokenizer.id_to_token(index)) == 1 for index in range(1, 257))
    assert len(tokenizer.id_to_token(257)) == 2


def test_tokenizer_learns_and_stops_at_pairs_seen_once(tokenizer):
    assert len(tokenizer.encode("واش راك").ids) < len("واش راك".encode())
    assert train_tokenizer(["اب"], 5000).get_vocab_size() == 257, "no pair of these bytes occurs twice"
    assert train_tokenizer(["اا اا"], 5000).get_vocab_size() > 257


@given(st.text())
def test_round_trip(tokenizer, text):
    text = text.encode("utf-8", "ignore").decode()
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert 0 not in ids


def test_end_of_text_in_a_row_is_no_special_token(tokenizer, tmp_path):
    assert 0 not in tokenizer.encode(END_OF_TEXT).ids
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.encode(END_OF_TEXT).ids == tokenizer.encode(END_OF_TEXT).ids
    loaded.encode_special_tokens = False
    assert loaded.encode(END_OF_TEXT).ids == [0], "control: without the setting it would be"


def test_tokenizer_is_the_same_with_any_number_of_threads(tmp_path):
    code = (
        "import random,sys; from data_prep.train_tokenizer import train_tokenizer as t\n"
        "r = random.Random(0); w = [''.join(r.choices('ابتجحدرسش', k=r.randint(2, 6))) for _ in range(800)]\n"
        "t([' '.join(r.choices(w, k=8)) for _ in range(3000)], 1500).save(sys.argv[1])\n"
    )
    hashes = set()
    for threads in ("1", "2", "5"):
        path = tmp_path / f"{threads}.json"
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, env=environment, check=True)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=4, max_size=30), st.integers(1, 4))
def test_shards_are_the_rows_in_order(tokenizer, tmp_path_factory, rows, shards):
    folder = tmp_path_factory.mktemp("shards")
    encoded = encode_rows(tokenizer, rows, folder / "tokens", folder / "ends")
    assert encoded.counts == Counts(
        rows=len(rows),
        words=sum(len(row.split()) for row in rows),
        bytes=len("".join(rows).encode()),
        characters=len("".join(rows)),
        tokens=sum(1 + len(tokenizer.encode(row).ids) for row in rows),
    )
    try:
        entries = write_shards(encoded, "train", shards, folder)
    except InputError:  # rows of very unequal length may not fill every shard
        return
    assert [entry["file"] for entry in entries] == [f"darija_train_{i:03d}.bin" for i in range(shards)]
    found = []
    for entry in entries:
        tokens = read_llm_c(folder / entry["file"])
        assert tokens[0] == 0 and entry["tokens"] == len(tokens)
        assert entry["sha256"] == hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest()
        found += [tokenizer.decode(row) for row in rows_of(tokens)]
    assert found == rows


def test_shards_of_several_batches(tokenizer, tmp_path):
    rows = [f"{row} {i}" for i, row in enumerate(ROWS * 90)]
    assert len(rows) > 2 * BATCH_ROWS
    encoded = encode_rows(tokenizer, rows, tmp_path / "tokens", tmp_path / "ends")
    files = [tmp_path / entry["file"] for entry in write_shards(encoded, "train", 3, tmp_path)]
    assert [tokenizer.decode(row) for file in files for row in rows_of(read_llm_c(file))] == rows


def test_the_independent_reader_notices_a_damaged_shard(tokenizer, tmp_path):
    encoded = encode_rows(tokenizer, ROWS, tmp_path / "tokens", tmp_path / "ends")
    path = tmp_path / write_shards(encoded, "val", 1, tmp_path)[0]["file"]
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(AssertionError):
        read_llm_c(path)


@pytest.mark.parametrize(
    ("shards", "fraction", "train", "val"), [(20, 0.1, 18, 2), (2, 0.5, 1, 1), (3, 0.5, 1, 2), (9, 0.01, 8, 1)]
)
def test_shard_counts(shards, fraction, train, val):
    assert shard_counts(shards, fraction) == {"train": train, "val": val}


@pytest.mark.parametrize(
    ("lengths", "shards", "cuts"),
    [
        ([5, 5, 5, 5], 2, [0, 10, 20]),
        ([5, 5, 5, 5], 4, [0, 5, 10, 15, 20]),
        ([9, 2, 9], 2, [0, 11, 20]),  # 10 lies between the boundaries 9 and 11, equally near: the later one
        ([8, 4, 8], 2, [0, 12, 20]),
        ([7, 4, 9], 2, [0, 11, 20]),
        ([9, 4, 7], 2, [0, 9, 20]),
        ([3], 1, [0, 3]),
    ],
)
def test_cut_points(lengths, shards, cuts):
    assert cut_points(np.cumsum(lengths), shards).tolist() == cuts


@pytest.mark.parametrize(("lengths", "shards"), [([3], 2), ([100, 1, 1], 3), ([1, 1, 100], 3)])
def test_an_empty_shard_is_refused(lengths, shards):
    with pytest.raises(InputError, match="lower --shards"):
        cut_points(np.cumsum(lengths), shards)


@given(st.lists(st.integers(1, 50), min_size=200, max_size=400), st.integers(1, 8))
def test_shards_are_about_equal(lengths, shards):
    sizes = np.diff(cut_points(np.cumsum(lengths), shards))
    assert sizes.sum() == sum(lengths)
    assert np.abs(sizes - sum(lengths) / shards).max() <= max(lengths) + 1


def test_batches_end_by_rows_and_by_characters():
    assert [len(batch) for batch in batches(["a"] * (BATCH_ROWS + 1))] == [BATCH_ROWS, 1]
    assert [len(batch) for batch in batches(["a" * BATCH_CHARACTERS] * 3)] == [1, 1, 1]
    assert list(batches([])) == []


def test_encoded_names_its_files(tokenizer, tmp_path):
    encoded = encode_rows(tokenizer, ROWS, tmp_path / "tokens", tmp_path / "ends")
    assert encoded == Encoded(tmp_path / "tokens", tmp_path / "ends", encoded.counts)
    assert (tmp_path / "tokens").stat().st_size == 2 * encoded.counts.tokens
    assert (tmp_path / "ends").stat().st_size == 8 * encoded.counts.rows


def test_transformers_loads_the_tokenizer(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert all(fast.encode(row) == tokenizer.encode(row).ids for row in ROWS)
    assert [fast.decode(fast.encode(row)) for row in ROWS] == ROWS
