"""python -m data_prep.leakage: how many validation rows have a near-duplicate in train, by row split and by block split,
with near-duplicates left in and taken out. The last line of stdout is JSON."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from data_prep.clean import cleaner
from data_prep.command import checked_out
from data_prep.near import SIMILAR
from data_prep.options import Options, SplitBy
from data_prep.pipeline import prepare
from data_prep.selection import near_duplicates_of, select_rows
from data_prep.sources import Source, open_source
from data_prep.split import TRAIN, VAL
from data_prep.spool import Spool, refuse_empty, spool_rows
from gpt_core.cli import Parser, run

OTHER_SEED = 2
"""Other hash functions than those that took the near-duplicates out: what they overlooked would not be seen again."""
REASONS = ("near_duplicate", "leak")
SPLITS: tuple[SplitBy, ...] = ("rows", "blocks")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table, then one JSON object."""
    args = parser().parse_args(arguments)
    source = open_source(args.source)
    made: list[tuple[SplitBy, Path]] = []
    if args.datasets:
        made = [(by, checked_out(args.datasets / by, False, source.files)) for by in SPLITS]
    options = Options(latin=args.latin, test_fraction=0, seed=args.seed)
    measured = measure(source, options)
    print(table(measured))
    for split_by, out in made:
        prepare(source, out, replace(options, split_by=split_by, skip_rules=REASONS))
    print(json.dumps({"similarity": SIMILAR, "splits": measured}))


def parser() -> Parser:
    """The flags of python -m data_prep.leakage."""
    made = Parser(
        prog="python -m data_prep.leakage",
        description="Share of validation rows with a near-duplicate in train, by row split and by block split.",
    )
    made.add_argument("--source", nargs="+", required=True, metavar="SOURCE", help="as for python -m data_prep")
    made.add_argument("--latin", choices=("drop-words", "drop-french", "keep"), default=Options.latin, help="as for data_prep")
    made.add_argument("--seed", type=int, default=Options.seed, metavar="N", help="draws the validation rows")
    made.add_argument(
        "--datasets",
        type=Path,
        metavar="DIR",
        help="also make datasets to train on, DIR/rows and DIR/blocks, leaks left in",
    )
    return made


def measure(source: Source, options: Options) -> list[dict[str, Any]]:
    """An entry for each way to split: rows of train and val, and the val rows that have a near-duplicate in train."""
    found = []
    with TemporaryDirectory(prefix="leakage-") as folder:
        spool = spool_rows(source.rows(), cleaner(options.cleaning()), Path(folder))
        refuse_empty(spool)
        for split_by, skipped in product(SPLITS, (REASONS, ())):
            split_of = select_rows(spool, replace(options, split_by=split_by, skip_rules=skipped)).split_of
            leaks = leaked_rows(spool, split_of)
            val = int(np.count_nonzero(split_of == VAL))
            found.append(
                {
                    "split_by": split_by,
                    "near_duplicates": "left in" if skipped else "taken out",
                    "train_rows": int(np.count_nonzero(split_of == TRAIN)),
                    "val_rows": val,
                    "val_rows_near_train": leaks,
                    "share": leaks / val,
                }
            )
    return found


def leaked_rows(spool: Spool, split_of: np.ndarray) -> int:
    """How many validation rows have a near-duplicate in train."""
    found, ranks = near_duplicates_of(spool, split_of, (TRAIN, VAL), OTHER_SEED)
    return int(np.count_nonzero((ranks == 1) & (found.rank == 0)))


def table(measured: list[dict[str, Any]]) -> str:
    """For a terminal."""
    lines = [f"near-duplicates: Jaccard similarity of {SIMILAR} or more"]
    lines.append("split by  near-duplicates  train rows  val rows  val rows near train")
    for entry in measured:
        lines.append(
            f"{entry['split_by']:<8}  {entry['near_duplicates']:<15}  {entry['train_rows']:>10,}  {entry['val_rows']:>8,}  "
            f"{entry['val_rows_near_train']:>8,}  {100 * entry['share']:6.2f} %"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
