"""The way of a corpus to its test split: data_prep, a short training run, evaluate --split test and
anchors --split test, which alone open it."""

import json
import random

import pytest
from commands import call, train_flags

from gpt_core.dataset import open_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two files of made-up rows, prepared."""
    from data_prep.command import main as prepare

    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(8)
    for name in ("a.txt", "b.txt"):
        rows = [" ".join("".join(draw.sample("ابتجحدرسشعفقكلمنهوي", 4)) for _ in range(7)) for _ in range(200)]
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    sources = [str(folder / name) for name in ("a.txt", "b.txt")]
    prepare(["--source", *sources, "--out", str(folder / "data"), "--vocab-size", "400", "--shards", "3"])
    return folder / "data"


def test_evaluate_scores_the_split_that_is_asked_for(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert call(monkeypatch, "torch_gpt.train", *train_flags(data, run, "--steps", 3)) == 0
    manifest = open_dataset(data).manifest
    found = {}
    for split in ("val", "test"):
        capsys.readouterr()
        words = ("--checkpoint", run, "--data", data, "--split", split, "--device", "cpu")
        assert call(monkeypatch, "torch_gpt.evaluate", *words) == 0
        found[split] = json.loads(capsys.readouterr().out.splitlines()[-1])
        expected = manifest["splits"][split]
        assert (found[split]["rows"], found[split]["bytes"]) == (expected["rows"], expected["bytes"] + expected["rows"])
        counts = dict.fromkeys(("a.txt", "b.txt"), 0)
        for name, rows in manifest["sources"][split]:
            counts[name] += rows
        assert {name: part["rows"] for name, part in found[split]["sources"].items()} == {n: c for n, c in counts.items() if c}
        assert call(monkeypatch, "data_prep.anchors", data, "--split", split) == 0
        beaten = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert [beaten[name] for name in ("split", "rows", "bytes", "tokens")] == [
            split, *(found[split][name] for name in ("rows", "bytes", "tokens"))
        ]  # fmt: skip
    assert found["val"]["rows"] != found["test"]["rows"]
    # other commands do without it: they run on although it is broken, and those that open it do not
    (data / "test" / "darija_test_000.bin").write_bytes(b"broken")
    assert call(monkeypatch, "torch_gpt.evaluate", "--checkpoint", run, "--data", data, "--device", "cpu") == 0
    assert call(monkeypatch, "torch_gpt.train", *train_flags(data, tmp_path / "other", "--steps", 1)) == 0
    capsys.readouterr()
    words = ("--checkpoint", run, "--data", data, "--split", "test", "--device", "cpu")
    assert call(monkeypatch, "torch_gpt.evaluate", *words) == 2
    assert "darija_test_000.bin" in capsys.readouterr().err
    assert call(monkeypatch, "data_prep.anchors", data) == 0
    assert call(monkeypatch, "data_prep.anchors", data, "--split", "test") == 2


def test_a_text_file_has_no_split(data, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "torch_gpt.train", *train_flags(data, tmp_path / "run", "--steps", 1)) == 0
    (tmp_path / "rows.txt").write_text("واش راك\n", encoding="utf-8")
    capsys.readouterr()
    words = ("--checkpoint", tmp_path / "run", "--text", tmp_path / "rows.txt", "--split", "test", "--device", "cpu")
    assert call(monkeypatch, "torch_gpt.evaluate", *words) == 2
    assert "--split test is a split of --data" in capsys.readouterr().err
