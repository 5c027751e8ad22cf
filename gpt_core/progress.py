"""A progress bar on a terminal, nothing elsewhere: long work then prints plain lines of its own."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def bar(items: Iterable | None = None, *, total: int | None = None, desc: str, unit: str, initial: int = 0) -> tqdm:
    """A tqdm bar on stderr that hides itself where stderr is no terminal."""
    return tqdm(items, total=total, desc=desc, unit=unit, initial=initial, file=sys.stderr, disable=None, dynamic_ncols=True)
