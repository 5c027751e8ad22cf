"""The dataset folder: whatever is wrong with it is named before anything is trained on it."""

import json
import shutil

import numpy as np
import pytest
from helpers import TRAIN_ROWS, VAL_ROWS, edit_json, encode, flip, make_tokenizer, sha256_hex, sign

from gpt_core.dataset import open_dataset
from gpt_core.errors import InputError
from gpt_core.shards import write_shard

TRAIN, VAL = "darija_train_001.bin", "darija_val_000.bin"


@pytest.fixture
def folder(small_dataset, tmp_path):
    """A copy to break."""
    return shutil.copytree(small_dataset, tmp_path / "data")


def refuses(folder, *parts):
    with pytest.raises(InputError) as error:
        open_dataset(folder)
    assert all(part in str(error.value) for part in (*parts, "data_prep")), str(error.value)


def test_a_whole_folder_opens(folder):
    dataset = open_dataset(folder)
    tokenizer = make_tokenizer(TRAIN_ROWS)
    assert dataset.train.read(0, len(dataset.train)).tolist() == encode(tokenizer, TRAIN_ROWS).tolist()
    assert dataset.val.read(0, len(dataset.val)).tolist() == encode(tokenizer, VAL_ROWS).tolist()
    assert dataset.vocab_size == 400
    assert dataset.manifest_sha256 == sha256_hex(folder / "manifest.json")
    assert dataset.tokenizer_sha256 == sha256_hex(folder / "tokenizer.json")


def test_shards_join_in_the_order_of_the_manifest(folder):
    before = open_dataset(folder).train
    whole = before.read(0, len(before)).tolist()
    edit_json(folder / "manifest.json", lambda manifest: manifest["shards"].reverse())
    after = open_dataset(folder).train
    assert sorted(after.read(0, len(after)).tolist()) == sorted(whole) != whole
    assert after.read(0, len(after)).tolist() != whole


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_flipped_bit_in_a_shard(folder, split, where):
    """Tokens stay inside the vocabulary: only the hash can tell."""
    path = folder / f"darija_{split}_001.bin"
    tokens = (path.stat().st_size - 1024) // 2
    flip(path, 1024 + 2 * {"first": 0, "middle": tokens // 2, "last": tokens - 1}[where])
    refuses(folder, path.name, "SHA-256")


def test_a_flipped_byte_in_the_unused_header(folder):
    flip(folder / VAL, 1000)
    refuses(folder, VAL, "SHA-256")


def test_a_shard_cut_short(folder):
    path = folder / TRAIN
    path.write_bytes(path.read_bytes()[:-2])
    refuses(folder, TRAIN, "announces 241 tokens but holds 240")


def test_a_whole_shard_of_another_length(folder):
    write_shard(folder / TRAIN, np.zeros(240, dtype=np.uint16))
    refuses(folder, TRAIN, "240 tokens", "241")


@pytest.mark.parametrize("name", [TRAIN, VAL, "tokenizer.json", "manifest.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    refuses(folder, name)


def test_a_missing_folder(tmp_path):
    refuses(tmp_path / "nowhere", "--data", "nowhere")


def test_another_tokenizer(folder):
    make_tokenizer(VAL_ROWS).save(str(folder / "tokenizer.json"))
    refuses(folder, "tokenizer.json", "SHA-256")


def test_a_token_outside_the_vocabulary_that_the_manifest_agrees_with(folder):
    """399 is the last token: it passes, 400 does not."""
    for token in (399, 400):
        write_shard(folder / VAL, np.array([0, 5, token, 7], dtype=np.uint16))
        sign(folder)
        if token == 399:
            assert open_dataset(folder).val.read(2, 1).tolist() == [399]
    refuses(folder, VAL, "token 400", "vocabulary of 400")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_tokens(folder, split):
    def drop(manifest):
        manifest["shards"] = [shard for shard in manifest["shards"] if shard["split"] != split]

    edit_json(folder / "manifest.json", drop)
    refuses(folder, "--data", f"its {split} split")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("format_version"),
        lambda m: m.update(format_version=2),
        lambda m: m.pop("tokenizer"),
        lambda m: m.update(tokenizer="x"),
        lambda m: m["tokenizer"].update(sha256=5),
        lambda m: m.pop("shards"),
        lambda m: m.update(shards=7),
        lambda m: m.update(shards=[3]),
        lambda m: m["shards"][0].pop("file"),
        lambda m: m["shards"][0].update(file="../darija_train_000.bin"),
        lambda m: m["shards"][0].update(file=None),
        lambda m: m["shards"][0].update(split="test"),
        lambda m: m["shards"][0].update(tokens="99"),
        lambda m: m["shards"][0].update(sha256=None),
    ],
)
def test_a_manifest_with_a_wrong_field(folder, change):
    edit_json(folder / "manifest.json", change)
    refuses(folder, "manifest.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'"text"', b"[" * 100_000])
def test_a_manifest_that_is_none(folder, content):
    (folder / "manifest.json").write_bytes(content)
    refuses(folder, "manifest.json")


def broken_tokenizer(text: str) -> str:
    """A tokenizer whose id 0 is another token."""
    value = json.loads(text)
    vocab = value["model"]["vocab"]
    vocab["<|endoftext|>"], vocab["!"] = vocab["!"], 0
    value["added_tokens"][0]["id"] = vocab["<|endoftext|>"]
    return json.dumps(value)


@pytest.mark.parametrize("change", [lambda text: "{}", lambda text: "", lambda text: text[:900], broken_tokenizer])
def test_a_tokenizer_that_the_manifest_agrees_with_but_is_none(folder, change):
    path = folder / "tokenizer.json"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    sign(folder)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        open_dataset(folder)


def test_a_shard_in_both_splits(folder):
    edit_json(folder / "manifest.json", lambda m: m["shards"].append(m["shards"][0] | {"split": "val"}))
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_dataset(folder)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_that_does_not_begin_with_a_row(folder, split):
    """<|endoftext|> further on does not help; nor may the other split's shards be blamed."""
    for tokens in ([0, 5, 6, 0, 7], [5, 6, 0, 7], [5, 6, 7]):
        write_shard(folder / f"darija_{split}_000.bin", np.array(tokens, dtype=np.uint16))
        sign(folder)
        if tokens[0] == 0:
            open_dataset(folder)  # negative control
    refuses(folder, f"--data {folder} ", f"a {split} split that does not begin with", "<|endoftext|>")
