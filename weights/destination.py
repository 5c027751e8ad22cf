"""Where the result goes: refused before any work where it would overwrite or destroy something."""

from pathlib import Path

from gpt_core import checkpoint
from gpt_core.errors import InputError
from gpt_core.files import read_json, refuse_existing
from weights.tensors import SINGLE
from weights.twin_write import MAKERS


def refuse_destination(source: Path, path: Path, overwrite: bool, is_file: bool) -> None:
    """Raises InputError unless `path` is new, or --overwrite replaces what looks like an earlier result. Makes nothing."""
    for read in (source, *checkpoint.step_folders(source)):  # of a run folder the newest is read, and all are kept
        if read.resolve().is_relative_to(path.resolve()):
            raise InputError(f"DST {path} is or holds the source {read}: choose another place")
    if not path.exists() and not path.is_symlink():
        return
    if is_file:
        if not overwrite:
            raise InputError(f"DST {path} exists: choose another file, or pass --overwrite to replace it")
        if not path.is_file() or path.suffix != ".gguf":
            raise InputError(f"DST {path} is not a .gguf file: it is not replaced, choose another file")
        return
    refuse_existing(path, "DST", overwrite)
    if not (path / SINGLE).is_file() and any(path.iterdir()):  # a run folder has none: it is not lost this way
        raise InputError(f"DST {path} holds other things than a model: it is not replaced, choose another folder")
    if (path / checkpoint.STATE).is_file() and not _made_by_conversion(path):
        raise InputError(f"DST {path} is a checkpoint that a training run wrote: it is not replaced, choose another folder")


def _made_by_conversion(folder: Path) -> bool:
    try:
        versions = read_json(folder / checkpoint.STATE).get("versions")
    except InputError:
        return False  # nobody knows what it was
    return isinstance(versions, dict) and versions.get("framework") in MAKERS
