"""102,010 public Algerian comments to test on, which are no part of the project: tests of them are skipped without them."""

import os
from pathlib import Path

import pytest

REAL_ROWS = Path(os.environ.get("DARIJA_ROWS", Path(__file__).parents[2] / "shared" / "data" / "darija-rows.parquet"))
needs_real_rows = pytest.mark.skipif(
    not REAL_ROWS.is_file(), reason=f"no {REAL_ROWS.name}: set DARIJA_ROWS to a parquet file with a column Text"
)
