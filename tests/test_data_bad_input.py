"""Input that is no text, too much text or hostile text: counted and reported, or refused in one line; nothing crashes."""

import json
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import call
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.clean import MAX_CHARACTERS, Cleaning, clean_row
from data_prep.latin import LATIN_CHOICES
from data_prep.readers import READERS, read_rows
from gpt_core.dataset import open_dataset
from gpt_core.errors import InputError

SMALL = ["--vocab-size", "300", "--shards", "3"]
DRAW = random.Random(3)
GOOD = [" ".join("".join(DRAW.sample("ابتجحدرسشعفقكلمنهوي", 5)) for _ in range(8)) for _ in range(250)]


def parquet(path, values, kind=None):
    pq.write_table(pa.table({"Text": pa.array(values, type=kind)}), path)
    return path


@pytest.fixture
def prepare(tmp_path, monkeypatch, capsys):
    """Runs the command on a source: (exit code, lines of stderr, manifest or None)."""

    def run(source, *flags):
        capsys.readouterr()
        out = tmp_path / "out"
        code = call(monkeypatch, "data_prep.command", "--source", source, "--out", out, *SMALL, *flags)
        said = capsys.readouterr()
        manifest = json.loads((out / "manifest.json").read_text("utf-8")) if code == 0 else None
        assert (code == 0 and said.err == "") or (code == 2 and len(said.err.splitlines()) == 1), said.err
        return code, said.err, manifest

    return run


def test_a_row_of_100_mb_is_counted(tmp_path, prepare):
    """A row of letters of that size is none, nor is one of white space; the others are kept."""
    huge = "واش " * 14_300_000  # 7 bytes each
    _, _, manifest = prepare(parquet(tmp_path / "rows.parquet", [*GOOD, huge, " " * 10**6]))
    assert manifest["rows_read"] == 252 and manifest["dropped"]["too_long"] == 1 and manifest["dropped"]["empty"] == 1
    assert sum(split["rows"] for split in manifest["splits"].values()) == 250


def test_the_longest_row_that_is_kept(tmp_path, prepare):
    """A million characters of different words in one row: it is cleaned, compared, encoded."""
    draw = random.Random(1)
    longest = " ".join("".join(draw.sample("ابتجحدرسشعفقكلمنهوي", 5)) for _ in range(160_000))
    assert 0.9 * MAX_CHARACTERS < len(longest) < MAX_CHARACTERS
    _, _, manifest = prepare(parquet(tmp_path / "rows.parquet", [*GOOD, longest]), "--latin", "drop-french")
    assert sum(split["bytes"] for split in manifest["splits"].values()) > len(longest)


def test_a_line_of_100_mb_is_refused(tmp_path, prepare):
    (tmp_path / "rows.txt").write_bytes("\n".join(GOOD).encode() + b"\n" + b"a" * 10**8)
    code, said, _ = prepare(tmp_path / "rows.txt")
    assert code == 2 and "line 251 is longer than 16 MiB" in said


def test_a_million_empty_rows(tmp_path, prepare):
    code, said, _ = prepare(parquet(tmp_path / "rows.parquet", [""] * 10**6))
    assert code == 2 and "no row is left of 1000000 after cleaning (1000000 empty)" in said
    few = parquet(tmp_path / "few.parquet", [*GOOD[:125], *["", None] * 1000, *GOOD[125:]])
    assert prepare(few)[2]["dropped"]["empty"] == 2000


@pytest.mark.parametrize("kind", [pa.string(), pa.null(), pa.int64(), pa.binary(), pa.list_(pa.string())])
def test_an_empty_column(tmp_path, prepare, kind):
    code, said, _ = prepare(parquet(tmp_path / "rows.parquet", [None] * 50, kind))
    assert code == 2 and ("no row is left of 50" in said or "expected strings" in said)


def test_invalid_utf8(tmp_path, prepare):
    """In a text file the line is named, in a parquet file the file: the parts that can be read are not taken for the whole."""
    good = "\n".join(GOOD).encode()
    for bad in (b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", "صحا".encode("cp1256"), "صحا".encode("utf-16")):
        (tmp_path / "rows.txt").write_bytes(good + b"\n" + bad + b"\n" + good)
        code, said, _ = prepare(tmp_path / "rows.txt")
        assert code == 2 and "line 251" in said
    bytes_as_text = pa.array([row.encode() for row in GOOD] + [b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"Text": bytes_as_text}), tmp_path / "rows.parquet")
    code, said, _ = prepare(tmp_path / "rows.parquet")
    assert code == 2 and "rows.parquet" in said


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_files_that_are_no_text(tmp_path, prepare, suffix):
    """A PNG's beginning, random bytes, a zip: whatever they are called."""
    for content in (b"\x89PNG\r\n\x1a\n\x00\x00", random.Random(0).randbytes(5000), b"PK\x03\x04" + b"\0" * 100):
        path = tmp_path / f"rows{suffix}"
        path.write_bytes(content)
        assert prepare(path)[0] == 2


def test_right_to_left_overrides_and_other_invisible_characters_go(tmp_path, prepare):
    hostile = [f"\u202e{row}\u202c\u2066\u200f{row[::-1]}\u2069" for row in GOOD]
    _, _, manifest = prepare(parquet(tmp_path / "rows.parquet", hostile))
    assert manifest["changed"]["invisible"] == 250
    dataset = open_dataset(tmp_path / "out")
    text = dataset.tokenizer.decode(dataset.val.read(0, len(dataset.val)).tolist())
    assert not set(text) & set("\u202e\u202c\u2066\u2069\u200f") and len(text) > 500


@settings(max_examples=60)
@given(st.binary(max_size=400), st.sampled_from(sorted(READERS)))
def test_any_bytes_are_rows_or_refused(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"rows{suffix}"
    path.write_bytes(content)
    try:
        rows = [text for text, _ in read_rows(path)]
    except InputError as error:
        assert "\n" not in str(error) and path.name in str(error)
    else:
        assert all(isinstance(row, str) for row in rows)


@given(st.text(st.characters(), max_size=60), st.sampled_from(LATIN_CHOICES))
def test_any_row_is_cleaned_or_dropped(row, choice):
    """All of Unicode, surrogates included."""
    cleaned = clean_row(row * 3, Cleaning(choice, "remove"))
    cleaned.text.encode("utf-8")
    assert "\n" not in cleaned.text and sys.getsizeof(cleaned.text) < 10_000
