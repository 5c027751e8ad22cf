"""The options of a preparation, and the name of the file for its report."""

from dataclasses import dataclass
from typing import Literal

from data_prep.clean import Cleaning, Diacritics
from data_prep.latin import Latin
from data_prep.train_tokenizer import Words

REPORT = "report.json"
"""Beside the manifest: what python -m data_prep.report shows. It holds samples of the rows; nothing else reads it."""
SplitBy = Literal["blocks", "rows"]


@dataclass(frozen=True)
class Options:
    """What decides the output together with the source; written into the manifest as it stands. The defaults are the command's.

    `pre_tokenizer` is that of a tokenizer which is trained, not of one that is given.
    `split_by` rows is what data_prep.leakage compares blocks with; no flag of data_prep sets it.
    """

    latin: Latin = "drop-words"
    diacritics: Diacritics = "keep"
    skip_rules: tuple[str, ...] = ()
    pre_tokenizer: Words = "gpt2"
    vocab_size: int = 10_000
    shards: int = 20
    val_fraction: float = 0.1
    test_fraction: float = 0.05
    seed: int = 1337
    split_by: SplitBy = "blocks"

    def cleaning(self) -> Cleaning:
        """The part that concerns rows."""
        return Cleaning(self.latin, self.diacritics, frozenset(self.skip_rules))
