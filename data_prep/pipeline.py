"""The whole preparation: source -> clean rows -> splits -> tokenizer -> shards -> manifest, complete or absent."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from tokenizers import Tokenizer

from data_prep.clean import cleaner
from data_prep.encode import Encoded, encode_rows, shard_counts, write_shards, write_test
from data_prep.options import REPORT, Options
from data_prep.selection import Selection, select_rows
from data_prep.sources import Source
from data_prep.spool import Spool, refuse_empty, spool_rows
from data_prep.statistics import FERTILITY_EDGES, LENGTH_EDGES, Watch, WordCounter, histogram
from data_prep.train_tokenizer import train_tokenizer
from gpt_core.dataset import FORMAT_VERSION, MANIFEST, SPLITS, TOKENIZER, open_dataset, open_test
from gpt_core.files import checksum, naming, new_folder, sha256, write_text
from gpt_core.progress import bar
from gpt_core.tokens import load_tokenizer

MAX_RUNS = 100_000
"""Runs of rows of one source that the manifest lists; a source with more has its parts mixed row by row."""
T = TypeVar("T")


def prepare(source: Source, out: Path, options: Options, tokenizer: Path | None = None) -> dict[str, Any]:
    """Makes the dataset folder `out`, replacing one that is there, and returns its manifest. Raises InputError.

    A given `tokenizer` file is used and kept byte for byte; without one it is trained on the training rows.
    """
    with new_folder(out) as folder:
        with TemporaryDirectory(dir=folder, prefix="spool-") as spooled:
            manifest = _build(source, options, tokenizer, folder, Path(spooled))
        manifest["checksum"] = checksum(manifest)
        write_text(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
        dataset = open_dataset(folder)
        if options.test_fraction:
            open_test(dataset)
    return manifest


def _build(source: Source, options: Options, given: Path | None, folder: Path, spooled: Path) -> dict[str, Any]:
    description, watch = source.describe(), Watch()
    print("1/4 cleaning rows", flush=True)
    spool = spool_rows(_bar(source.rows(), None, "cleaning"), cleaner(options.cleaning()), spooled, watch)
    refuse_empty(spool)

    print(f"2/4 looking for duplicates among {spool.rows:,} rows", flush=True)
    chosen = select_rows(spool, options)

    words = WordCounter()
    if given is None:
        print(f"3/4 training the tokenizer on {chosen.count('train'):,} training rows", flush=True)
        tokenizer = train_tokenizer(spool.texts(chosen.of("train")), options.vocab_size, options.pre_tokenizer)
        with naming(folder / TOKENIZER):
            tokenizer.save(str(folder / TOKENIZER))
    else:
        print(f"3/4 taking the tokenizer {given}", flush=True)
        shutil.copyfile(given, folder / TOKENIZER)
        tokenizer = load_tokenizer(folder / TOKENIZER)

    splits = (*SPLITS, "test") if options.test_fraction else SPLITS
    print(f"4/4 encoding {sum(map(chosen.count, splits)):,} rows into {options.shards} shards", flush=True)
    encoded = {split: _encode(tokenizer, spool, chosen, split, words) for split in splits}
    shards: list[dict[str, Any]] = []
    for split in SPLITS:
        shards += write_shards(encoded[split], split, shard_counts(options.shards, options.val_fraction)[split], folder)
    sources = {split: runs_of(spool.source_of(), chosen.of(split)) for split in splits} if spool.sources else {}
    listed = sources and sum(map(len, sources.values())) <= MAX_RUNS
    report = {
        "samples": {
            "kept": chosen.samples.pop("kept"),
            "dropped": watch.dropped_samples() | chosen.samples,
            "changed": watch.changed_samples(),
            "near": chosen.near_samples,
        },
        "near_duplicates": chosen.pairs,
        "splits": {split: _shape(spool, chosen, encoded[split], split) for split in splits},
        "length_edges": LENGTH_EDGES,
        "fertility_edges": FERTILITY_EDGES,
        "top_words": words.top(),
    }
    write_text(folder / REPORT, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    return {
        "format_version": FORMAT_VERSION,
        "source": description,
        "options": asdict(options),
        "splits": {split: asdict(encoded[split].counts) for split in splits},
        "rows_read": spool.rows_read,
        "dropped": spool.dropped | chosen.dropped,
        "changed": spool.changed,
        "languages": watch.languages(),
        "tokenizer": {
            "file": TOKENIZER,
            "sha256": sha256(folder / TOKENIZER),
            "vocab_size": tokenizer.get_vocab_size(),
        },
        "shards": shards,
        "report": {"file": REPORT, "sha256": sha256(folder / REPORT)},
        **({"test": write_test(encoded["test"], folder)} if options.test_fraction else {}),
        **({"sources": {s: [[spool.sources[i], n] for i, n in runs] for s, runs in sources.items()}} if listed else {}),
    }


def runs_of(source_of: np.ndarray, wanted: np.ndarray) -> list[tuple[int, int]]:
    """(source, rows) of the wanted rows in their order, neighbours of one source together."""
    found = np.asarray(source_of)[wanted]
    starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]])) if len(found) else np.empty(0, dtype=int)
    return list(zip(found[starts].tolist(), np.diff([*starts, len(found)]).tolist(), strict=True))


def _encode(tokenizer: Tokenizer, spool: Spool, chosen: Selection, split: str, words: WordCounter) -> Encoded:
    rows = _bar(spool.texts(chosen.of(split)), chosen.count(split), f"encoding {split}")
    if split == "train":
        rows = words.through(rows)
    return encode_rows(tokenizer, rows, spool.folder / f"{split}.tokens", spool.folder / f"{split}.ends")


def _shape(spool: Spool, chosen: Selection, encoded: Encoded, split: str) -> dict[str, list[int]]:
    words = spool.words()[chosen.of(split)]
    tokens = np.diff(np.fromfile(encoded.row_ends, dtype=np.int64), prepend=0) - 1
    return {"lengths": histogram(words, LENGTH_EDGES), "fertility": histogram(tokens / words, FERTILITY_EDGES)}


def _bar(rows: Iterable[T], total: int | None, desc: str) -> Iterator[T]:
    with bar(rows, total=total, desc=desc, unit="row") as progress:
        yield from progress
