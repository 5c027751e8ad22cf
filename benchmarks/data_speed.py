"""Speed of data_prep by stage, on the embedded sample repeated to a measurable size."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row
from benchmarks.timing import Clock, seconds, spread
from data_prep.clean import Cleaning, cleaner
from data_prep.dedup import first_occurrences
from data_prep.encode import encode_rows, write_shards
from data_prep.sources import open_source
from data_prep.spool import spool_rows
from data_prep.train_tokenizer import train_tokenizer
from gpt_core.errors import InputError

COPIES = 3
VOCAB_SIZE = 4000
SHARDS = 20


def measure(trials: int, clock: Clock, copies: int = COPIES) -> list[Row]:
    """A row a stage and unit. Repeated rows are all cleaned; of each, one is kept, and repeated again to be encoded."""
    source = open_source(["sample"])
    raw = list(source.rows()) * copies
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clean = cleaner(Cleaning())
        spool = spool_rows(raw, clean, folder)
        rows = list(spool.texts(first_occurrences(spool.hashes))) * copies
        tokenizer = train_tokenizer(rows, VOCAB_SIZE)
        encoded = encode_rows(tokenizer, rows, folder / "tokens", folder / "ends")
        if encoded.counts.tokens < SHARDS:
            raise InputError("the embedded sample is empty: restore data_prep/sample")
        stages: dict[str, tuple[int, Callable[[], object]]] = {
            "reading": (len(raw) // copies, lambda: list(source.rows())),
            "cleaning": (len(raw), lambda: spool_rows(raw, clean, folder)),
            "tokenizer": (len(rows), lambda: train_tokenizer(rows, VOCAB_SIZE)),
            "encoding": (len(rows), lambda: encode_rows(tokenizer, rows, folder / "tokens", folder / "ends")),
            "shards": (len(rows), lambda: write_shards(encoded, "train", SHARDS, folder)),
        }
        taken: dict[str, list[float]] = {name: [] for name in stages}
        for _ in range(trials):
            for name, (_count, stage) in stages.items():
                taken[name].append(seconds(stage, clock))
    tokens_per_row = encoded.counts.tokens / len(rows)
    made = []
    for name, (count, _stage) in stages.items():
        time = spread(taken[name])
        made.append(Row("data", name, "rows/s", time.rate(count), {"rows": count}))
        if name in ("encoding", "shards"):
            made.append(Row("data", name, "tok/s", time.rate(count * tokens_per_row), {"tokens": encoded.counts.tokens}))
    return made
