"""Hashes, and writes that are either complete or absent."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpt_core.errors import InputError

MAX_JSON_BYTES = 100_000_000  # the limit of the safetensors format for its header


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(values: dict[str, Any]) -> str:
    """Hex SHA-256 of everything in a JSON object but its `checksum`: how a file says that it is as it was written."""
    rest = {name: value for name, value in values.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, remedy: str = "restore the file") -> dict[str, Any]:
    """A JSON object of at most 100 MB. Raises InputError, which ends in the remedy."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise InputError(f"{path} has {size} bytes, more than any JSON file of a model: {remedy}")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({type(error).__name__}): {remedy}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, expected an object: {remedy}")
    return value


def flush_to_disk(path: Path) -> None:
    """fsync of a file, or of a folder's entries."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns what a full or broken disk makes of writing `path` into an OSError that names it.

    Python names a file that it cannot open, not one that it cannot write; libraries in Rust raise errors of their own.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        reason = error.strerror or f"{error}; is the disk full?"  # numpy only counts what it could not write
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error
    except InputError:
        raise
    except Exception as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one move: a reader sees the old file or the new one."""
    with new_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def refuse_existing(path: Path, flag: str, overwrite: bool) -> None:
    """Raises InputError if `path`, given as `flag`, exists and may not be replaced, or cannot be made."""
    if path.exists() and not overwrite:
        raise InputError(f"{flag} {path} exists: choose another folder, or pass --overwrite to replace it")
    if path.resolve() == Path.cwd():
        raise InputError(f"{flag} {path} is the folder that this command runs in: choose another, or run it from outside")
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
def new_file(path: Path) -> Iterator[Path]:
    """Yields an empty file beside `path`; when the block succeeds it is flushed and renamed to `path`, else removed.

    Raises InputError for a `path` that is no file, such as /dev/null: the renaming would put a file in place of the device.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is there and is no regular file: name a file to write")
    beside = _beside(path)
    with naming(path), _held(beside, path, is_file=True):
        try:
            os.truncate(beside, 0)
            yield beside
            flush_to_disk(beside)
            os.replace(beside, path)
            flush_to_disk(path.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`; when the block succeeds it is flushed and renamed to `path`, else removed.

    An existing `path` is moved aside first; what a kill between the two renames left aside comes back the next time.
    """
    beside, replaced = _beside(path), _replaced(path)
    with naming(path), _held(beside, path, is_file=False):
        _restore(path)
        _empty(beside)
        try:
            yield beside
            for file in sorted(beside.rglob("*")):
                flush_to_disk(file)
            flush_to_disk(beside)
            if path.exists():
                os.replace(path, replaced)
            os.replace(beside, path)
            flush_to_disk(path.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        finally:
            _restore(path)


def remove_folder(path: Path) -> None:
    """Removes a folder in one move, as others see it; what a kill leaves of it, `recover_folders` removes."""
    shutil.rmtree(_beside(path), ignore_errors=True)
    os.replace(path, _beside(path))
    shutil.rmtree(_beside(path))


def recover_folders(parent: Path) -> None:
    """Ends what kills left in `parent`: half-written files and folders go, folders moved aside come back."""
    for leftover in sorted(parent.iterdir()):
        name = re.fullmatch(r"\.(.+)\.(tmp|old)", leftover.name)
        if name is None or (name[2] == "old" and not leftover.is_dir()):
            continue
        path = parent / name[1]
        beside = _beside(path)
        with suppress(InputError), _held(beside, path, is_file=beside.is_file()):  # that of a living process is left alone
            _restore(path)
            if beside.is_file():
                beside.unlink()
            else:
                shutil.rmtree(beside)


@contextmanager
def _held(place: Path, path: Path, is_file: bool) -> Iterator[None]:
    """Keeps other processes from `place`, the file or folder where `path` is written; it is made if it is not there.

    The lock is the system's and goes along when the place is renamed: it ends with its process, and leaves nothing.
    """
    if not is_file:
        place.mkdir(exist_ok=True)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT if is_file else os.O_RDONLY, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = place.exists() and os.path.samestat(place.stat(), os.fstat(descriptor))
        except BlockingIOError:
            ours = False
        except OSError:  # a file system without locks
            ours = True
        if not ours:
            raise InputError(f"{path} is being written by another process: wait for it to end, or choose another place")
        yield
    finally:
        os.close(descriptor)


def _restore(path: Path) -> None:
    if _replaced(path).is_dir() and not path.exists():
        os.replace(_replaced(path), path)
    shutil.rmtree(_replaced(path), ignore_errors=True)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _beside(path: Path) -> Path:
    path = path.absolute()  # "." has no name
    return path.with_name(f".{path.name}.tmp")


def _replaced(path: Path) -> Path:
    path = path.absolute()
    return path.with_name(f".{path.name}.old")
