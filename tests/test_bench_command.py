"""python -m benchmarks from end to end with a model of milliseconds, its files, and what it says to bad input."""

import copy
import importlib.util
import io
import json
import re
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, call
from test_bench_engines import NANOGPT

from benchmarks import report
from benchmarks.rows import Row
from benchmarks.timing import Spread
from gpt_core.config import GPTConfig, TrainConfig, from_dict, presets
from gpt_core.errors import InputError

SMALL = ["--preset", "tiny", "--vocab-size", 300, "--block-size", 16, "--n-layer", 2, "--n-head", 2, "--n-embd", 24]
SMALL += ["--micro-batch-size", 2, "--accumulation", 2, "--device", "cpu", "--trials", 5, "--trial-seconds", 0.02]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of both backends and a peer: its folder and the lines of its stdout."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "model.py").write_text(NANOGPT)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")  # compiling for the CPU takes 15 s
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setattr(sys, "stdout", out := io.StringIO())
        peers = ["--peers", f"nanogpt={folder}"]
        code = call(monkeypatch, "benchmarks.command", *SMALL, *peers, "--parts", "train,generate", "--out", folder / "out")
        lines = out.getvalue().splitlines()
    assert code == 0, lines
    return folder / "out", lines


def test_files_are_named_by_preset_chip_and_date(ran):
    names = sorted(path.name for path in ran[0].iterdir())
    assert len(names) == 2 and names[1] == names[0].replace(".json", ".png")
    assert re.fullmatch(rf"tiny_[a-z0-9-]+_{time.strftime('%Y')}-\d\d-\d\d\.json", names[0])
    assert (ran[0] / names[1]).read_bytes().startswith(b"\x89PNG")


def test_file_name_of_a_mac():
    found = {"preset": "seed", "chip": "Apple M1 Pro", "date": "2026-11-23"}
    assert report.file_name(found) == "seed_apple-m1-pro_2026-11-23.json"


def test_the_result_has_every_field(ran):
    found = json.loads(ran[1][-1])
    assert json.loads(next(ran[0].glob("*.json")).read_text()) == found
    expected = "format_version preset chip date time machine model train tokens_per_step flops_per_token trials rows failed"
    assert list(found) == expected.split(" ")
    assert set(found["machine"]) >= {"system", "processor", "cores", "power", "load_1min"}
    assert (found["trials"], found["tokens_per_step"], found["model"]["n_embd"]) == (5, 64, 24)
    trained = [row for row in found["rows"] if row["part"] == "train"]
    assert [row["name"] for row in trained] == ["mlx cpu float32", "torch cpu float32", "nanogpt cpu float32"]
    fields = (
        "engine device dtype chip versions steps_per_trial first_loss step_ms split_ms nominal_tflops mfu_nominal_pct "
        "matmul_tflops mfu_matmul_pct peak_mem_gib peak_rss_gib predicted_ms"
    )
    for row in trained:
        assert list(row["details"]) == fields.split(" ")
        rate, step = row["rate"], row["details"]["step_ms"]
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
        assert rate["median"] == pytest.approx(64_000 / step["median"])
        assert row["details"]["mfu_nominal_pct"] is None and row["details"]["mfu_matmul_pct"] > 0
        assert row["details"]["first_loss"] == pytest.approx(trained[0]["details"]["first_loss"], abs=1e-3)
        assert row["details"]["versions"]["framework"] in ("mlx", "torch")
    assert [bool(row["details"]["split_ms"]) for row in trained] == [True, True, False], "a peer's step is one piece"
    others = [(row["part"], row["name"]) for row in found["rows"] if row["part"] != "train"]
    twins = ("mlx cpu float32", "torch cpu float32")
    assert others == [(part, name) for name in twins for part in ("prefill", "decode")], "nanoGPT has no KV cache"


def test_the_trials_alternate(ran):
    said = [line.split(": ", 1)[1].split(" ")[0] for line in ran[1] if "training, trial" in line]
    turns = ["mlx", "torch", "nanogpt"], ["torch", "nanogpt", "mlx"], ["nanogpt", "mlx", "torch"]
    assert said == [*turns[0], *turns[1], *turns[2], *turns[0], *turns[1]]


def test_the_output_says_what_is_missing(ran):
    text = "\n".join(ran[1])
    assert "no MFU of" in text and "--peak-tflops X" in text and "need not add up" in text
    assert "WARNING" not in text


def test_ratios_with_an_earlier_result(ran):
    path = next(ran[0].glob("*.json"))
    found = json.loads(path.read_text())
    model, train = _configs(found)
    earlier = report.read_earlier(path, "tiny", model, train)
    rows = [Row(r["part"], r["name"], r["unit"], Spread(**r["rate"]).scaled(1.5), r["details"]) for r in found["rows"]]
    ratios = report.ratios(rows, earlier)
    assert len(ratios) == 7 and all(ratio == pytest.approx(1.5) for _, ratio in ratios)
    assert ratios[0][0] == "train: mlx cpu float32 (tok/s)"
    new = Row("train", "torch mps float32", "tok/s", Spread(1, 1, 1))
    assert report.ratios([new], earlier) == [] and "no row in common" in report.against([new], earlier)
    assert "1.50 x" in report.against(rows, earlier)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").rglob("seed_*.json")), ids=lambda path: path.name)
def test_every_recorded_result_can_be_compared_with(path):
    found = json.loads(path.read_text())
    assert report.read_earlier(path, "seed", *_configs(found))["chip"] == found["chip"]


def test_results_of_earlier_versions_lack_options_and_mean_their_defaults():
    path = ROOT / "benchmarks" / "results" / "seed_intel-r-xeon-r-processor_2026-11-25.json"
    assert "token_noise" not in json.loads(path.read_text())["train"]
    assert report.read_earlier(path, "seed", *presets()["seed"])["preset"] == "seed"


def _configs(found: dict) -> tuple[GPTConfig, TrainConfig]:
    return from_dict(GPTConfig, found["model"], ""), from_dict(TrainConfig, found["train"] | {"dtype": "float32"}, "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: found.update(preset="seed"), "is of preset seed, not tiny"),
        (lambda found: found["model"].update(n_layer=3), "has another n_layer, 3: give the same --n-layer"),
        (lambda found: found["train"].update(micro_batch_size=4), "another micro_batch_size, 4"),
        (lambda found: found["model"].update(positions="rope"), "another positions, rope"),
        (
            lambda found: found["train"].update(optimizer="muon"),
            "another optimizer, muon: the preset has changed, measure it again",
        ),
        (lambda found: found.update(format_version=0), "no result of format version 1"),
        (lambda found: found.update(rows=[]), "with rows"),
        (lambda found: found.pop("chip"), "KeyError"),
        (lambda found: found["rows"][0].update(rate=3), "TypeError"),
    ],
)
def test_a_result_that_cannot_be_compared_with(ran, tmp_path, change, says):
    found = json.loads(ran[1][-1])
    model, train = _configs(found)
    changed = copy.deepcopy(found)
    change(changed)
    (tmp_path / "earlier.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=says):
        report.read_earlier(tmp_path / "earlier.json", "tiny", model, train)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backends", "jax"], "--backends jax"),
        (["--peers", "llm.c"], "--peers llm.c"),
        (["--peers", "nanogpt"], "nanogpt=PATH"),
        (["--peers", "nanogpt=nowhere"], "--peers nanogpt=nowhere has no model.py"),
        (["--peers", "mlx-plain", "--norm", "rmsnorm"], "--peers mlx-plain: GPT-2 is what they run, not norm rmsnorm"),
        (
            ["--preset", "fast", "--positions", "learned", "--peers", "mlx-plain"],
            "not optimizer muon, document mask True: take --preset",
        ),
        (["--trials", "4"], "--trials 4: expected 5"),
        (["--trials", "x"], "--trials"),
        (["--trial-seconds", "0"], "--trial-seconds"),
        (["--peak-tflops", "-1"], "--peak-tflops -1"),
        (["--peak-tflops", "nan"], "--peak-tflops nan"),
        (["--parts", "train,memory"], "--parts memory"),
        (["--dtype", "int8"], "--dtype int8"),
        (["--device", "tpu"], "--device tpu"),
        (["--device", "gpu"], "none for torch"),
        (["--device", "cpu,cpu"], "twice"),
        (["--n-head", "5"], "--n-head 5"),
        (["--micro-batch-size", "0"], "--micro-batch-size 0"),
        (["--block-size", "3"], "--block-size 3"),
        (["--against", "nowhere.json"], "--against nowhere.json is missing"),
        (["--against", "README.md"], "is no result of python -m benchmarks"),
        (["--out", "README.md"], "--out README.md is a file"),
        (["--preset", "huge"], "--preset"),
    ],
)
def test_bad_input_is_one_line_and_code_2(monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr("benchmarks.command.workers", _no_work)
    assert call(monkeypatch, "benchmarks.command", "--preset", "tiny", *arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("error: ") and says in err and out == ""


def _no_work(_tasks: object) -> None:
    raise AssertionError("a worker was started before all input was checked")


@pytest.mark.parametrize(
    ("arguments", "package", "says"),
    [
        (["--backends", "torch"], "torch", "--backends torch needs the package torch"),
        (["--peers", "mlx-lm"], "mlx_lm", "--peers mlx-lm needs the package mlx_lm: pip install mlx-lm"),
    ],
)
def test_a_missing_package_is_one_line(monkeypatch, capsys, arguments, package, says):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest))
    assert call(monkeypatch, "benchmarks.command", *SMALL, *arguments) == 2
    assert says in capsys.readouterr().err
