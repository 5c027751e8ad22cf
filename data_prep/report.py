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
from gpt_core.dataset import REMEDY, read_manifest
from gpt_core.errors import InputError
from gpt_core.files import make_parents, sha256, write_text

TEMPLATES = Path(__file__).parent / "templates"
HTML = "report.html"
SHOWN_WORDS = 40
SHOWN_SOURCES = 30
SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page and says where it is."""
    args = parser().parse_args(arguments)
    manifest = read_manifest(args.folder)
    details = read_details(args.folder, manifest)
    out = args.out or args.folder / HTML
    if out.is_dir():
        raise InputError(f"--out {out} is a folder: give the name of an HTML file")
    make_parents(out, "--out")
    write_text(out, render(manifest, details))
    print(out)


def parser() -> Parser:
    """The flags of python -m data_prep.report."""
    made = Parser(prog="python -m data_prep.report", description="One HTML page about a dataset folder.")
    made.add_argument("folder", type=Path, metavar="DIR", help="dataset folder made by python -m data_prep")
    made.add_argument("--out", type=Path, metavar="FILE", help="HTML file to write (None: report.html in DIR)")
    return made


def read_details(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What data_prep wrote for this page beside the manifest, verified. Raises InputError."""
    path = folder / REPORT
    if not path.is_file() or "report" not in manifest:
        raise InputError(f"{path} is missing: it is written by python -m data_prep; prepare the data again")
    if sha256(path) != manifest["report"]["sha256"]:
        raise InputError(f"{path} does not have the SHA-256 of the manifest: {REMEDY}")
    details: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
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
