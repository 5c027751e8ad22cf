"""Where the rows come from: the Hugging Face dataset, the embedded sample, or files."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.readers import SOURCE_COLUMN, Row, find_column, read_rows
from gpt_core.errors import InputError
from gpt_core.files import sha256

HUB_DATASET = "ayoubkirouane/Algerian-Darija"
HUB_SPLIT = "v1"
HUB_TIMEOUT_S = 10
SAMPLE_FOLDER = Path(__file__).parent / "sample"


@dataclass(frozen=True)
class Source:
    """A text source that was found readable.

    `rows` reads it from the start, each row with the name of its source (None: it has no parts); `describe` makes its
    entry in the manifest, where a file is known by its name and hash, never by its place on this machine.
    """

    files: tuple[Path, ...]
    rows: Callable[[], Iterator[Row]]
    describe: Callable[[], dict[str, Any]]


def open_source(values: Sequence[str]) -> Source:
    """The source for the values of --source. Raises InputError before any work for whatever cannot be read."""
    if list(values) == ["hub"]:
        return _hub()
    if list(values) == ["sample"]:
        return _files("sample", sorted(SAMPLE_FOLDER.glob("*.txt")))
    for word in ("hub", "sample"):
        if word in values:
            raise InputError(f"--source {word} stands alone: give hub, sample, or files (a file of that name is ./{word})")
    return _files("files", [Path(value) for value in values])


def _files(name: str, paths: Sequence[Path]) -> Source:
    for path in paths:
        if next(read_rows(path), None) is None:
            raise InputError(f"--source {path} has no rows: give a file with text in it")

    names = names_of(paths)

    def describe() -> dict[str, Any]:
        entries = [{"file": n, "sha256": sha256(p), "bytes": p.stat().st_size} for n, p in zip(names, paths, strict=True)]
        return {"name": name, "files": entries}

    def rows() -> Iterator[Row]:
        for path, name in zip(paths, names, strict=True):
            for text, source in read_rows(path):
                yield text, source or (name if len(paths) > 1 else None)

    return Source(tuple(paths), rows, describe)


def names_of(paths: Sequence[Path]) -> list[str]:
    """The files' names, with as many of their folders as it takes to tell them apart: fb/c.txt and yt/c.txt."""
    parts = [path.absolute().parts for path in paths]
    different, depth = len(set(parts)), 1
    while len({own[-depth:] for own in parts}) < different:
        depth += 1
    return [_valid("/".join(own[-depth:])) for own in parts]


def _valid(name: str) -> str:
    """A name as valid Unicode, whatever bytes the file system holds."""
    return os.fsencode(name).decode("utf-8", "replace")


def _hub() -> Source:
    try:
        import datasets
        from huggingface_hub import HfApi
    except ImportError as error:
        raise InputError(f"--source hub needs the package 'datasets' ({error}): pip install datasets") from error

    # load_dataset retries an unreachable hub for half a minute; this fails at once, and pins the revision
    with _hub_errors():
        revision = HfApi().dataset_info(HUB_DATASET, timeout=HUB_TIMEOUT_S).sha

    def rows() -> Iterator[Row]:
        with _hub_errors():
            dataset = datasets.load_dataset(HUB_DATASET, split=HUB_SPLIT, revision=revision, streaming=True)
            yield from hub_rows(dataset)

    return Source(
        (), rows, lambda: {"name": "hub", "dataset": HUB_DATASET, "split": HUB_SPLIT, "revision": revision, "files": []}
    )


def hub_rows(dataset: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Text and source columns of an iterable `datasets` dataset; a missing value is an empty row, or no source."""
    column, stream = None, iter(dataset)
    try:
        for row in stream:
            column = column or find_column(row, f"--source hub ({HUB_DATASET})")
            source = row.get(SOURCE_COLUMN)
            yield row[column] or "", None if source is None else str(source)
    finally:
        if isinstance(stream, Generator):  # else it ends with Python, where pyarrow aborts (apache/arrow #45214)
            stream.close()


@contextmanager
def _hub_errors() -> Iterator[None]:
    """Turns whatever the hub libraries raise (of httpx, OSError, ValueError) into one InputError with the ways out."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"--source hub: {HUB_DATASET} cannot be read from the Hugging Face hub ({type(error).__name__}: {error}); "
            "use --source sample for the embedded corpus, or --source FILE for a file of your own"
        ) from error
