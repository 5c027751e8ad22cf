"""Where the result goes: refused before any work where it would overwrite or destroy something."""

from pathlib import Path

from gpt_core.errors import InputError
from gpt_core.files import refuse_existing
from weights.tensors import SINGLE


def refuse_destination(source: Path, path: Path, overwrite: bool, is_file: bool) -> None:
    """Raises InputError unless `path` is new, or --overwrite replaces what looks like an earlier result. Makes nothing."""
    if path.resolve() == source.resolve() or source.resolve().is_relative_to(path.resolve()):
        raise InputError(f"DST {path} is or holds the source {source}: choose another place")
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
