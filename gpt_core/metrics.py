"""metrics.jsonl, one object a step: the interface that console, plots, TensorBoard and comparisons read."""

import importlib.util
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt_core.errors import InputError
from gpt_core.files import naming

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


def records_of(path: Path) -> Iterator[tuple[Record, int]]:
    """The whole records of a metrics file, one at a time, and the offset at which each ends.

    A last line that was cut off by a crash is left out. Raises InputError for any other line that is no record.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: a run folder written by train is expected")
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                if not isinstance(record["step"], int) or not set(FIELDS) <= set(record):
                    raise ValueError
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{path}, line {number} is not a metrics record: restore the file or start another --run"
                ) from error
            end += len(line)
            yield record, end


def read_metrics(path: Path) -> list[Record]:
    """All whole records of a metrics file."""
    return [record for record, _ in records_of(path)]


def keep_until(path: Path, step: int) -> None:
    """Cuts the file after the last record up to `step`, the rest being written again by a resumed run, or makes it."""
    with naming(path), open(path, "ab") as file:
        file.truncate(max((end for record, end in records_of(path) if record["step"] <= step), default=0))


def append(path: Path, record: Record) -> None:
    """Adds one record at the end of the file, whole or, where the disk is full, not at all."""
    left = line_of(record).encode()
    with naming(path), open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while left:  # a disk that fills up takes a part first, and refuses the rest
                left = left[file.write(left) :]
        except OSError:
            file.truncate(end)
            raise


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


def require_tensorboard() -> None:
    """Raises InputError where --tensorboard has no package to write with."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError("--tensorboard needs the package tensorboardX: pip install tensorboardX")


class TensorBoard:
    """Event files beside the metrics, for those who have tensorboardX."""

    def __init__(self, folder: Path, step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(logdir=str(folder), purge_step=step + 1)

    def write(self, record: Record) -> None:
        """Every number of a record as a scalar at its step."""
        for name, value in record.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flushes the event file."""
        self._writer.close()
