"""The command over the real rows, which are no part of the project: skipped where the file is missing."""

import json

from real_rows import REAL_ROWS, needs_real_rows, prepared_once

from data_prep.readers import read_rows
from data_prep.report import main as report
from gpt_core.dataset import open_dataset


@needs_real_rows
def test_real_rows(tmp_path, tmp_path_factory):
    prepared = prepared_once(tmp_path_factory)
    figures = json.loads(prepared.printed.read_text(encoding="utf-8").splitlines()[-1])
    dataset = open_dataset(prepared.folder)
    assert figures["rows_read"] == sum(1 for _ in read_rows(REAL_ROWS))
    assert figures["rows"] + sum(figures["dropped"].values()) == figures["rows_read"]
    assert figures["rows"] > 0.6 * figures["rows_read"]
    dropped = figures["dropped"]
    assert dropped["leak"] > 100 and dropped["near_duplicate"] > 500 and dropped["restless"] < 10
    assert dropped["spam"] + dropped["few_letters"] < 0.005 * figures["rows_read"], "rules for rare things"
    report([str(prepared.folder), "--out", str(tmp_path / "report.html")])
    assert (dataset.vocab_size, figures["shards"], len(dataset.manifest["shards"])) == (10_000, 20, 20)
    assert len(dataset.train) == figures["train_tokens"] and len(dataset.val) == figures["val_tokens"]
    assert 0.08 < figures["val_tokens"] / figures["tokens"] < 0.12
    assert 1.2 < figures["tokens"] / figures["words"] < 2.2
    sizes = [shard["tokens"] for shard in dataset.manifest["shards"] if shard["split"] == "train"]
    assert max(sizes) - min(sizes) < 2000, "shards of one split differ by a row or two"
