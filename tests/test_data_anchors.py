"""What a model must beat: the same bytes as the metric, sizes that anyone can check with xz, and one JSON line last."""

import json
import lzma
import math

import numpy as np
import pytest
from commands import call
from helpers import TRAIN_ROWS, VAL_ROWS

from data_prep.anchors import anchors, ppmd, text_of, xz
from gpt_core.dataset import open_dataset
from gpt_core.evaluation import evaluate, figures
from gpt_core.tokens import token_bytes

BEFORE, TEXT = ("".join(row + "\n" for row in rows).encode() for rows in (TRAIN_ROWS, VAL_ROWS))


@pytest.fixture(scope="module")
def dataset(small_dataset):
    return open_dataset(small_dataset)


def test_the_text_of_a_split_is_its_rows(dataset):
    tokens = dataset.val.read(0, len(dataset.val))
    assert text_of(tokens, token_bytes(dataset.tokenizer)) == TEXT


def test_the_bytes_are_those_of_the_metric(dataset):
    """And the tokens, and the loss of a model to which every token is as likely."""
    nats = math.log(512)
    metric = figures(*evaluate(dataset.val, dataset.tokenizer, 16, lambda x, y: np.full(y.shape, nats, dtype=np.float32)))
    found = anchors(dataset)
    assert [found[name] for name in ("rows", "bytes", "tokens")] == [metric[name] for name in ("rows", "bytes", "tokens")]
    unigram = found["anchors"]["unigram"]
    assert unigram["val_bpb"] / unigram["val_loss"] == pytest.approx(metric["val_bpb"] / nats, rel=1e-6)


def test_compressors_are_given_the_training_rows(dataset):
    for name, size_of in (("xz", xz), ("ppmd", ppmd)):
        part = anchors(dataset)["anchors"][name]
        assert part["val_bpb"] == pytest.approx(8 * (size_of(BEFORE + TEXT) - size_of(BEFORE)) / len(TEXT))
        assert part["val_bpb_alone"] == pytest.approx(8 * size_of(TEXT) / len(TEXT))
        assert part["val_bpb"] < part["val_bpb_alone"]
    assert lzma.decompress(lzma.compress(TEXT, preset=9)) == TEXT and xz(TEXT) == len(lzma.compress(TEXT, preset=9))


def test_the_command(small_dataset, monkeypatch, capsys):
    assert call(monkeypatch, "data_prep.anchors", small_dataset) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert list(found["anchors"]) == ["xz", "ppmd", "unigram", "bigram", "5-gram"] and len(lines) == 7
    low, high = found["anchors"]["5-gram"]["val_bpb_interval"]
    assert low < found["anchors"]["5-gram"]["val_bpb"] < high
    assert call(monkeypatch, "data_prep.anchors", small_dataset / "no") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert call(monkeypatch, "data_prep.anchors", small_dataset, "--split", "test") == 2
    assert "has none" in capsys.readouterr().err
