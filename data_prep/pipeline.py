"""The whole preparation: source -> clean rows -> split -> tokenizer -> shards -> manifest, complete or absent."""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data_prep.clean import Latin
from data_prep.encode import Counts, encode_rows, shard_counts, write_shards
from data_prep.sources import Source
from data_prep.split import validation_mask
from data_prep.spool import Spool, split_rows, spool_rows
from data_prep.train_tokenizer import train_tokenizer
from gpt_core.dataset import FORMAT_VERSION, MANIFEST, SPLITS, TOKENIZER, open_dataset
from gpt_core.errors import InputError
from gpt_core.files import checksum, naming, new_folder, sha256, write_text
from gpt_core.progress import bar
from gpt_core.tokens import load_tokenizer


@dataclass(frozen=True)
class Options:
    """What decides the output together with the source; written into the manifest as it stands."""

    latin: Latin
    vocab_size: int
    shards: int
    val_fraction: float
    seed: int


def prepare(source: Source, out: Path, options: Options, tokenizer: Path | None = None) -> dict[str, Any]:
    """Makes the dataset folder `out`, replacing one that is there, and returns its manifest. Raises InputError.

    A given `tokenizer` file is used and kept byte for byte; without one it is trained on the training rows.
    """
    with new_folder(out) as folder:
        with TemporaryDirectory(dir=folder, prefix="spool-") as spooled:
            manifest = _build(source, options, tokenizer, folder, Path(spooled))
        manifest["checksum"] = checksum(manifest)
        write_text(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
        open_dataset(folder)
    return manifest


def _build(source: Source, options: Options, given: Path | None, folder: Path, spooled: Path) -> dict[str, Any]:
    description = source.describe()
    print("1/3 cleaning rows", flush=True)
    spool = spool_rows(_bar(source.rows(), None, "cleaning"), options.latin, spooled)
    if spool.rows == 0:
        raise InputError(f"--source: no row is left of {spool.rows_read} after cleaning ({_reasons(spool)}); {_remedy(spool)}")
    validation = validation_mask(spool.rows, options.val_fraction, options.seed)
    sizes = {"train": int((~validation).sum()), "val": int(validation.sum())}

    if given is None:
        print(f"2/3 training the tokenizer on {sizes['train']:,} training rows", flush=True)
        tokenizer = train_tokenizer(split_rows(spool, validation, wanted=False), options.vocab_size)
        with naming(folder / TOKENIZER):
            tokenizer.save(str(folder / TOKENIZER))
    else:
        print(f"2/3 taking the tokenizer {given}", flush=True)
        shutil.copyfile(given, folder / TOKENIZER)
        tokenizer = load_tokenizer(folder / TOKENIZER)

    print(f"3/3 encoding {spool.rows:,} rows into {options.shards} shards", flush=True)
    counts: dict[str, Counts] = {}
    shards: list[dict[str, Any]] = []
    for split in SPLITS:
        rows = _bar(split_rows(spool, validation, wanted=split == "val"), sizes[split], f"encoding {split}")
        encoded = encode_rows(tokenizer, rows, spooled / f"{split}.tokens", spooled / f"{split}.ends")
        counts[split] = encoded.counts
        shards += write_shards(encoded, split, shard_counts(options.shards, options.val_fraction)[split], folder)
    return {
        "format_version": FORMAT_VERSION,
        "source": description,
        "options": asdict(options),
        "splits": {split: asdict(counts[split]) for split in SPLITS},
        "rows_read": spool.rows_read,
        "dropped": spool.dropped,
        "changed": spool.changed,
        "tokenizer": {
            "file": TOKENIZER,
            "sha256": sha256(folder / TOKENIZER),
            "vocab_size": tokenizer.get_vocab_size(),
        },
        "shards": shards,
    }


def _bar(rows: Iterable[str], total: int | None, desc: str) -> Iterator[str]:
    with bar(rows, total=total, desc=desc, unit="row") as progress:
        yield from progress


def _reasons(spool: Spool) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in spool.dropped.items() if count)


def _remedy(spool: Spool) -> str:
    return "pass --latin keep to keep words in Latin script" if spool.dropped["latin"] else "give a file with text in it"
