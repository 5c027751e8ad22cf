"""Generation and evaluation: the cache, the seed, the padding, and the same figures in both twins."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, call, train_flags
from twins import CONFIG, CPU, TWINS, Twin, fresh, scaled_up

from gpt_core import checkpoint
from gpt_core.generation import Forward, generate
from gpt_core.sampling import Sampling
from mlx_gpt.generate import make_forward as mlx_forward
from torch_gpt.generate import make_forward as torch_forward

Runs = dict[str, Path]


def forward_of(name: str, twin: Twin) -> Forward:
    return mlx_forward(twin.model) if name == "mlx" else torch_forward(twin.model, CPU)


@pytest.fixture(scope="module")
def runs(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A trained run of each twin."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in TWINS:
            flags = train_flags(small_dataset, folder / name, "--steps", 60, "--lr", 5e-3)
            assert call(monkeypatch, f"{name}_gpt.train", *flags) == 0
    return {name: folder / name for name in TWINS}


@pytest.mark.parametrize("name", TWINS)
def test_logits_with_the_cache_are_those_without(name: str) -> None:
    """A prompt of 7 tokens, then one at a time to the full context: logits to 5e-6 (measured 8.0e-7)."""
    twin = TWINS[name](scaled_up(fresh()))
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, CONFIG.block_size)
    forward = forward_of(name, twin)
    logits, cache = forward([int(token) for token in tokens[:7]], None)
    for position in range(7, CONFIG.block_size):
        expected = twin.logits(tokens[None, :position])[0, -1]
        assert np.abs(logits - expected).max() < 5e-6 * np.abs(expected).max()
        logits, cache = forward([int(tokens[position])], cache)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {}, {"top_k": 9}, {"top_p": 0.8}, {"temperature": 0.7, "top_p": 0.95}]
)
def test_the_same_seed_gives_the_same_tokens_in_both_twins(settings: dict[str, Any]) -> None:
    """Also past the end of the context, where the newer half is read anew."""
    texts = {}
    for name in TWINS:
        twin = TWINS[name](scaled_up(fresh()))
        for seed in (0, 1):
            tokens = generate(
                forward_of(name, twin), [5, 3], Sampling(**settings), 60, CONFIG.vocab_size, CONFIG.block_size, seed
            )
            texts[name, seed] = list(tokens)
    assert texts["mlx", 0] == texts["torch", 0] and texts["mlx", 1] == texts["torch", 1]
    assert (texts["mlx", 0] == texts["mlx", 1]) == (settings.get("temperature") == 0.0)


@pytest.mark.parametrize("name", TWINS)
def test_padding_is_never_sampled(name: str) -> None:
    """The last 40 of 97 rows count as padding here; a hot temperature would find them within a few draws."""
    twin = TWINS[name](fresh())
    hot = Sampling(temperature=50.0)
    found = [t for seed in range(9) for t in generate(forward_of(name, twin), [1], hot, 30, 57, CONFIG.block_size, seed)]
    assert max(found) < 57
    free = [t for seed in range(9) for t in generate(forward_of(name, twin), [1], hot, 30, 97, CONFIG.block_size, seed)]
    assert max(free) >= 57


def test_the_commands_print_the_same_text(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for name in TWINS:
        flags = ("--checkpoint", runs["torch"], "--prompt", "واش راك", "--max-tokens", 25, "--seed", 4)
        assert call(monkeypatch, f"{name}_gpt.generate", *flags) == 0
        out, err = capfd.readouterr()
        assert out.startswith("واش راك") and out.endswith("\n") and "tok/s" in err
        printed.append(out)
    assert printed[0] == printed[1]
    assert len(printed[0]) > len("واش راك\n")


def test_generation_is_streamed(runs: Runs) -> None:
    """The prompt stands on the terminal before the text is complete."""
    command = [sys.executable, "-m", "torch_gpt.generate", "--checkpoint", str(runs["torch"]), "--prompt", "صباح الخير"]
    with subprocess.Popen(
        [*command, "--max-tokens", "500"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(3).decode("utf-8", "ignore") == "ص"
        process.kill()


def test_both_twins_evaluate_to_the_same_figures(
    runs: Runs, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "rows.txt"
    text.write_text("واش راك خويا\nje suis fatigué\n\n123\n", encoding="utf-8")
    for source, rows in ((("--data", small_dataset), None), (("--text", text), 4)):
        results = []
        for name in TWINS:
            assert call(monkeypatch, f"{name}_gpt.evaluate", "--checkpoint", runs["mlx"], *source) == 0
            results.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
        for key in ("val_bpb", "val_bpb_stream", "val_loss", "bits_per_character"):
            assert results[0][key] == pytest.approx(results[1][key], rel=2e-6)  # measured 8e-9 here, 8e-8 on real rows
        assert results[0]["val_bpb"] != pytest.approx(results[0]["val_bpb_stream"], rel=1e-3)
        if rows:
            assert results[0]["rows"] == rows
            assert results[0]["bytes"] == len(text.read_bytes())  # each row and the byte that ends it
            assert {script: part["rows"] for script, part in results[0]["scripts"].items()} == {
                "arabic": 1,
                "latin": 1,
                "other": 2,
            }


def test_a_trained_model_beats_a_fresh_one(
    runs: Runs, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the rows it was trained on: else the metric does not measure learning."""
    trained = checkpoint.load(checkpoint.find(runs["torch"], "--run"))
    first = train_flags(small_dataset, tmp_path / "first", "--steps", 1, "--lr", 1e-6)
    assert call(monkeypatch, "torch_gpt.train", *first) == 0
    bpb = []
    for run in (tmp_path / "first", trained.folder):
        capsys.readouterr()
        assert call(monkeypatch, "torch_gpt.evaluate", "--checkpoint", run, "--data", small_dataset) == 0
        bpb.append(json.loads(capsys.readouterr().out.splitlines()[-1])["val_bpb"])
    assert bpb[1] < 0.9 * bpb[0]
    pair = ("--checkpoint", trained.folder, "--against", tmp_path / "first", "--data", small_dataset)
    assert call(monkeypatch, "mlx_gpt.evaluate", *pair) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = result["against"]
    assert [result["val_bpb"], found["val_bpb"]] == pytest.approx([bpb[1], bpb[0]], rel=2e-6)
    assert found["difference"] == pytest.approx(bpb[1] - bpb[0], rel=1e-5) and found["difference_interval"][1] < 0
    assert (found["checkpoint"], found["step"]) == (str(tmp_path / "first" / "step_000001"), 1)
