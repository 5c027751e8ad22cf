"""What the tests of compare start from: a small model on the small dataset, and run folders written by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from helpers import make_tokenizer

from compare.setup import TRAINED_STEPS, Setup, calm_recipe
from gpt_core import checkpoint
from gpt_core.config import GPTConfig, presets
from gpt_core.dataset import open_dataset
from gpt_core.init import initial_weights
from gpt_core.metrics import FIELDS

CONFIG = GPTConfig(vocab_size=512, block_size=32, n_layer=2, n_head=2, n_embd=64)
SMALL_PRESETS = {"tiny": (CONFIG, dataclasses.replace(presets()["tiny"][1], micro_batch_size=4))}
"""What `presets()` returns in tests: steps take milliseconds."""


def small_setup(folder: Path) -> Setup:
    """A setup of the small preset."""
    train = SMALL_PRESETS["tiny"][1]
    lively = dataclasses.replace(train, steps=TRAINED_STEPS)
    return Setup(CONFIG, calm_recipe(train), lively, open_dataset(folder), initial_weights(CONFIG, train.seed))


def record(step: int, **changed: Any) -> dict[str, Any]:
    """A record of metrics.jsonl with a loss that falls with the step."""
    measured: dict[str, Any] = {"step": step, "loss": 6.0 - step / 100, "grad_norm": 1.0, "val_bpb": 2.0 - step / 1000}
    return dict.fromkeys(FIELDS, 0.0) | measured | changed


def write_run(folder: Path, records: list[dict], tokenizer_size: int | None = 400, manifest: str = "m" * 64) -> Path:
    """A run folder with these records, and a checkpoint unless `tokenizer_size` is None."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    if tokenizer_size is not None:
        tokenizer = folder / "made.json"
        make_tokenizer(vocab_size=tokenizer_size).save(str(tokenizer))
        checkpoint.save(
            run=folder,
            model=CONFIG,
            train=dataclasses.replace(presets()["tiny"][1], micro_batch_size=2),
            step=len(records),
            tokens=len(records) * 64,
            weights=initial_weights(CONFIG, 3),
            moments={f"{n}.{m}": 0 * w for n, w in initial_weights(CONFIG, 3).items() for m in "mv"},
            tokenizer=tokenizer,
            manifest_sha256=manifest,
            versions={"framework": "torch"},
        )
    return folder
