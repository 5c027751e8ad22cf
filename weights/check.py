"""python -m weights.check: are two models, in any two formats, the same? Exit code 1 if not."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from gpt_core import cli
from gpt_core.cli import Parser
from gpt_core.dataset import Dataset, open_dataset
from gpt_core.files import read_json
from gpt_core.rows import read_row, row_starts
from weights.compare import TOLERANCE, Answer, Difference, difference
from weights.convert import kind_of, read
from weights.engines import Engine, open_engine
from weights.prompts import PROMPTS

GREEDY_TOKENS = 64
ROWS = 32
GGUF_TOLERANCE = {"max_logit_diff": 2e-2, "kl_nats": 1e-5}
"""For GPT-2 in llama.cpp, whose GELU is a table in half precision. Measured on 93M models: at most 2.5e-3 and 9e-8."""


def kind_to_run(path: Path) -> str:
    """The format of a path for `open_engine`, after everything that can be checked without running it. Raises InputError."""
    kind = kind_of(path)
    if kind == "hf" and "quantization" in read_json(path / "config.json"):
        return "quantized"
    if kind != "gguf":
        read(path)
    return kind


def validation_texts(dataset: Dataset) -> list[str]:
    """Rows of the validation split, spread evenly over it."""
    starts = row_starts(dataset.val)
    chosen = np.unique(np.linspace(0, len(starts) - 1, num=ROWS).round().astype(np.int64))
    return [dataset.tokenizer.decode(read_row(dataset.val, starts, int(row))[1:-1].tolist()) for row in chosen]


def answers(engine: Engine, prompts: tuple[str, ...], rows: list[str], block_size: int) -> list[Answer]:
    """Greedy text of the prompts as far as the context goes, logits of all texts, cut to the context. Closes the engine."""
    found = []
    for text in (*prompts, *rows):
        ids = engine.encode(text)[:block_size]
        room = min(GREEDY_TOKENS, block_size - len(ids))
        added = engine.greedy(text, room) if text in prompts and room > 0 else []
        found.append(Answer(ids, added, engine.logits(ids + added)))
    engine.close()
    return found


def table(apart: Difference) -> str:
    """A difference for people."""
    parting = "" if apart.same_texts == apart.texts else f"; the others part at tokens {apart.widest_tie:.2e} apart at most"
    lines = (
        f"  logits       at most {apart.max_logit_diff:.2e} apart, {apart.mean_logit_diff:.2e} on average",
        f"  divergence   {apart.kl_nats:.2e} nats a token",
        f"  top token    the same at {apart.top1_agreement:.2%} of {apart.positions} positions",
        f"  greedy text  the same for {apart.same_texts} of {apart.texts} texts{parting}",
        f"  tokenizers   {'agree' if apart.same_tokens else 'differ'}",
    )
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = Parser(prog="python -m weights.check", description="Compares two models; the last line is JSON.")
    for name in ("A", "B"):
        parser.add_argument(name, type=Path, help="checkpoint or run folder, Hugging Face folder, .pt or .gguf file")
    parser.add_argument("--data", type=Path, metavar="DIR", help="dataset folder: rows of its validation split too")
    args = parser.parse_args()
    paths = (args.A, args.B)
    kinds = [kind_to_run(path) for path in paths]
    rows = validation_texts(open_dataset(args.data)) if args.data else []
    engines = [open_engine(kind, path) for kind, path in zip(kinds, paths, strict=True)]
    block_size = min(engine.block_size for engine in engines)
    apart = difference(*(answers(engine, PROMPTS, rows, block_size) for engine in engines))
    tolerance = GGUF_TOLERANCE if any(engine.coarse for engine in engines) else TOLERANCE
    passed = apart.passes(tolerance)
    names = [engine.name for engine in engines]
    for path, name in zip(paths, names, strict=True):
        print(f"{path} in {name}")
    print(table(apart))
    result = {"a": str(args.A), "b": str(args.B), "engines": names, "prompts": len(PROMPTS), "rows": len(rows)}
    print(json.dumps(result | finite(dataclasses.asdict(apart)) | {"tolerance": tolerance, "passed": passed}))
    return 0 if passed else 1


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: None where nothing could be compared."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


if __name__ == "__main__":
    cli.run(main)
