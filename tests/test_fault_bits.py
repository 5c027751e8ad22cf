"""One flipped bit in a dataset or in a checkpoint is found before anything is trained on it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call, train_flags
from fault_bits import falls_back, flip_bits, make_run, refused
from helpers import edit_json, flip, make_dataset
from twins import TWINS

from gpt_core import checkpoint
from gpt_core.dataset import open_dataset
from gpt_core.files import checksum

SCRIPT = Path(__file__).parent / "fault_bits.py"


def test_bits_of_every_file() -> None:
    """Every 37th bit; `python tests/fault_bits.py` flips all of them."""
    found = subprocess.run([sys.executable, SCRIPT, "--stride", "37"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    figures = json.loads(found.stdout.splitlines()[-1])
    assert figures["in all"] > 5000 and not figures["missed"]


def test_bits_of_a_manifest_without_a_checksum_are_missed(tmp_path: Path) -> None:
    """The control: version 1 of the manifest had none. It is still read."""
    data = make_dataset(tmp_path / "data")
    flipped, missed = flip_bits(data / "manifest.json", lambda: refused(lambda: open_dataset(data)), 7)
    assert flipped > 1000 and len(missed) > 50


def test_a_checksum_is_of_everything_else(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    edit_json(data / "manifest.json", lambda m: m.update(format_version=2))
    assert refused(lambda: open_dataset(data))
    edit_json(data / "manifest.json", lambda m: m.update(checksum=checksum(m)))
    assert open_dataset(data).manifest["format_version"] == 2
    edit_json(data / "manifest.json", lambda m: m["splits"]["train"].update(bytes=1))
    assert refused(lambda: open_dataset(data))


@pytest.mark.parametrize(
    ("latest", "step"), [("step_000005\n", 5), ("step_000007\n", 6), ("rubbish", 6), ("", 6), ("step_000006\x0b", 6)]
)
def test_a_damaged_latest_is_told(latest: str, step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert checkpoint.load_newest_intact(run, "--run").step == 6 and not capsys.readouterr().err
    (run / "latest").write_text(latest)
    assert checkpoint.load_newest_intact(run, "--run").step == step
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "latest" in said and f"going on from {run / f'step_{step:06d}'}" in said


def test_several_damaged_checkpoints(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for name in ("step_000006/state.json", "step_000005/model.safetensors"):
        flip(run / name, 40)
    assert falls_back(run) and checkpoint.load_newest_intact(run, "--run").step == 4


@pytest.mark.parametrize("name", TWINS)
def test_training_finds_what_was_damaged_meanwhile(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = make_dataset(tmp_path / "data"), tmp_path / "run"
    flags = train_flags(data, run, "--schedule", "constant", "--checkpoint-every", 2)
    assert call(monkeypatch, f"{name}_gpt.train", *flags, "--steps", 4) == 0
    (run / "latest").write_text("step_000\n")
    capsys.readouterr()
    assert call(monkeypatch, f"{name}_gpt.train", *flags, "--steps", 6) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"going on from {run / 'step_000004'}" in said
    for file in ("tokenizer.json", "darija_train_001.bin", "darija_val_000.bin"):
        before = (data / file).read_bytes()
        flip(data / file, len(before) // 2)
        assert call(monkeypatch, f"{name}_gpt.train", *flags, "--steps", 8) == 2
        assert file in capsys.readouterr().err
        (data / file).write_bytes(before)
