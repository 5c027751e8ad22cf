"""The mean of checkpoints: by hand, through the command, and what has none."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from weights_samples import MODEL, QWEN, command, last_json, write_run, write_tokenizer

from gpt_core import checkpoint
from gpt_core.errors import InputError
from gpt_core.metrics import FIELDS, VALIDATION_FIELDS
from weights.average import average, main
from weights.card import card
from weights.convert import convert
from weights.source import read_twin
from weights.twin_write import write_twin


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three checkpoints of one model, at steps 10, 30 and 20."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / f"run{seed}", step=step, seed=seed) for seed, step in enumerate((10, 30, 20))]


def test_the_mean_of_every_weight(runs, tmp_path, monkeypatch, capfd):
    code, shown = command(monkeypatch, capfd, main, *runs, "--out", tmp_path / "new" / "mean")
    assert code == 0 and last_json(shown.out)["step"] == 30
    loaded, parts = checkpoint.load(tmp_path / "new" / "mean"), [checkpoint.load(run).weights for run in runs]
    assert (loaded.step, loaded.moments, loaded.model) == (30, {}, MODEL)
    for name, value in loaded.weights.items():
        expected = (parts[0][name].astype(np.float64) + parts[1][name] + parts[2][name]) / 3
        np.testing.assert_array_equal(value, expected.astype(np.float32))
    assert np.abs(loaded.weights["wte.weight"] - parts[1]["wte.weight"]).max() > 0.01
    assert (tmp_path / "new" / "mean" / "tokenizer.json").read_bytes() == (runs[0] / "tokenizer.json").read_bytes()


def test_the_card_of_a_mean_quotes_no_validation_of_its_parts(runs, tmp_path):
    """Even where it lies in the run folder whose records have one for its last part."""
    run = shutil.copytree(runs[1].parent, tmp_path / "run")
    fields = dict.fromkeys((*FIELDS, *VALIDATION_FIELDS), 2.5)
    (run / "metrics.jsonl").write_text(json.dumps(fields | {"step": 30}) + "\n")
    write_twin(average([run / "step_000030", runs[0]]), run / "mean")
    assert "2.5000 bits a byte" in card(read_twin(run), "part")
    convert(run / "mean", run / "copy", "twin")
    for mean in ("mean", "copy"):
        said = card(read_twin(run / mean), mean)
        assert "Validation losses: not recorded" in said and "The mean of several checkpoints" in said


def test_twin_to_twin_keeps_the_moments(runs, tmp_path):
    convert(runs[0], tmp_path / "copy", "twin")
    found, expected = checkpoint.load(tmp_path / "copy").moments, checkpoint.load(runs[0]).moments
    assert expected and all(np.array_equal(found[name], value) for name, value in expected.items())


def test_the_mean_of_alike_is_the_same(runs, tmp_path):
    """To the bit, in float64: 0.1 three times in float32 is not 3 x 0.1."""
    copies = [shutil.copytree(runs[0], tmp_path / str(n)) for n in range(3)]
    for name, value in average(copies).weights.items():
        np.testing.assert_array_equal(value, checkpoint.load(runs[0]).weights[name])


def test_what_has_no_mean_is_refused_before_anything_is_made(runs, tmp_path, monkeypatch, capfd):
    wider = write_run(tmp_path / "wider", dataclasses.replace(MODEL, n_layer=3))
    other = write_run(tmp_path / "other", QWEN)
    cases = [
        ([runs[0]], "alone has no mean"),
        ([runs[0], runs[0]], "is given twice"),
        ([runs[0].parent, runs[0]], "is given twice, as"),
        ([runs[0], wider], f"CHECKPOINT {wider} is of another model"),
        ([runs[1], other], "of another model"),
        ([runs[0], tmp_path / "none"], f"{tmp_path / 'none'} does not exist"),
    ]
    for checkpoints, says in cases:
        code, shown = command(monkeypatch, capfd, main, *checkpoints, "--out", tmp_path / "new" / "mean")
        assert (code, shown.err.count("\n"), shown.out) == (2, 1, "") and says in shown.err, shown.err
    for more, says in (
        (["--out", runs[0], "--overwrite"], "is or holds the source"),
        (["--out", runs[1], "--overwrite"], "is a checkpoint that a training run wrote"),
        (["--out", runs[2]], "exists: choose another folder"),
        (["--out", tmp_path / "step_000031"], "says step 31, the source is at 30"),
    ):
        code, shown = command(monkeypatch, capfd, main, *runs, *more)
        assert (code, shown.err.count("\n")) == (2, 1) and says in shown.err, shown.err
    assert not (tmp_path / "new").exists()


def test_another_tokenizer_is_refused(runs, tmp_path):
    loaded, tokenizer = checkpoint.load(runs[1]), write_tokenizer(tmp_path / "tokenizer.json", vocab_size=400)
    (tmp_path / "run").mkdir()
    other = checkpoint.save(tmp_path / "run", loaded.model, loaded.train, 30, 0, loaded.weights, {}, tokenizer, "0" * 64, {})
    with pytest.raises(InputError, match="is of another tokenizer"):
        average([runs[0], other])
