"""Files read row by row: what each format yields, and one clear message for each way in which a file can be wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import readers
from data_prep.readers import read_rows
from data_prep.sources import names_of, open_source
from gpt_core.errors import InputError

ROWS = ["واش راك", "سطر\nثاني", 'قال "صحا", وراح', "", "ça va"]


def texts(path):
    """The rows of a file without their sources, of which it has none."""
    found = list(read_rows(path))
    assert {source for _, source in found} <= {None}
    return [text for text, _ in found]


def parquet(path, column="Text", values=ROWS, **kind):
    pq.write_table(pa.table({"id": list(range(len(values))), column: pa.array(values, **kind)}), path, row_group_size=2)
    return path


def test_parquet(tmp_path):
    assert texts(parquet(tmp_path / "a.parquet")) == ROWS
    assert texts(parquet(tmp_path / "b.parquet", "text", ["صحا", None])) == ["صحا", ""]
    assert texts(parquet(tmp_path / "c.PARQUET", type=pa.large_string())) == ROWS
    words = pa.array(["صحا", "صحا"]).dictionary_encode()
    pq.write_table(pa.table({"Text": words}), tmp_path / "d.parquet")
    assert texts(tmp_path / "d.parquet") == ["صحا", "صحا"]


def test_parquet_of_string_views(tmp_path):
    assert texts(parquet(tmp_path / "a.parquet", type=pa.string_view())) == ROWS


def test_half_a_character_in_jsonl_is_a_question_mark(tmp_path):
    """UTF-16 tools cut an emoji in two; the row goes on, and can be written as UTF-8."""
    (tmp_path / "a.jsonl").write_text('{"Text": "\\u0648\\ud83d", "source": "x\\ude00"}\n')
    assert list(read_rows(tmp_path / "a.jsonl")) == [("و?", "x?")]


def test_a_long_row_of_csv(tmp_path):
    (tmp_path / "a.csv").write_text('Text\n"' + "ب" * 200_000 + '"\n', encoding="utf-8")
    assert texts(tmp_path / "a.csv") == ["ب" * 200_000]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    paths = [tmp_path / "fb" / "c.txt", tmp_path / "yt" / "c.txt", tmp_path / "yt" / "d.txt"]
    assert names_of(paths) == ["fb/c.txt", "yt/c.txt", "yt/d.txt"]
    assert names_of(paths[1:]) == ["c.txt", "d.txt"] and names_of([paths[0], paths[0]]) == ["c.txt", "c.txt"]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_jsonl(tmp_path, ascii_only):
    lines = [json.dumps({"id": 1, "text": row}, ensure_ascii=ascii_only) for row in ROWS]
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n\n".join(lines) + "\n", encoding="utf-8")
    assert texts(tmp_path / "a.jsonl") == ROWS


def test_csv(tmp_path):
    quoted = "".join('{},"{}"\r\n'.format(i, row.replace('"', '""')) for i, row in enumerate(ROWS))
    (tmp_path / "a.csv").write_bytes(("\ufeffid,Text\r\n" + quoted + "\r\n").encode())
    assert texts(tmp_path / "a.csv") == ROWS


def test_txt(tmp_path):
    # U+2028 and a lone carriage return are white space inside a row, not its end
    (tmp_path / "a.txt").write_bytes("\ufeffواش راك\r\n\nسطر\u2028واحد\rفقط".encode())
    assert texts(tmp_path / "a.txt") == ["واش راك", "", "سطر\u2028واحد\rفقط"]


def test_several_files_are_read_in_the_order_given(tmp_path):
    """Each row has the name of its file, unless there is one file only."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name)
    paths = [str(tmp_path / f"{name}.txt") for name in ("b", "a")]
    assert list(open_source(paths).rows()) == [("b", "b.txt"), ("a", "a.txt")]
    assert list(open_source(paths[:1]).rows()) == [("b", None)]


def test_a_column_source_names_the_source_of_each_row(tmp_path):
    names = ["news", None, "forum"]
    expected = list(zip(ROWS[:3], names, strict=True))
    table = pa.table({"Text": ROWS[:3], "source": pa.array(names)})
    pq.write_table(table, tmp_path / "a.parquet")
    lines = [json.dumps({"source": name, "Text": row}) for row, name in expected]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "a.csv").write_text('source,Text\nnews,واش راك\n,"سطر\nثاني"\nforum,"قال ""صحا"", وراح"\n', encoding="utf-8")
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        assert list(read_rows(tmp_path / name)) == expected, name
    (tmp_path / "b.txt").write_text("صحا")
    both = open_source([str(tmp_path / "a.csv"), str(tmp_path / "b.txt")])
    assert [source for _, source in both.rows()] == ["news", "a.csv", "forum", "b.txt"]
    numbers = pa.table({"Text": ["ا", "ب"], "source": [1, 2]})
    pq.write_table(numbers, tmp_path / "n.parquet")
    assert list(read_rows(tmp_path / "n.parquet")) == [("ا", "1"), ("ب", "2")]


def test_files_are_streamed(tmp_path):
    """The first rows arrive although the end of the file is broken."""
    (tmp_path / "a.txt").write_bytes("صحا\n".encode() * 5 + b"\xff")
    rows = read_rows(tmp_path / "a.txt")
    assert [next(rows) for _ in range(5)] == [("صحا", None)] * 5
    with pytest.raises(InputError, match=r"line 6 is not UTF-8 \(byte 1 of the line\)"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.docx", b"x", r"extension '.docx': expected one of .parquet, .jsonl, .csv, .txt"),
        ("a", b"x", "extension ''"),
        ("a.txt", "صحا\n\xff".encode("latin-1", "ignore") + b"ok\n\xfe\xff", "line 2 is not UTF-8"),
        ("a.txt", b"ok\nbad\0\n", "line 2 holds a NUL byte"),
        ("a.txt", "صحا".encode("utf-16"), "line 1 (holds a NUL byte|is not UTF-8)"),
        ("a.jsonl", b'{"Text": "a"}\n{"Text": ', "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 holds a JSON list: expected an object"),
        ("a.jsonl", b'{"Text": 5}\n', "line 1 has a int in column 'Text': expected a string"),
        ("a.jsonl", b'{"Text": null}\n', "line 1 has a NoneType"),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', "line 1 has no column 'Text' or 'text', only 'body', 'id'"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("a.csv", b"id,body\n1,a\n", "has no column 'Text' or 'text', only 'id', 'body'"),
        ("a.csv", b"id;Text\n1;a\n", "only 'id;Text'"),
        ("a.csv", b"id,Text\n1,a\n2\n", "line 3 has 1 values, the header 2"),
        ("a.csv", b'Text\n"open\nb\n', "line 3 is not CSV"),
        ("a.parquet", b"PAR1 but not really", "is not a readable parquet file"),
        ("a.parquet", b"", "is not a readable parquet file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_rows(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"nothing.txt does not exist"):
        read_rows(tmp_path / "nothing.txt")
    with pytest.raises(InputError, match="is a folder"):
        read_rows(tmp_path)


def test_parquet_columns(tmp_path):
    with pytest.raises(InputError, match="no column 'Text' or 'text', only 'id', 'Body'"):
        list(read_rows(parquet(tmp_path / "a.parquet", "Body")))
    with pytest.raises(InputError, match="has int64 in column 'Text': expected strings"):
        list(read_rows(parquet(tmp_path / "b.parquet", "Text", [1, 2])))


def test_parquet_damaged_in_the_middle(tmp_path):
    path = parquet(tmp_path / "a.parquet", values=["صحا خويا العزيز"] * 50)
    raw = bytearray(path.read_bytes())
    raw[4 : len(raw) // 2] = b"\xff" * (len(raw) // 2 - 4)  # pages of both columns; the footer stays whole
    path.write_bytes(raw)
    with pytest.raises(InputError, match="is not a readable parquet file"):
        list(read_rows(path))


def test_an_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 2**20)
    (tmp_path / "a.txt").write_bytes(b"a" * 2**20 + b"\n" + b"a" * (2**20 + 2))
    rows = read_rows(tmp_path / "a.txt")
    with pytest.raises(InputError, match="line 1 is longer than 1 MiB"):
        next(rows)
