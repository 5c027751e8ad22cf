"""Finished runs, from their folders: what can be compared, and what had to be left out and why."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gpt_core import checkpoint
from gpt_core.checkpoint import Checkpoint
from gpt_core.errors import InputError
from gpt_core.metrics import Record, read_metrics

METRICS = "metrics.jsonl"
LOSSES = ("loss", "val_loss")
BITS = ("val_bpb", "val_bpb_stream")


@dataclass(frozen=True)
class FinishedRun:
    """A run folder as read: records by rising step, its newest checkpoint if there is a sound one, notes on the rest."""

    name: str
    records: list[Record]
    checkpoint: Checkpoint | None
    notes: list[str]

    def series(self, field: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of the records that have a finite `field`."""
        found = [(r["step"], r[field]) for r in self.records if _is_number(r.get(field))]
        steps, values = zip(*found, strict=True) if found else ((), ())
        return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


@dataclass(frozen=True)
class RunPair:
    """A run against the first one, on the steps that both have: differences in nats a token and in bits a byte."""

    name: str
    steps: int
    last_step: int
    worst_loss: float | None
    last_loss: float | None
    last_bits: float | None


@dataclass(frozen=True)
class Runs:
    """Finished runs; `losses` are those whose losses may be compared with the first one's."""

    all: list[FinishedRun]
    losses: list[FinishedRun]
    pairs: list[RunPair]
    notes: list[str]


def read_runs(folders: list[Path]) -> list[FinishedRun]:
    """Reads run folders; raises InputError for one without a readable metrics.jsonl."""
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def compare_runs(runs: list[FinishedRun]) -> Runs:
    """The runs against the first one. Losses are compared within one tokenizer only, bits a byte always."""
    first, notes, losses = runs[0], [f"{run.name}: {note}" for run in runs for note in run.notes], [runs[0]]
    for run in runs[1:]:
        reason = _why_not_losses(first, run)
        if reason:
            notes.append(f"{run.name}: losses in nats a token are left out, {reason}; bits a byte are compared")
        else:
            losses.append(run)
        if not _same(first, run, "manifest_sha256"):
            notes.append(
                f"{run.name}: its validation text is not known to be that of {first.name} (other manifest, or none): "
                "bits a byte compare models only if it is the same text, normalised in the same way"
            )
        notes += _lengths(first, run)
    comparable = {run.name for run in losses}
    pairs = [_pair(first, run, run.name in comparable) for run in runs[1:]]
    return Runs(runs, losses, pairs, notes)


def _read(folder: Path, name: str) -> FinishedRun:
    if not folder.is_dir():
        raise InputError(f"--runs {folder} does not exist: give run folders written by train")
    notes = []
    found = read_metrics(folder / METRICS)
    if not (folder / METRICS).read_bytes().endswith(b"\n"):
        notes.append("the last record was cut off and is left out")
    by_step = {record["step"]: record for record in found}
    records = [by_step[step] for step in sorted(by_step)]
    if not records:
        raise InputError(f"--runs {folder} has no whole record in {METRICS}: leave it out, or let the run make a step")
    if len(records) < len(found):
        notes.append(f"{len(found) - len(records)} records repeat a step, the last of each is used")
    notes += _gaps(np.array([record["step"] for record in records]))
    run = FinishedRun(name, records, None, notes)
    for field in ("loss", "grad_norm"):
        missing = len(records) - len(run.series(field)[0])
        if missing:
            notes.append(f"{missing} of {len(records)} records have no finite {field} and are left out of it")
    if not any(len(run.series(field)[0]) for field in BITS):
        notes.append("no record has bits a byte (val_bpb): there is nothing to compare across tokenizers")
    try:
        return replace(run, checkpoint=checkpoint.load(checkpoint.find(folder, "--runs"), moments=False))
    except InputError as error:
        notes.append(f"no checkpoint to put through the twins, and its tokenizer is unknown ({error})")
        return run


def _gaps(steps: np.ndarray) -> list[str]:
    holes = np.flatnonzero(np.diff(steps) > 1)
    missing = [(1, steps[0] - 1)] * bool(steps[0] > 1) + [(steps[i] + 1, steps[i + 1] - 1) for i in holes]
    if not missing:
        return []
    count = sum(last - first + 1 for first, last in missing)
    shown = ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in missing[:5])
    return [f"{count} steps have no record and are left out ({shown}{', ...' if len(missing) > 5 else ''})"]


def _why_not_losses(first: FinishedRun, run: FinishedRun) -> str | None:
    if first.checkpoint is None or run.checkpoint is None:
        return f"the tokenizer of {(run if run.checkpoint is None else first).name} is unknown"
    return None if _same(first, run, "tokenizer_sha256") else f"its tokenizer is not that of {first.name}"


def _same(first: FinishedRun, run: FinishedRun, field: str) -> bool:
    if first.checkpoint is None or run.checkpoint is None:
        return False
    return bool(getattr(first.checkpoint, field) and getattr(first.checkpoint, field) == getattr(run.checkpoint, field))


def _lengths(first: FinishedRun, run: FinishedRun) -> list[str]:
    ends = first.records[-1]["step"], run.records[-1]["step"]
    if ends[0] == ends[1]:
        return []
    longer = first if ends[0] > ends[1] else run
    return [f"{run.name}: steps {min(ends) + 1}-{max(ends)} exist in {longer.name} only and are drawn but not compared"]


def _pair(first: FinishedRun, run: FinishedRun, with_losses: bool) -> RunPair:
    steps, losses = _differences(first, run, "loss") if with_losses else _differences(first, run, "step")
    last_bits = next((gaps[-1] for field in BITS for _, gaps in [_differences(first, run, field)] if len(gaps)), None)
    return RunPair(
        name=run.name,
        steps=len(steps),
        last_step=int(steps[-1]) if len(steps) else 0,
        worst_loss=float(np.abs(losses).max()) if with_losses and len(losses) else None,
        last_loss=float(losses[-1]) if with_losses and len(losses) else None,
        last_bits=float(last_bits) if last_bits is not None else None,
    )


def _differences(first: FinishedRun, run: FinishedRun, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that both have, and run minus first there."""
    (steps_a, values_a), (steps_b, values_b) = first.series(field), run.series(field)
    steps, a, b = np.intersect1d(steps_a, steps_b, return_indices=True)
    return steps, values_b[b] - values_a[a]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
