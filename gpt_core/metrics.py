"""metrics.jsonl, one object a step: the interface that console, plots, TensorBoard and comparisons read."""

import json
import math
import os
from pathlib import Path
from typing import Any

from gpt_core.errors import InputError
from gpt_core.files import write_text

Record = dict[str, Any]

FIELDS = (
    "step",
    "epoch",
    "tokens",
    "loss",
    "lr",
    "grad_norm",
    "clipped_grad_norm",
    "step_ms",
    "tokens_per_s",
    "mfu_pct",
    "peak_mem_gib",
)
VALIDATION_FIELDS = ("val_loss", "val_bpb", "val_bpb_stream")


def clipped_norm(norm: float, limit: float) -> float:
    """Global gradient norm after clipping as both frameworks do it: scaled by min(1, limit / (norm + 1e-6))."""
    return norm * min(1.0, limit / (norm + 1e-6))


def refuse_non_finite(loss: float, norm: float, step: int, lr: float, last_good: str) -> None:
    """Raises InputError if the loss or the gradient norm of a step is not a number to train on."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise InputError(
            f"step {step} has loss {loss} and gradient norm {norm} at --lr {lr:g}: training stopped before the update; "
            f"last good checkpoint: {last_good}; lower --lr, add --warmup-steps, or use --dtype float32"
        )


def read_metrics(path: Path) -> list[Record]:
    """All whole records of a metrics file; a last line that was cut off by a crash is left out."""
    if not path.is_file():
        raise InputError(f"{path} is missing: a run folder written by train is expected")
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            if not isinstance(record["step"], int) or not set(FIELDS) <= set(record):
                raise ValueError
            records.append(record)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number} is not a metrics record: restore the file or start another --run"
            ) from error
    return records


def keep_until(path: Path, step: int) -> None:
    """Drops the records after `step`: a resumed run writes them again."""
    kept = [record for record in read_metrics(path) if record["step"] <= step] if path.is_file() else []
    write_text(path, "".join(line_of(record) for record in kept))


def append(path: Path, record: Record) -> None:
    """Adds one record, whole, at the end of the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line_of(record).encode())
    finally:
        os.close(descriptor)


def line_of(record: Record) -> str:
    """A record as a line of JSON."""
    try:
        return json.dumps(record, allow_nan=False) + "\n"
    except ValueError as error:
        broken = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        what = f"step {record['step']} has {', '.join(broken)} that is not finite"
        raise InputError(f"{what}: lower --lr or add --warmup-steps") from error


def console_line(record: Record) -> str:
    """A record as people read it."""
    parts = [
        f"step {record['step']}",
        f"loss: {record['loss']:.6f}",
        f"lr: {record['lr']:.2e}",
        f"norm: {record['grad_norm']:.3f}",
        f"dt: {record['step_ms']:.2f}ms",
        f"tok/s: {record['tokens_per_s']:.0f}",
    ]
    if record["mfu_pct"] is not None:
        parts.append(f"mfu: {record['mfu_pct']:.1f}%")
    if "val_loss" in record:
        parts.append(f"val loss: {record['val_loss']:.4f}")
        parts.append(f"val bpb: {record['val_bpb']:.4f} (rows) {record['val_bpb_stream']:.4f} (stream)")
    return " | ".join(parts)


class TensorBoard:
    """Event files beside the metrics, for those who have tensorboardX."""

    def __init__(self, folder: Path, step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs the package tensorboardX: pip install tensorboardX") from error
        self._writer = SummaryWriter(logdir=str(folder), purge_step=step + 1)

    def write(self, record: Record) -> None:
        """Every number of a record as a scalar at its step."""
        for name, value in record.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flushes the event file."""
        self._writer.close()
