"""Writing a twin checkpoint that both trainers start from, and resume where the source had moments."""

import re
from pathlib import Path

from gpt_core import checkpoint
from gpt_core.errors import InputError
from weights.source import Source

CONVERT, AVERAGE = MAKERS = ("weights.convert", "weights.average")
"""What stands as the framework of a checkpoint that no training run wrote."""


def write_twin(source: Source, folder: Path) -> None:
    """Writes the checkpoint folder, complete or not at all; `folder` may be replaced. A mean stays known as one."""
    maker = source.maker if source.maker in MAKERS else CONVERT
    checkpoint.write(
        folder=folder,
        model=source.model,
        train=source.records.train,
        step=source.records.step,
        tokens=source.records.tokens,
        weights=source.weights,
        moments=source.moments,
        tokenizer=source.tokenizer.encode(),
        manifest_sha256=source.records.manifest_sha256,
        versions={"framework": maker} | ({checkpoint.INIT_FROM: source.base} if source.base else {}),
    )


def refuse_other_step(source: Source, folder: Path) -> None:
    """Raises InputError for a destination step_NNNNNN with another number than the source's: a run would mistake it."""
    named = re.fullmatch(r"step_(\d{6,})", folder.name)
    if named and int(named[1]) != source.records.step:
        right = checkpoint.step_folder(folder.parent, source.records.step)
        raise InputError(f"DST {folder} says step {int(named[1])}, the source is at {source.records.step}: name it {right}")
