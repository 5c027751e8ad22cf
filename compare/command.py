"""The command line of python -m compare."""

import time
from collections.abc import Sequence
from pathlib import Path

from compare import machine, proof, report
from compare.controls import CONTROLS
from compare.runs import compare_runs, read_runs
from compare.setup import find_data, make_setup
from compare.sides import load_twins
from gpt_core.cli import Parser
from gpt_core.config import presets
from gpt_core.files import checked_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; 0 if no check found a difference, else 1. The last line of stdout is one JSON object."""
    args = parser().parse_args(arguments)
    begin = time.monotonic()
    out = checked_folder(args.out, "--out")
    runs = compare_runs(read_runs(args.runs)) if args.runs else None
    twins = load_twins(args.device)
    out.mkdir(exist_ok=True)
    setup = make_setup(args.preset, find_data(args.data, out))
    found = proof.prove(setup, twins, runs, args.broken)
    outcome = report.Outcome(args.preset, setup, found, runs, machine.facts(twins), time.monotonic() - begin)
    line = report.write(outcome, out)
    print(report.tables(outcome))
    print(f"report: {out / report.HTML}")
    print(line)
    return 0 if found.passed else 1


def parser() -> Parser:
    """The flags of python -m compare."""
    made = Parser(
        prog="python -m compare",
        description="Shows that the MLX and the PyTorch twin are the same model: same gradients, same curves, same text. "
        "Exit code 1 if a check finds a difference.",
    )
    made.add_argument("--preset", choices=sorted(presets()), default="tiny", help="the model and its batches")
    made.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="dataset folder; if not given data/darija, and where that is missing the embedded sample corpus",
    )
    made.add_argument("--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="folder of the report")
    made.add_argument(
        "--break",
        dest="broken",
        choices=CONTROLS,
        metavar="NAME",
        help="make a mistake in the MLX twin on purpose, to see which check finds it: " + ", ".join(CONTROLS),
    )
    made.add_argument(
        "--runs",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="finished run folders: their curves are laid over one another, their newest checkpoints put through both twins",
    )
    made.add_argument(
        "--device", choices=("cpu", "auto"), default="cpu", help="cpu, where the limits were measured, or each twin's best"
    )
    return made
