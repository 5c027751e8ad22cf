"""The dataset folder: manifest.json, tokenizer.json and the shards, verified before anything is trained on them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gpt_core.errors import InputError
from gpt_core.files import checksum, sha256
from gpt_core.shards import TokenStream, read_shard
from gpt_core.tokens import END_OF_TEXT, END_OF_TEXT_ID, load_tokenizer

FORMAT_VERSION = 2
"""Version 1 had no checksum of the manifest itself, and is still read."""
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SPLITS = ("train", "val")
TEST_FILE = "test/darija_test_000.bin"
"""The third split: in a folder of its own, where no loader and no pattern of file names meets it by accident."""
REMEDY = "make the data with python -m data_prep --out DIR (or --source sample for the embedded corpus)"


@dataclass(frozen=True)
class Dataset:
    """A verified dataset folder."""

    folder: Path
    manifest: dict[str, Any]
    manifest_sha256: str
    tokenizer_sha256: str
    tokenizer: Tokenizer
    train: TokenStream
    val: TokenStream

    @property
    def vocab_size(self) -> int:
        """Tokens in use; a model may have more rows than that, as padding."""
        return int(self.tokenizer.get_vocab_size())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest as a dictionary with the keys that training needs; InputError names what is wrong."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"--data {folder} does not exist: {REMEDY}")
    if not path.is_file():
        raise InputError(f"--data {folder} holds no {MANIFEST}: {REMEDY}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format_version"]
        if version not in (1, FORMAT_VERSION):
            raise InputError(f"{path} has format version {version!r:.20}, expected {FORMAT_VERSION}: {REMEDY}")
        if version == FORMAT_VERSION and manifest["checksum"] != checksum(manifest):
            raise InputError(f"{path} does not have its own checksum: it is corrupt; {REMEDY}")
        whole = isinstance(manifest["tokenizer"]["sha256"], str)
        for shard in manifest["shards"]:
            whole = whole and shard["split"] in SPLITS and Path(shard["file"]).name == shard["file"]
            whole = whole and isinstance(shard["tokens"], int) and isinstance(shard["sha256"], str)
        if not whole or len({shard["file"] for shard in manifest["shards"]}) != len(manifest["shards"]):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a manifest written by data_prep ({type(error).__name__}): {REMEDY}") from error
    return manifest


def verified_shard(folder: Path, entry: dict[str, Any], vocab_size: int) -> Any:
    """One shard of the manifest, (n,) uint16, after its length, hash and token range were checked."""
    path = folder / entry["file"]
    tokens = read_shard(path)
    if len(tokens) != entry["tokens"]:
        raise InputError(f"{path} holds {len(tokens)} tokens, the manifest says {entry['tokens']}: {REMEDY}")
    found = sha256(path)
    if found != entry["sha256"]:
        raise InputError(f"{path} has SHA-256 {found[:12]}..., the manifest says {entry['sha256'][:12]}...: {REMEDY}")
    if len(tokens) and int(tokens.max()) >= vocab_size:
        raise InputError(f"{path} holds token {int(tokens.max())}, outside the vocabulary of {vocab_size}: {REMEDY}")
    return tokens


def open_dataset(folder: Path) -> Dataset:
    """Opens and verifies a dataset folder: every hash, every length, every token id. Raises InputError."""
    manifest = read_manifest(folder)
    path, expected = folder / TOKENIZER, manifest["tokenizer"]["sha256"]
    found = sha256(path) if path.is_file() else expected
    if found != expected:
        raise InputError(f"{path} has SHA-256 {found[:12]}..., the manifest says {expected[:12]}...: {REMEDY}")
    tokenizer = load_tokenizer(path)
    vocab_size = int(tokenizer.get_vocab_size())
    streams = {
        split: TokenStream([verified_shard(folder, s, vocab_size) for s in manifest["shards"] if s["split"] == split])
        for split in SPLITS
    }
    for split, stream in streams.items():
        _check_beginning(folder, split, stream)
    return Dataset(folder, manifest, sha256(folder / MANIFEST), found, tokenizer, streams["train"], streams["val"])


def open_test(dataset: Dataset) -> TokenStream:
    """The test split, verified like the others; nothing opens it but `held_out`. Raises InputError."""
    entry = dataset.manifest.get("test")
    if entry is None:
        raise InputError(
            f"--split test: --data {dataset.folder} has none; make it with python -m data_prep --test-fraction 0.05"
        )
    try:
        whole = entry["file"] == TEST_FILE and isinstance(entry["tokens"], int) and isinstance(entry["sha256"], str)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"{dataset.folder / MANIFEST} has a test entry that data_prep did not write: {REMEDY}")
    stream = TokenStream([verified_shard(dataset.folder, entry, dataset.vocab_size)])
    _check_beginning(dataset.folder, "test", stream)
    return stream


def held_out(dataset: Dataset, split: str) -> TokenStream:
    """The tokens of --split "val" or "test". Raises InputError."""
    return dataset.val if split == "val" else open_test(dataset)


def _check_beginning(folder: Path, split: str, stream: TokenStream) -> None:
    if len(stream) == 0:
        raise InputError(f"--data {folder} has no tokens in its {split} split: {REMEDY}")
    if int(stream.read(0, 1)[0]) != END_OF_TEXT_ID:
        raise InputError(f"--data {folder} has a {split} split that does not begin with a row's {END_OF_TEXT}: {REMEDY}")
