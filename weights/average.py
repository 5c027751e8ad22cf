"""python -m weights.average: the mean of checkpoints, weight by weight, as a checkpoint (Izmailov et al. 2018)."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt_core import cli
from gpt_core.checkpoint import Arrays
from gpt_core.cli import Parser
from gpt_core.errors import InputError
from gpt_core.files import make_parents
from weights.destination import refuse_destination
from weights.source import Source, read_twin
from weights.twin_write import AVERAGE, refuse_other_step, write_twin


def average(paths: Sequence[Path]) -> Source:
    """The mean of checkpoints of one model, in float64, rounded once; its records are those of the one with most steps.

    Raises InputError for fewer than two, for one given twice, and for models or tokenizers that differ.
    """
    if len(paths) < 2:
        raise InputError(f"CHECKPOINT {paths[0]} alone has no mean: give two or more")
    sources = [read_twin(path) for path in paths]
    first = sources[0]
    for number, (path, source) in enumerate(zip(paths, sources, strict=True)):
        if source.path.resolve() in [other.path.resolve() for other in sources[:number]]:
            raise InputError(f"CHECKPOINT {path} is given twice, as {source.path}: leave one out")
        if source.model != first.model or source.tokenizer != first.tokenizer:
            what = "another model" if source.model != first.model else "another tokenizer"
            raise InputError(f"CHECKPOINT {path} is of {what} than {paths[0]}: only weights of one model have a mean")
    return dataclasses.replace(
        max(sources, key=lambda source: source.records.step), weights=_mean(sources), moments={}, maker=AVERAGE
    )


def _mean(sources: Sequence[Source]) -> Arrays:
    names = sources[0].weights
    return {n: np.asarray(np.mean([s.weights[n] for s in sources], axis=0, dtype=np.float64), np.float32) for n in names}


def main() -> None:
    """The command."""
    parser = Parser(prog="python -m weights.average", description="The mean of checkpoints; the last line is JSON.")
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="step_NNNNNN folders of one model")
    parser.add_argument("--out", type=Path, required=True, metavar="DST", help="checkpoint folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result at DST")
    args = parser.parse_args()
    for path in args.checkpoints:
        refuse_destination(path, args.out, args.overwrite, is_file=False)
    mean = average(args.checkpoints)
    refuse_other_step(mean, args.out)
    make_parents(args.out, "DST")
    write_twin(mean, args.out)
    print(
        json.dumps({"checkpoints": [str(path) for path in args.checkpoints], "out": str(args.out), "step": mean.records.step})
    )


if __name__ == "__main__":
    cli.run(main)
