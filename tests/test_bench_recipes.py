"""The table and the plot of recipes: records made from runs, by hand, and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
from commands import call, train_flags

from benchmarks.recipes import RECORDS, Recipe, draw, from_run, read, table, total_flops
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError

ROOT = Path(__file__).parents[1]
MODEL = GPTConfig(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=6, mlp="swiglu", bias=False)
RECIPE = Recipe("fast", "fast", "2026-11-25", "torch", 2_000_000, 1.0, 1_000, 3e12, 2.5, 1.5, 1.6, 6.5, 1, "small")
ANCHOR = Recipe("5-gram", "anchor", "2026-11-25", "-", 0, 0.0, 0, 0.0, 0.0, 1.4458, 0.0, 6.085, 0)


def test_flops_of_a_run_by_hand() -> None:
    """C 6, F 64, V 11, T 4. Matrices of the layer: 3 C^2, C^2, 3 C F; besides 3 norms of 2 C and V C; positions are looked up.

    Muon, for (r, c) in (6, 18), (6, 6), (6, 64) three times: 5 (4 r^2 c + 2 r^3).
    """
    n = 4 * 36 + 3 * 6 * 64 + 3 * 12 + 66
    muon = sum(5 * (4 * 36 * c + 2 * 216) for c in (18, 6, 64, 64, 64))
    adamw = TrainConfig(micro_batch_size=3, accumulation=2)
    model = (6 * n + 12 * 6 * 4) * 24
    assert total_flops(MODEL, adamw, 10) == 10 * (model + 15 * (n + 24))
    assert total_flops(MODEL, dataclasses.replace(adamw, optimizer="muon"), 10) == 10 * (model + 15 * (n + 24) + muon)


def test_a_record_is_made_of_a_run(small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert call(monkeypatch, "torch_gpt.train", *train_flags(small_dataset, run, "--steps", 4)) == 0
    evaluation = tmp_path / "eval.txt"
    evaluation.write_text("read\n" + json.dumps({"val_bpb": 1.23456, "val_bpb_stream": 1.5, "val_loss": 7.0}) + "\n")
    found = from_run(run, evaluation, "mine", "trial", "2026-11-25", "one layer")
    assert (found.by, found.rows, found.stream, found.nats, found.tokens, found.seed) == ("torch", 1.2346, 1.5, 7.0, 384, 1337)
    assert found.flops == total_flops(*_configs(run), 4)
    records = [json.loads(line) | {"step_ms": ms} for line, ms in zip(_lines(run), (90e3, 60e3, 9e6, 70e3), strict=True)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    paused = from_run(run, evaluation, "mine", "trial", "2026-11-25", "")
    assert paused.minutes == round(4 * 80 / 60, 1)  # the step of 150 minutes is one of four
    (run / "metrics.jsonl").rename(tmp_path / "kept.jsonl")
    with pytest.raises(InputError, match="has no records of its steps"):
        from_run(run, evaluation, "mine", "trial", "2026-11-25", "")
    (tmp_path / "kept.jsonl").rename(run / "metrics.jsonl")
    evaluation.write_text(json.dumps({"val_bpb": 1.2}))
    with pytest.raises(InputError, match="has no val_bpb_stream, val_loss"):
        from_run(run, evaluation, "mine", "trial", "2026-11-25", "")
    evaluation.write_text("")
    with pytest.raises(InputError, match="does not end in a JSON object"):
        from_run(run, evaluation, "mine", "trial", "2026-11-25", "")


def _lines(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


def _configs(run: Path) -> tuple[GPTConfig, TrainConfig]:
    config = json.loads((run / "config.json").read_text())
    return GPTConfig(**config["model"]), TrainConfig(**config["train"])


def test_the_table_ends_with_the_fewest_bits_and_the_plot_is_drawn(tmp_path: Path) -> None:
    lines = table([ANCHOR, RECIPE]).splitlines()
    assert lines[2] == "| fast | torch | 2.0M | 1 | 3.00e+12 | 2.5 | 1.5000 | 1.6000 | 6.5000 | 1 | small |"
    assert lines[3] == "| 5-gram | - | - | - | - | - | 1.4458 | - | 6.0850 | - |  |"
    draw([ANCHOR, RECIPE], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_a_broken_record_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(dataclasses.asdict(RECIPE)) + "\n{}\n")
    with pytest.raises(InputError, match=r"records.jsonl line 2 is not a record with name"):
        read(path)
    assert call(monkeypatch, "benchmarks.recipes", "--records", tmp_path / "none.jsonl") == 2
    assert "none.jsonl does not exist: add a run with --add DIR" in capsys.readouterr().err
    path.write_text(json.dumps(dataclasses.asdict(RECIPE)) + "\n")
    before = path.read_bytes()
    mistakes: dict[str, tuple[object, ...]] = {
        "--add needs --evaluation FILE": ("--name", "x"),
        "--date today is no date": ("--evaluation", "e", "--name", "x", "--date", "today"),
        "does not exist": ("--evaluation", "e", "--name", "x", "--date", "2026-11-25"),
        "there is no folder": ("--out", tmp_path / "none" / "plot.png"),
        "is no regular file": ("--out", "/dev/null"),
    }
    for says, more in mistakes.items():
        assert call(monkeypatch, "benchmarks.recipes", "--records", path, "--add", tmp_path / "no-run", *more) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1, err
    assert path.read_bytes() == before


def test_the_document_shows_the_table_of_the_records() -> None:
    assert table(read(ROOT / RECORDS)) in (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
