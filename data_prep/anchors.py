"""python -m data_prep.anchors: what a model must beat on rows of a dataset held out from it, without a neural network.

Every figure is bits over the same bytes as the row metric: UTF-8 bytes of each row and one for its end. Compressors read the
rows as text, a row a line, and are given the training rows as text before it: size(train + rows) - size(train). n-grams are
Kneser-Ney models of the training rows' tokens, and score each row alone, as the metric does.
"""

import json
import lzma
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.kneser_ney import train
from gpt_core.bootstrap import CONFIDENCE, ratio_interval
from gpt_core.cli import Parser, run
from gpt_core.dataset import Dataset, held_out, open_dataset
from gpt_core.progress import bar
from gpt_core.tokens import END_OF_TEXT_ID, token_bytes

PPMD_ORDER, PPMD_MEMORY = 16, 256 << 20  # bytes of context: eight Arabic letters; and of memory, so that it forgets nothing
N_GRAMS = {"unigram": 1, "bigram": 2, "5-gram": 5}


def xz(text: bytes) -> int:
    """Bytes that `xz -9` makes of a text."""
    return len(lzma.compress(text, preset=9))


def ppmd(text: bytes) -> int:
    """Bytes that PPMd makes of a text (variant I, Shkarin 2002)."""
    import pyppmd

    return len(pyppmd.compress(text, max_order=PPMD_ORDER, mem_size=PPMD_MEMORY, variant="I"))


COMPRESSORS: dict[str, Callable[[bytes], int]] = {"xz": xz, "ppmd": ppmd}


def text_of(tokens: np.ndarray, pieces: Sequence[bytes]) -> bytes:
    """The rows of a split, (n,) tokens, as text: a row a line, the last one with its line end too."""
    return b"".join([pieces[token] for token in tokens[1:].tolist()] + [b"\n"])


def anchors(dataset: Dataset, split: str = "val") -> dict[str, Any]:
    """Bits a byte of each anchor on the rows of `split`, and what they were measured on."""
    pieces = token_bytes(dataset.tokenizer)
    splits = [stream.read(0, len(stream)) for stream in (dataset.train, held_out(dataset, split))]
    before, text = (text_of(tokens, pieces) for tokens in splits)
    rows = np.cumsum(splits[1] == END_OF_TEXT_ID) - 1
    sizes = np.bincount(rows, weights=[len(pieces[token]) for token in splits[1].tolist()])
    found: dict[str, Any] = {}
    with bar(total=len(COMPRESSORS) + len(N_GRAMS), desc="anchors", unit="anchor") as progress:
        for name, size_of in COMPRESSORS.items():
            given = size_of(before + text) - size_of(before)
            found[name] = {"val_bpb": 8 * given / len(text), "val_bpb_alone": 8 * size_of(text) / len(text)}
            progress.update()
        for name, order in N_GRAMS.items():
            nats = train(splits[0], dataset.vocab_size, order).row_nats(splits[1])
            found[name] = {
                "val_bpb": float(nats.sum()) / math.log(2) / len(text),
                "val_bpb_interval": ratio_interval(nats / math.log(2), sizes),
                "val_loss": float(nats.sum()) / len(splits[1]),
            }
            progress.update()
    return {
        "data": str(dataset.folder),
        "split": split,
        "manifest_sha256": dataset.manifest_sha256,
        "rows": len(sizes),
        "bytes": len(text),
        "tokens": len(splits[1]),
        "confidence": CONFIDENCE,
        "anchors": found,
    }


def report(result: dict[str, Any]) -> str:
    """A table for people, then the same as one line of JSON."""
    lines = [f"{result['data']}: {result['rows']} rows of {result['split']}, {result['bytes']} bytes with row ends"]
    for name, part in result["anchors"].items():
        line = f"  {name:<8} {part['val_bpb']:.4f} bits a byte"
        if "val_loss" in part:
            low, high = part["val_bpb_interval"]
            line += f" ({CONFIDENCE:.0%}: {low:.4f} to {high:.4f}), {part['val_loss']:.4f} nats a token"
        else:
            line += f" after the training rows, {part['val_bpb_alone']:.4f} alone"
        lines.append(line)
    return "\n".join([*lines, json.dumps(result)])


def parser() -> Parser:
    """The flags of python -m data_prep.anchors."""
    made = Parser(prog="python -m data_prep.anchors", description="What a model must beat; the last line is JSON.")
    made.add_argument("data", type=Path, metavar="DIR", help="dataset folder: trained on its train split")
    made.add_argument("--split", choices=("val", "test"), default="val", help="rows to score; test is for the very end")
    return made


def main() -> None:
    """The command."""
    args = parser().parse_args()
    print(report(anchors(open_dataset(args.data), args.split)))


if __name__ == "__main__":
    run(main)
