"""Hashes, and writes that are either complete or absent."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt_core.errors import InputError


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """fsync of a file, or of a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one move: a reader sees the old file or the new one."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    flush_to_disk(beside)
    os.replace(beside, path)
    flush_to_disk(path.parent)


def refuse_existing(path: Path, flag: str, overwrite: bool) -> None:
    """Raises InputError if `path`, given as `flag`, exists and may not be replaced, or cannot be made."""
    if path.exists() and not overwrite:
        raise InputError(f"{flag} {path} exists: choose another folder, or pass --overwrite to replace it")
    if path.exists() and not path.is_dir():
        raise InputError(f"{flag} {path} is a file: a folder is expected")
    make_parents(path, flag)


def checked_folder(path: Path, flag: str) -> Path:
    """`path`, given as `flag`, if files can be written into it, there or not; InputError if not."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{flag} {path} is a file: a folder is expected")
    make_parents(path, flag)
    if path.is_dir() and not os.access(path, os.W_OK):
        raise InputError(f"{flag} {path} cannot be written: choose another folder")
    return path


def make_parents(path: Path, flag: str) -> None:
    """Makes the folders above `path`; raises InputError where they cannot be made or written."""
    parent = path.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{flag} {path} cannot be made: {error.strerror}; choose another folder") from error
    if not os.access(parent, os.W_OK):
        raise InputError(f"{flag} {path} cannot be written: no permission in {parent}; choose another folder")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`; when the block succeeds it is flushed and renamed to `path`, else removed.

    An existing `path` is moved aside first; what a kill between the two renames left aside comes back the next time.
    """
    beside, replaced = _beside(path), _replaced(path)
    _recover(path)
    beside.mkdir()
    try:
        yield beside
        for file in sorted(beside.iterdir()):
            flush_to_disk(file)
        flush_to_disk(beside)
        if path.exists():
            os.replace(path, replaced)
        os.replace(beside, path)
        flush_to_disk(path.parent)
    finally:
        _recover(path)


def recover_folders(parent: Path) -> None:
    """Ends what kills left of `new_folder` in `parent`: half-written folders go, those moved aside come back."""
    for leftover in sorted(parent.iterdir()):
        name = re.fullmatch(r"\.(.+)\.(tmp|old)", leftover.name)
        if name and leftover.is_dir():
            _recover(parent / name[1])


def _recover(path: Path) -> None:
    if _replaced(path).exists() and not path.exists():
        os.replace(_replaced(path), path)
    shutil.rmtree(_replaced(path), ignore_errors=True)
    shutil.rmtree(_beside(path), ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _replaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
