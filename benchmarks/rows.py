"""One measured rate: what tables, charts, files and comparisons are made of."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.timing import Spread


@dataclass(frozen=True)
class Row:
    """`rate` in `unit`, over the trials; `details` as benchmarks/README.md lists them for each part."""

    part: str
    """train, prefill, decode or data."""
    name: str
    unit: str
    rate: Spread
    details: dict[str, Any] = field(default_factory=dict)
