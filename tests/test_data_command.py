"""python -m data_prep from end to end: the folder it makes, and that it makes it twice."""

import json
import os
import shutil
import subprocess
import sys
from itertools import groupby, pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_samples import ROOT, SMALL, corpus, refused, write
from shard_reader import read_llm_c, rows_of

from data_prep.command import main
from data_prep.split import block_rows, blocks_for_test, validation_blocks
from gpt_core.dataset import open_dataset, open_test
from gpt_core.errors import InputError
from gpt_core.files import checksum, sha256


def read_shards(folder, split):
    """The split's rows as lists of token ids; each shard starts with a row."""
    paths = sorted((folder / "test" if split == "test" else folder).glob(f"darija_{split}_*.bin"))
    return [row for path in paths for row in rows_of(read_llm_c(path))]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(rows written, output folder, manifest) of one run over a corpus with something to drop for every reason."""
    folder = tmp_path_factory.mktemp("made")
    kept = corpus(600)
    rows = [*kept[:300], "", "👍 !", "cava bien", kept[7], *kept[300:], f"{kept[5]} bien", "صحاااا @sara", "صحا!"]
    main(["--source", str(write(folder / "rows.txt", rows)), "--out", str(folder / "out"), *SMALL])
    return [*kept, "صحاا"], folder / "out", json.loads((folder / "out" / "manifest.json").read_text("utf-8"))


def test_folder_holds_the_contract_and_nothing_else(made):
    _, out, manifest = made
    shards = [f"darija_train_{i:03d}.bin" for i in range(4)] + ["darija_val_000.bin"]
    files = [*shards, "manifest.json", "report.json", "test/darija_test_000.bin", "tokenizer.json"]
    assert sorted(contents(out)) == sorted(files)
    assert [shard["file"] for shard in manifest["shards"]] == shards
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_manifest(made):
    rows, out, manifest = made
    assert manifest["format_version"] == 2
    assert manifest["options"] == {
        "latin": "drop-words",
        "diacritics": "keep",
        "skip_rules": [],
        "pre_tokenizer": "gpt2",
        "vocab_size": 400,
        "shards": 5,
        "val_fraction": 0.1,
        "test_fraction": 0.05,
        "seed": 1337,
        "split_by": "blocks",
    }
    source = out.parent / "rows.txt"
    assert manifest["source"] == {
        "name": "files",
        "files": [{"file": "rows.txt", "sha256": sha256(source), "bytes": source.stat().st_size}],
    }
    dropped = {reason: count for reason, count in manifest["dropped"].items() if count}
    assert dropped == {"empty": 1, "no_letters": 1, "latin": 1, "duplicate": 3}
    later = ["duplicate", "spam", "near_duplicate", "leak"]
    assert list(manifest["dropped"]) == ["empty", "too_long", "restless", "no_letters", "latin", "few_letters", *later]
    assert manifest["changed"]["handles"] == 1 and manifest["changed"]["latin_words"] == 2
    assert manifest["rows_read"] == 607
    splits = manifest["splits"].values()
    assert manifest["rows_read"] == sum(s["rows"] for s in splits) + sum(manifest["dropped"].values())
    assert sum(s["words"] for s in splits) == sum(len(row.split()) for row in rows)
    assert sum(s["bytes"] for s in splits) == len("".join(rows).encode())
    assert sum(s["characters"] for s in splits) == len("".join(rows))
    assert list(manifest["splits"]) == ["train", "val", "test"]
    entries = [*manifest["shards"], manifest["test"] | {"split": "test"}]
    for name, split in manifest["splits"].items():
        assert split["tokens"] == sum(s["tokens"] for s in entries if s["split"] == name)
        assert split["tokens"] == sum(1 + len(row) for row in read_shards(out, name))
    assert all(shard["sha256"] == sha256(out / shard["file"]) for shard in entries)
    arabic = [len(row.split()) - row[-1].isdigit() for row in rows]  # of the rows kept, and of three duplicates
    assert manifest["languages"] == {
        "words": {"arabic": sum(arabic) + arabic[7] + arabic[5] + 1, "french": 2, "arabizi": 1, "other": 0},
        "rows": {"arabic": 604, "french": 1, "arabizi": 0, "other": 1},
    }
    assert "sources" not in manifest, "one file without a column source is one source"
    assert manifest["tokenizer"] == {
        "file": "tokenizer.json",
        "sha256": sha256(out / "tokenizer.json"),
        "vocab_size": 400,
    }


def test_shards_give_back_the_rows_in_blocks(made):
    rows, out, _ = made
    tokenizer = open_dataset(out).tokenizer
    found = {split: [tokenizer.decode(row) for row in read_shards(out, split)] for split in ("train", "val", "test")}
    assert sorted(found["train"] + found["val"] + found["test"]) == sorted(rows)
    size = block_rows(len(rows))
    blocks = {
        "val": validation_blocks(-(-len(rows) // size), 0.1, 1337),
        "test": blocks_for_test(-(-len(rows) // size), 0.1, 0.05, 1337),
    }
    for split, chosen in blocks.items():
        assert [row for i, row in enumerate(rows) if i // size in chosen] == found[split]
        runs = [len(list(run)) for held, run in groupby(row in set(found[split]) for row in rows) if held]
        assert len(rows) // size == 60 and len(runs) <= 6 and all(run % size == 0 for run in runs)
    assert [row for row in rows if row not in {*found["val"], *found["test"]}] == found["train"]


def test_the_test_split_is_opened_only_when_asked_for(made, tmp_path):
    """A broken test shard does not stop training; without one `open_test` says how to make it."""
    rows, out, _ = made
    copy = shutil.copytree(out, tmp_path / "copy")
    stream = open_test(open_dataset(copy))
    whole = stream.read(0, len(stream)).tolist()
    assert whole == [token for row in read_shards(copy, "test") for token in (0, *row)]
    path = copy / "test" / "darija_test_000.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InputError, match=r"darija_test_000\.bin has SHA-256"):
        open_test(open_dataset(copy))
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        open_test(open_dataset(copy))
    source = write(tmp_path / "rows.txt", rows)
    main(["--source", str(source), "--out", str(tmp_path / "two"), *SMALL, "--test-fraction", "0"])
    two = open_dataset(tmp_path / "two")
    assert not (tmp_path / "two" / "test").exists() and list(two.manifest["splits"]) == ["train", "val"]
    assert read_shards(tmp_path / "two", "val") != [] and "test" not in two.manifest
    with pytest.raises(InputError, match=r"--split test: .* has none.*--test-fraction"):
        open_test(two)


@pytest.mark.parametrize(
    "entry", [5, {}, {"file": "test/darija_test_000.bin"}, {"file": "../x", "tokens": 5, "sha256": "0" * 64}]
)
def test_a_test_entry_that_is_none(made, tmp_path, entry):
    _, out, manifest = made
    copy = shutil.copytree(out, tmp_path / "copy")
    changed = manifest | {"test": entry}
    (copy / "manifest.json").write_text(json.dumps(changed | {"checksum": checksum(changed)}), encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest\.json has a test entry"):
        open_test(open_dataset(copy))


def test_sources_are_listed_in_row_order(tmp_path):
    """Two files: runs add up to the rows of each split, and each row is of the source that the runs say."""
    rows = corpus(400)
    files = [str(write(tmp_path / "a.txt", rows[:250])), str(write(tmp_path / "b.txt", rows[250:]))]
    main(["--source", *files, "--out", str(tmp_path / "out"), *SMALL])
    dataset = open_dataset(tmp_path / "out")
    for split, runs in dataset.manifest["sources"].items():
        names = [name for name, count in runs for _ in range(count)]
        kept = [dataset.tokenizer.decode(row) for row in read_shards(tmp_path / "out", split)]
        assert names == ["a.txt" if rows.index(row) < 250 else "b.txt" for row in kept] and len(names) > 10
        assert all(one != other for (one, _), (other, _) in pairwise(runs))
    assert list(dataset.manifest["sources"]) == ["train", "val", "test"]
    assert [name for name, _ in dataset.manifest["sources"]["train"]] == ["a.txt", "b.txt"]


def test_a_column_source_is_listed_and_too_many_names_are_not(tmp_path):
    rows = corpus(400)
    for count, listed in ((3, True), (2000, False)):
        table = pa.table({"Text": [f"{row} ج" for row in rows * 5], "source": [f"s{i % count}" for i in range(2000)]})
        pq.write_table(table, tmp_path / "rows.parquet")
        main(["--source", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / str(count)), *SMALL])
        manifest = open_dataset(tmp_path / str(count)).manifest
        assert ("sources" in manifest) == listed
    sources = open_dataset(tmp_path / "3").manifest["sources"]
    assert {name for runs in sources.values() for name, _ in runs} == {"s0", "s1", "s2"}


def near(row, i):
    """The same row with one letter more: 5 of its 40 or more runs of five letters are new."""
    words = row.split()
    words[i % len(words)] += "ڨ"
    return " ".join(words)


def test_near_duplicates_leave_train_and_leaks_leave_train(tmp_path):
    """Rows of held-out blocks stay and their copies in train go; of two in train the first stays. Control: --skip-rules."""
    rows = [f"{row} {other}" for row, other in zip(corpus(1000), corpus(1000, seed=9), strict=True)]
    rows = [row for row in rows if len(row) > 60]
    size = block_rows(len(rows))
    held = validation_blocks(-(-len(rows) // size), 0.1, 1337) | blocks_for_test(-(-len(rows) // size), 0.1, 0.05, 1337)
    is_held = [i // size in held for i in range(len(rows))]
    train = [i for i, held_out in enumerate(is_held) if not held_out]
    copied = [i for i, held_out in enumerate(is_held) if held_out][::5]
    spots = train[10:400:7][: len(copied)]
    for i, spot in zip(copied, spots, strict=False):
        rows[spot] = near(rows[i], i)  # a copy of a held-out row
    for spot in train[410:450:2]:
        rows[spot] = near(rows[spot - 1], spot) if spot - 1 in train else rows[spot]  # one of the row before
    source = str(write(tmp_path / "rows.txt", rows))
    main(["--source", source, "--out", str(tmp_path / "clean"), *SMALL])
    main(["--source", source, "--out", str(tmp_path / "all"), *SMALL, "--skip-rules", "near_duplicate,leak"])
    dataset, control = open_dataset(tmp_path / "clean"), open_dataset(tmp_path / "all")
    kept = {
        split: {dataset.tokenizer.decode(row) for row in read_shards(tmp_path / "clean", split)}
        for split in ("train", "val", "test")
    }
    assert kept["val"] | kept["test"] == {row for row, held_out in zip(rows, is_held, strict=True) if held_out}
    pairs = list(zip(copied, spots, strict=False))
    assert not kept["train"] & {rows[spot] for _, spot in pairs}
    assert dataset.manifest["dropped"]["leak"] == len(pairs) >= 15
    assert dataset.manifest["dropped"]["near_duplicate"] >= 10
    assert control.manifest["dropped"]["leak"] == control.manifest["dropped"]["near_duplicate"] == 0
    trained = {control.tokenizer.decode(row) for row in read_shards(tmp_path / "all", "train")}
    assert {rows[spot] for _, spot in pairs} <= trained


def test_rows_that_are_all_alike_leave_no_split(tmp_path, capsys):
    rows = [f"واش راك خويا لاباس عليك رقم {i}" for i in range(300)]
    source = str(write(tmp_path / "rows.txt", rows))
    line = refused(["--source", source, "--out", str(tmp_path / "out"), *SMALL], capsys)
    assert "nearly the same" in line and "--skip-rules near_duplicate,leak" in line
    main(["--source", source, "--out", str(tmp_path / "out"), *SMALL, "--skip-rules", "near_duplicate,leak"])


def test_no_path_of_this_machine_is_written(made):
    _, out, _ = made
    for name, content in contents(out).items():
        assert str(out.parent).encode() not in content, name


def test_second_run_gives_the_same_bytes(made, tmp_path):
    _, out, _ = made
    arguments = ["--source", str(out.parent / "rows.txt"), "--out", str(tmp_path / "again"), *SMALL]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "data_prep", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress bar where stderr is no terminal"
    assert contents(tmp_path / "again") == contents(out)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["rows"] == 601 and figures["rows_read"] == 607 and figures["dropped"]["duplicate"] == 3
    assert figures["tokens"] == figures["train_tokens"] + figures["val_tokens"] + figures["test_tokens"]
    assert "says the same as an earlier row" in done.stdout


def test_another_seed_gives_another_split(made, tmp_path):
    _, out, _ = made
    main(["--source", str(out.parent / "rows.txt"), "--out", str(tmp_path / "a"), *SMALL, "--seed", "1"])
    assert contents(tmp_path / "a") != contents(out)


def test_tokenizer_sees_training_rows_only(tmp_path):
    """A word of validation rows alone is no token; control: the same word in training rows is."""
    rows = corpus(400)
    size = block_rows(len(rows))
    blocks = validation_blocks(-(-len(rows) // size), 0.1, 1337)
    for name, in_validation in (("val", True), ("train", False)):
        marked = [f"ظظغغ {row} ظظغغ" if (i // size in blocks) == in_validation else row for i, row in enumerate(rows)]
        main(["--source", str(write(tmp_path / f"{name}.txt", marked)), "--out", str(tmp_path / name), *SMALL])
        tokens = len(open_dataset(tmp_path / name).tokenizer.encode("ظظغغ").ids)
        assert (tokens > 1) == in_validation


def test_a_given_tokenizer_is_kept_byte_for_byte(made, tmp_path, capsys):
    """Other rows in the tokens of an earlier dataset, for a model that was trained with them."""
    _, first, _ = made
    rows = write(tmp_path / "other.txt", corpus(300, seed=5))
    given = first / "tokenizer.json"
    main(["--source", str(rows), "--out", str(tmp_path / "out"), "--shards", "4", "--tokenizer", str(given)])
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == given.read_bytes()
    dataset = open_dataset(tmp_path / "out")
    assert dataset.manifest["options"]["vocab_size"] == dataset.vocab_size
    main(["--source", str(rows), "--out", str(tmp_path / "trained"), "--shards", "4", "--vocab-size", "400"])
    assert open_dataset(tmp_path / "trained").tokenizer_sha256 != dataset.tokenizer_sha256
    refused(["--source", str(rows), "--out", str(tmp_path / "no"), "--tokenizer", str(rows)], capsys)
    assert not (tmp_path / "no").exists()


def test_a_given_tokenizer_may_not_change_texts(made, tmp_path, capsys):
    """What tools leave switched on in the file is switched off: rows are neither cut nor padded. A normalizer is refused."""
    _, first, _ = made
    rows = write(tmp_path / "other.txt", corpus(300, seed=5))
    written = json.loads((first / "tokenizer.json").read_text(encoding="utf-8"))
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    left_on = {"truncation": cut, "padding": pad | {"pad_token": "<|endoftext|>"}}
    found = []
    for name, change in (("plain", {}), ("left-on", left_on), ("lower", {"normalizer": {"type": "Lowercase"}})):
        given = tmp_path / f"{name}.json"
        given.write_text(json.dumps(written | change), encoding="utf-8")
        arguments = ["--source", str(rows), "--out", str(tmp_path / name), "--shards", "4", "--tokenizer", str(given)]
        if name == "lower":
            assert "has a normalizer, which changes texts" in refused(arguments, capsys)
            continue
        main(arguments)
        found.append([list(map(list, read_shards(tmp_path / name, split))) for split in ("train", "val")])
    assert found[0] == found[1]


def test_latin_choices(tmp_path):
    rows = [f"{row} bien" if i % 2 else row for i, row in enumerate(corpus(400))]
    source = str(write(tmp_path / "rows.txt", rows))
    kept = {}
    for latin in ("drop-words", "drop-rows", "keep"):
        main(["--source", source, "--out", str(tmp_path / latin), "--latin", latin, *SMALL])
        dataset = open_dataset(tmp_path / latin)
        tokens = [row for split in ("train", "val", "test") for row in read_shards(tmp_path / latin, split)]
        kept[latin] = [dataset.tokenizer.decode(row) for row in tokens]
    assert {latin: len(rows) for latin, rows in kept.items()} == {"drop-words": 400, "drop-rows": 200, "keep": 400}
    assert {latin: sum("bien" in row for row in rows) for latin, rows in kept.items()} == {
        "drop-words": 0,
        "drop-rows": 0,
        "keep": 200,
    }


def test_a_vocabulary_that_cannot_be_filled_is_reported(tmp_path, capsys):
    main(["--source", str(write(tmp_path / "rows.txt", corpus(200))), "--out", str(tmp_path / "out"), "--shards", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert any("fewer than the 10,000 asked for" in line for line in lines)
    assert json.loads(lines[-1])["vocab_size"] < 10_000


def test_sample(tmp_path, capsys):
    main(["--source", "sample", "--out", str(tmp_path / "out"), "--vocab-size", "1000", "--shards", "4"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    files = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))["source"]["files"]
    assert [entry["file"] for entry in files] == sorted(p.name for p in (ROOT / "data_prep" / "sample").glob("*.txt"))
    assert figures["rows"] > 0.7 * figures["rows_read"] > 500


def test_overwrite(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--source", str(write(tmp_path / "rows.txt", corpus(200))), "--out", str(out), *SMALL]
    main(arguments)
    first = contents(out)
    assert "--overwrite" in refused(arguments, capsys)
    main([*arguments, "--overwrite", "--seed", "2"])
    assert contents(out) != first
    (out / "manifest.json").write_text("{")  # damaged, and beside its shards
    main([*arguments, "--overwrite"])
    assert contents(out) == first
    (out / "manifest.json").unlink()
    assert "it is no dataset and is not replaced" in refused([*arguments, "--overwrite"], capsys)
    assert (out / "tokenizer.json").is_file()
    extension = tmp_path / "extension"  # of a browser: it has a manifest.json too
    extension.mkdir()
    (extension / "manifest.json").write_text('{"manifest_version": 3}')
    given = ["--source", str(tmp_path / "rows.txt"), "--out", str(extension), *SMALL, "--overwrite"]
    assert "it is no dataset and is not replaced" in refused(given, capsys)


def test_a_failed_run_keeps_the_old_dataset(tmp_path, capsys):
    out = tmp_path / "out"
    good, bad = write(tmp_path / "good.txt", corpus(200)), tmp_path / "bad.txt"
    main(["--source", str(good), "--out", str(out), *SMALL])
    before = contents(out)
    bad.write_bytes(good.read_bytes() + b"\xff")
    assert "line 201 is not UTF-8" in refused(["--source", str(bad), "--out", str(out), *SMALL, "--overwrite"], capsys)
    assert contents(out) == before


def test_out_may_not_hold_the_source(tmp_path, capsys):
    out = tmp_path / "out"
    main(["--source", str(write(tmp_path / "rows.txt", corpus(200))), "--out", str(out), *SMALL])
    inside = write(out / "rows.txt", corpus(200))
    arguments = ["--source", str(inside), "--out", str(out), *SMALL, "--overwrite"]
    assert "holds the source" in refused(arguments, capsys)
    assert inside.is_file()


def test_importing_the_package_needs_no_framework_and_no_datasets():
    code = "import sys, data_prep.command; print({'torch', 'mlx', 'datasets', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
