"""Rows of text out of .parquet, .jsonl, .csv and .txt files, one at a time: a file may be larger than memory.

A row comes with its source: the value of a column `source` where the file has one, else None.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path

from gpt_core.errors import InputError

COLUMNS = ("Text", "text")
SOURCE_COLUMN = "source"
MAX_LINE_BYTES = 16 * 2**20
PARQUET_BATCH_ROWS = 8192

Row = tuple[str, str | None]
"""The text and its source."""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file in file order; a missing value is an empty row. InputError names file, place and remedy."""
    if not path.exists():
        raise InputError(f"--source {path} does not exist: give an existing file, or hub, or sample")
    if path.is_dir():
        raise InputError(f"--source {path} is a folder: give the files in it")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"--source {path} has the extension '{path.suffix}': expected one of {', '.join(READERS)}")
    return reader(path)


def find_column(names: Iterable[str], place: str) -> str:
    """The text column among `names`; `place` says where they were found, for the InputError."""
    found = list(names)
    for column in COLUMNS:
        if column in found:
            return column
    shown = ", ".join(repr(name) for name in found[:20]) or "none"
    raise InputError(f"{place} has no column 'Text' or 'text', only {shown}: rename the column that holds the text")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its end) of a UTF-8 file; only "\\n" and "\\r\\n" end a line."""
    with open(path, "rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            place = f"--source {path}, line {number}"
            if len(raw) > MAX_LINE_BYTES:
                raise InputError(f"{place} is longer than {MAX_LINE_BYTES // 2**20} MiB: expected one row of text a line")
            if b"\0" in raw:
                raise InputError(f"{place} holds a NUL byte: this is no UTF-8 text file; save it as UTF-8")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{place} is not UTF-8 (byte {error.start + 1} of the line): save it as UTF-8") from error


def _txt_rows(path: Path) -> Iterator[Row]:
    for _, line in _lines(path):
        yield line.rstrip("\r\n"), None


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        place = f"--source {path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place} is not JSON ({error}): expected one object a line") from error
        if not isinstance(row, dict):
            raise InputError(f'{place} holds a JSON {type(row).__name__}: expected an object such as {{"Text": "..."}}')
        column = find_column(row, place)
        if not isinstance(row[column], str):
            raise InputError(f"{place} has a {type(row[column]).__name__} in column '{column}': expected a string")
        source = row.get(SOURCE_COLUMN)
        yield _whole(row[column]), None if source is None else _whole(str(source))


def _whole(text: str) -> str:
    """Valid Unicode: JSON may hold half a character ("\\ud83d"), which becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _csv_rows(path: Path) -> Iterator[Row]:
    # strict: a lenient reader would swallow the rest of the file after one unclosed quote, without a word
    csv.field_size_limit(MAX_LINE_BYTES)  # 128 KiB by default, less than a transcript
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        index = header.index(find_column(header, f"--source {path} (comma-separated, header in line 1)"))
        named = header.index(SOURCE_COLUMN) if SOURCE_COLUMN in header else None
        for row in reader:
            if not row:
                continue
            if len(row) <= max(index, named or 0):
                place = f"--source {path}, line {reader.line_num}"
                raise InputError(f"{place} has {len(row)} values, the header {len(header)}: check the commas there")
            yield row[index], None if named is None else row[named] or None
    except csv.Error as error:
        raise InputError(f"--source {path}, line {reader.line_num} is not CSV ({error}): check the quotes there") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = find_column(file.schema_arrow.names, f"--source {path}")
            kind = file.schema_arrow.field(column).type
            text = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(text) or pa.types.is_large_string(text) or pa.types.is_string_view(text)):
                raise InputError(f"--source {path} has {kind} in column '{column}': expected strings")
            named = [SOURCE_COLUMN] if SOURCE_COLUMN in file.schema_arrow.names else []
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=[column, *named]):
                texts = batch.column(column).to_pylist()
                sources = batch.column(SOURCE_COLUMN).to_pylist() if named else repeat(None, len(texts))
                for text, source in zip(texts, sources, strict=True):
                    yield text or "", None if source is None else str(source)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"--source {path} is not a readable parquet file ({error}): download or write it again") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": _parquet_rows,
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".txt": _txt_rows,
}
