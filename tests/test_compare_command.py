"""python -m compare as people call it: exit codes, the last line, bad input, a twin that is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from compare_samples import SMALL_PRESETS, record, write_run

from compare.command import main
from compare.controls import CONTROLS
from gpt_core.errors import InputError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def small_presets(monkeypatch):
    """The preset `tiny` with a smaller model."""
    monkeypatch.setattr("compare.setup.presets", lambda: SMALL_PRESETS)


def run_main(capsys, *arguments):
    """Exit code, the JSON of the last line, and all of stdout."""
    code = main([str(argument) for argument in arguments])
    output = capsys.readouterr().out
    return code, json.loads(output.rstrip("\n").split("\n")[-1]), output


def compare_process(*arguments, code="from compare.__main__ import main, run; run(main)", timeout=500):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    settings = {"MLX_DISABLE_COMPILE": "1", "PYTHONPATH": str(ROOT)}
    settings["OMP_NUM_THREADS"] = "1"  # on a busy machine two threads of a small model mostly wait for each other
    environment = os.environ | settings
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)


@pytest.mark.usefixtures("small_presets")
def test_the_twins_agree_and_every_control_is_found(capsys, small_dataset, tmp_path):
    code, result, output = run_main(capsys, "--data", small_dataset, "--out", tmp_path / "out")
    assert code == 0 and result["passed"] and result["broken"] is None
    assert all(check["passed"] and check["value"] <= check["limit"] for check in result["checks"])
    assert {name: control["found"] for name, control in result["controls"].items()} == dict.fromkeys(CONTROLS, True)
    assert {"PyTorch", "MLX"} == set(result["tokens_per_s"])
    assert "The twins agree" in output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "report.md", "losses.png", "grad_norms.png"}


@pytest.mark.parametrize("name", ["gelu", "decay", "moments"])  # one for each kind of check; test_compare_proof has all
@pytest.mark.usefixtures("small_presets")
def test_break_ends_with_1_and_names_the_check(capsys, small_dataset, tmp_path, name):
    code, result, output = run_main(capsys, "--data", small_dataset, "--out", tmp_path, "--break", name)
    assert code == 1 and not result["passed"] and result["broken"] == name
    assert result["controls"][name]["found"]
    assert result["caught_by"][0].startswith(CONTROLS[name].meant_for)
    assert "was found by the check meant for it" in output


@pytest.mark.usefixtures("small_presets")
def test_finished_runs_are_laid_over_and_put_through_both_twins(capsys, small_dataset, tmp_path):
    first = write_run(tmp_path / "first", [record(step) for step in range(1, 8)])
    second = write_run(tmp_path / "second", [record(step) for step in (1, 2, 5)], tokenizer_size=300)
    out = tmp_path / "out"
    code, result, _ = run_main(capsys, "--data", small_dataset, "--out", out, "--runs", first, second)
    assert code == 0
    sections = {check["section"] for check in result["checks"]}
    assert {"forward, first, step 7", "forward, second, step 3", "generate, first", "generate, second"} <= sections
    assert any("losses in nats a token are left out" in note for note in result["left_out"])
    assert any("2 steps have no record" in note for note in result["left_out"])
    assert (out / "runs_loss.png").is_file() and (out / "runs_bpb.png").is_file()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "losses in nats a token are left out" in page


@pytest.mark.usefixtures("small_presets")
def test_without_data_the_sample_corpus_is_prepared(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, _ = run_main(capsys, "--out", "out")
    assert code == 0 and (tmp_path / "out" / "data" / "manifest.json").is_file()


def test_the_tiny_preset_as_a_process(small_dataset, tmp_path):
    done = compare_process("--preset", "tiny", "--data", small_dataset, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.rstrip("\n").split("\n")[-1])["passed"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--runs", "nowhere"], "--runs nowhere does not exist"),
        (["--out", "file"], "--out file is a file"),
        (["--break", "nothing"], "--break"),
        (["--preset", "huge"], "--preset"),
        (["--runs"], "--runs"),
        (["extra"], "extra"),
    ],
)
def test_bad_input_is_one_line_and_2(tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    done = compare_process(*arguments)
    assert done.returncode == 2
    assert expected in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("blocked", "other"), [("mlx", "torch"), ("torch", "mlx")])
def test_a_missing_twin_is_one_line_and_2(small_dataset, tmp_path, blocked, other):
    code = f"import sys; sys.modules[{blocked!r}] = None\nfrom compare.__main__ import main, run; run(main)"
    done = compare_process("--data", small_dataset, "--out", tmp_path / "out", code=code)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: not compared: forward passes, training curves, hand-over and generation")
    assert f"{blocked} cannot be imported" in done.stderr and "pip install" in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_too_little_data_is_refused(small_dataset, tmp_path, monkeypatch):
    import dataclasses

    config, train = SMALL_PRESETS["tiny"]
    monkeypatch.setattr("compare.setup.presets", lambda: {"tiny": (config, dataclasses.replace(train, micro_batch_size=9999))})
    with pytest.raises(InputError, match="training tokens"):
        main(["--data", str(small_dataset), "--out", str(tmp_path / "out")])


def test_help_needs_neither_twin():
    code = "import sys; sys.modules['mlx'] = sys.modules['torch'] = None\nfrom compare.__main__ import main, run; run(main)"
    done = compare_process("--help", code=code)
    assert done.returncode == 0 and all(name in done.stdout for name in CONTROLS)
