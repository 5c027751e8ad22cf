"""102,010 public Algerian comments to test on, which are no part of the project: tests of them are skipped without them."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from data_prep.command import main as prepare

REAL_ROWS = Path(os.environ.get("DARIJA_ROWS", Path(__file__).parents[2] / "shared" / "data" / "darija-rows.parquet"))
needs_real_rows = pytest.mark.skipif(
    not REAL_ROWS.is_file(), reason=f"no {REAL_ROWS.name}: set DARIJA_ROWS to a parquet file with a column Text"
)


@dataclass(frozen=True)
class Prepared:
    """What `python -m data_prep` made of the real rows by default, and what it printed."""

    folder: Path
    printed: Path


def prepared_once(factory: pytest.TempPathFactory) -> Prepared:
    """The real rows as a dataset folder, not to be changed: a minute's work, done by the pytest process that asks first."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # of this run alone, in either case
    prepared = Prepared(shared / "real-rows", shared / "real-rows.txt")
    with FileLock(shared / "real-rows.lock"):
        if not prepared.folder.exists():
            with prepared.printed.open("w", encoding="utf-8") as printed, contextlib.redirect_stdout(printed):
                prepare(["--source", str(REAL_ROWS), "--out", str(prepared.folder)])
    return prepared
