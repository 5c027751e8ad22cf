"""Results as tables, as a file, and against an earlier file."""

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
from benchmarks.tables import aligned
from benchmarks.timing import Spread
from benchmarks.train_speed import strangers
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.flops import flops_per_token, tokens_per_step
from gpt_core.peaks import nominal_tflops

FORMAT_VERSION = 1
SAME_WORK = (
    "n_layer", "n_head", "n_embd", "block_size", "vocab_size", "positions", "norm", "qk_norm", "mlp", "bias",
    "micro_batch_size", "accumulation", "optimizer", "document_mask", "dropout", "token_noise",
)  # fmt: skip
"""What must be the same for two speeds to be of the same work."""
TRAIN_HEADING = (
    "training", "tok/s", "low..high", "step ms", "data ms", "fwd+bwd ms", "optimizer ms",
    "MFU %", "of matmul %", "matmul TFLOPS", "peak GiB", "RSS GiB",
)  # fmt: skip


def result(
    preset: str,
    model: GPTConfig,
    train: TrainConfig,
    trials: int,
    chip: str,
    machine: dict[str, Any],
    rows: Sequence[Row],
    failed: dict[str, str],
) -> dict[str, Any]:
    """Everything as one JSON object."""
    recipe = dataclasses.asdict(train)
    del recipe["dtype"]  # it is each row's
    return {
        "format_version": FORMAT_VERSION,
        "preset": preset,
        "chip": chip,
        "date": time.strftime("%Y-%m-%d"),
        "time": time.strftime("%H:%M:%S %Z"),
        "machine": machine,
        "model": dataclasses.asdict(model),
        "train": recipe,
        "tokens_per_step": tokens_per_step(model, train),
        "flops_per_token": flops_per_token(model),
        "trials": trials,
        "rows": [dataclasses.asdict(row) for row in rows],
        "failed": failed,
    }


def file_name(found: dict[str, Any]) -> str:
    """seed_apple-m1-pro_2026-11-23.json"""
    return f"{found['preset']}_{slug(found['chip'])}_{found['date']}.json"


def slug(chip: str) -> str:
    """A chip's name as part of a file name: apple-m1-pro."""
    return re.sub(r"[^a-z0-9]+", "-", chip.lower()).strip("-")


def tables(rows: Sequence[Row]) -> str:
    """The table of each part that was measured, and the notes that its figures need."""
    trained = [row for row in rows if row.part == "train"]
    others = [row for row in rows if row.part != "train"]
    parts = []
    if trained:
        parts.append(aligned([TRAIN_HEADING, *(_train_cells(row) for row in trained)]))
        parts.append("\n".join(notes(trained)))
    if others:
        cells = [[f"{row.part}: {row.name}", row.unit, f"{row.rate.median:,.0f}", _range(row.rate)] for row in others]
        parts.append(aligned([["part", "unit", "median", "low..high"], *cells]))
    return "\n\n".join(parts)


def notes(trained: Sequence[Row]) -> list[str]:
    """What a reader must know about these training figures."""
    found = ["split: each part timed on its own in extra trials, so the parts need not add up; clipping is in fwd+bwd"]
    unknown = {(row.details["chip"], row.details["dtype"]) for row in trained if row.details["nominal_tflops"] is None}
    for chip, dtype in sorted(unknown):
        found.append(f"no MFU of {chip}: its nominal {dtype} peak is not known; --peak-tflops X gives one")
    for chip in sorted({row.details["chip"] for row in trained if _by_the_table_of_apple(row.details)}):
        found.append(f"peak of {chip}: that of the chip with all its GPU cores; --peak-tflops X for one with fewer")
    for row in trained:
        predicted = row.details["predicted_ms"]
        if predicted is not None:
            measured = row.details["step_ms"].median
            found.append(f"{row.name}: measured {measured:.1f} ms a step, predicted {predicted:.1f} (benchmarks.roofline)")
    for name in strangers(trained):
        found.append(f"WARNING {name}: its first loss is not {trained[0].name}'s: not the same model")
    return found


def read_earlier(path: Path, preset: str, model: GPTConfig, train: TrainConfig) -> dict[str, Any]:
    """An earlier result that can be compared with. Raises InputError."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = [(row["part"], row["name"], row["unit"], row["rate"]["median"] + 0) for row in found["rows"]]
        work = _added_later() | found["model"] | found["train"]
        now = dataclasses.asdict(model) | dataclasses.asdict(train)
        differing = [name for name in SAME_WORK if work[name] != now[name]]
        known = found["format_version"] == FORMAT_VERSION and isinstance(found["preset"], str) and len(rows) > 0
        found["chip"], found["date"]
    except FileNotFoundError as error:
        raise InputError(f"--against {path} is missing: give a JSON file that python -m benchmarks wrote") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--against {path} is no result of python -m benchmarks: {type(error).__name__} {error}") from error
    if not known:
        raise InputError(f"--against {path} is no result of format version {FORMAT_VERSION} with rows: measure it again")
    if found["preset"] != preset:
        raise InputError(f"--against {path} is of preset {found['preset']}, not {preset}: give a result of the same preset")
    if differing:
        name = differing[0]
        given = name in dataclasses.asdict(model) or name in ("micro_batch_size", "accumulation")
        remedy = f"give the same --{name.replace('_', '-')}" if given else "the preset has changed, measure it again"
        raise InputError(f"--against {path} has another {name}, {work[name]}: {remedy}")
    return found


def ratios(rows: Sequence[Row], earlier: dict[str, Any]) -> list[tuple[str, float]]:
    """Rate now over rate then of every row that both have: above 1 is faster now."""
    then = {(row["part"], row["name"], row["unit"]): row["rate"]["median"] for row in earlier["rows"]}
    both = [(row, then[row.part, row.name, row.unit]) for row in rows if (row.part, row.name, row.unit) in then]
    return [(f"{row.part}: {row.name} ({row.unit})", row.rate.median / before) for row, before in both]


def against(rows: Sequence[Row], earlier: dict[str, Any]) -> str:
    """The ratios as a table."""
    found = [[name, f"{ratio:.2f} x"] for name, ratio in ratios(rows, earlier)]
    heading = f"against {earlier['chip']}, {earlier['date']}"
    return aligned([[heading, "now / then"], *found]) if found else f"{heading}: no row in common"


def _by_the_table_of_apple(details: dict[str, Any]) -> bool:
    peak = nominal_tflops(details["chip"], details["dtype"])
    return details["chip"].startswith("Apple ") and peak is not None and details["nominal_tflops"] == peak


def _added_later() -> dict[str, Any]:
    """Defaults of the options that files of earlier versions lack, and meant."""
    options = [item for config in (GPTConfig, TrainConfig) for item in dataclasses.fields(config)]
    return {item.name: item.default for item in options if item.metadata["added"]}


def _train_cells(row: Row) -> list[str]:
    d = row.details
    split = d["split_ms"] or {}
    parts = [f"{split[name]:.1f}" if name in split else "-" for name in ("data", "forward_backward", "optimizer")]
    mfu = "-" if d["mfu_nominal_pct"] is None else f"{d['mfu_nominal_pct']:.1f}"
    figures = [
        f"{d['mfu_matmul_pct']:.1f}",
        f"{d['matmul_tflops']:.3g}",
        f"{d['peak_mem_gib']:.2f}",
        f"{d['peak_rss_gib']:.2f}",
    ]
    return [row.name, f"{row.rate.median:,.0f}", _range(row.rate), f"{d['step_ms'].median:.1f}", *parts, mfu, *figures]


def _range(rate: Spread) -> str:
    return f"{rate.low:,.0f}..{rate.high:,.0f}"
