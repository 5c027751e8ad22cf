"""python -m data_prep.report DIR: a dataset folder as one HTML page, with what was kept, changed and dropped."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_prep.options import REPORT
from data_prep.summary import WHAT, WHY
from gpt_core import page
from gpt_core.cli import Parser, run
from gpt_core.dataset import FORMAT_VERSION, MANIFEST, REMEDY, read_manifest
from gpt_core.errors import InputError
from gpt_core.files import make_parents, write_text

TEMPLATES = Path(__file__).parent / "templates"
HTML = "report.html"
SHOWN_WORDS = 40
SHOWN_SOURCES = 30
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page and says where it is."""
    args = parser().parse_args(arguments)
    manifest, details = read_manifest(args.folder), read_details(args.folder)
    out = args.out or args.folder / HTML
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: give the name of an HTML file")
    make_parents(out, "--out")
    try:
        text = render(manifest, details)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{args.folder}: {MANIFEST} or {REPORT} lacks what this page shows ({error!r}): {REMEDY}") from error
    write_text(out, text)
    print(out)


def parser() -> Parser:
    """The flags of python -m data_prep.report."""
    made = Parser(prog="python -m data_prep.report", description="One HTML page about a dataset folder.")
    made.add_argument("folder", type=Path, metavar="DIR", help="dataset folder made by python -m data_prep")
    made.add_argument("--out", type=Path, metavar="FILE", help="HTML file to write (None: report.html in DIR)")
    return made


def read_details(folder: Path) -> dict[str, Any]:
    """What data_prep wrote for this page beside the manifest. Raises InputError."""
    path = folder / REPORT
    if not path.is_file():
        raise InputError(f"{path} is missing: it is written by python -m data_prep; prepare the data again")
    try:
        details = json.loads(path.read_text(encoding="utf-8"))
        if details["format_version"] != FORMAT_VERSION:
            raise InputError(f"{path} has format version {details['format_version']}, expected {FORMAT_VERSION}: {REMEDY}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a file of data_prep ({type(error).__name__}): {REMEDY}") from error
    return details


def render(manifest: dict[str, Any], details: dict[str, Any]) -> str:
    """The page."""
    splits = manifest["splits"]
    kept = sum(split["rows"] for split in splits.values())
    return (
        page.environment(TEMPLATES)
        .get_template(f"{HTML}.j2")
        .render(
            m=manifest,
            d=details,
            kept=kept,
            rows=[("kept", "in a split", kept)] + [(reason, WHY[reason], n) for reason, n in manifest["dropped"].items()],
            changed=[(rule, WHAT[rule], n) for rule, n in manifest["changed"].items() if n],
            why=WHY,
            what=WHAT,
            titles=SPLIT_TITLES,
            lengths=histogram(details, "lengths", _ranges(details["length_edges"])),
            fertility=histogram(details, "fertility", [f"{edge:g}" for edge in details["fertility_edges"]]),
            words=details["top_words"][:SHOWN_WORDS],
            sources=by_source(manifest),
        )
    )


def histogram(details: dict[str, Any], name: str, labels: list[str]) -> dict[str, Any]:
    """Bins of all splits as shares of their rows: {"labels", "splits": {split: [share of the highest bin, share]}}."""
    shares = {}
    for split, shape in details["splits"].items():
        total = max(sum(shape[name]), 1)
        shares[split] = [count / total for count in shape[name]]
    highest = max((share for bins in shares.values() for share in bins), default=0) or 1
    return {"labels": labels, "splits": {split: [(s / highest, s) for s in bins] for split, bins in shares.items()}}


def by_source(manifest: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """Rows of each source in each split, the largest first; none where the manifest lists no sources."""
    counts: dict[str, dict[str, int]] = {}
    for split, runs in manifest.get("sources", {}).items():
        for name, rows in runs:
            row = counts.setdefault(name, dict.fromkeys(manifest["sources"], 0))
            row[split] += rows
    return sorted(counts.items(), key=lambda item: -sum(item[1].values()))[:SHOWN_SOURCES]


def _ranges(edges: list[int]) -> list[str]:
    inner = [f"{low}" if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(edges)]
    return [*inner, f"{edges[-1]}+"]


if __name__ == "__main__":
    run(main)
