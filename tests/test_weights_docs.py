"""The commands of docs/weights.md run as they are written there, on a small model in the places that it names."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from weights_samples import ROOT, SENTENCES, run_command

TEXT = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
COMMANDS += re.findall(r"\| `(python -m [^`]*)` \|", TEXT)
SMALL = ["--n-layer", "1", "--n-head", "1", "--n-embd", "64", "--vocab-size", "512", "--steps", "4", "--warmup-steps", "1"]
FEW = ["--val-batches", "1", "--val-every", "4", "--block-size", "32", "--micro-batch-size", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data/sample and runs/tiny-mlx, as the page takes them for granted."""
    folder = tmp_path_factory.mktemp("docs")
    rows = [f"{sentence} {number}" for number in range(60) for sentence in SENTENCES]
    (folder / "rows.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    made = ["--source", folder / "rows.txt", "--out", folder / "data" / "sample", "--vocab-size", "400", "--shards", "4"]
    made += ["--skip-rules", "near_duplicate,leak"]  # the rows differ by a number
    assert (done := run_command("data_prep", *made)).returncode == 0, done.stderr
    trained = ["--preset", "tiny", "--data", folder / "data" / "sample", "--run", folder / "runs" / "tiny-mlx", *SMALL, *FEW]
    (folder / "runs").mkdir()
    assert (done := run_command("torch_gpt.train", *trained)).returncode == 0, done.stderr
    return folder


def run_line(line, place):
    """A line of the page in `place`; the trainer gets the small model's sizes on top."""
    words = shlex.split(line)
    if words[2:3] == ["torch_gpt.train"]:
        words += SMALL + FEW
    program = [sys.executable, "-m", "mlx_lm", words[0].split(".")[1]] if words[0].startswith("mlx_lm.") else [sys.executable]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*program, *words[1:]], cwd=place, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_conversions_and_fine_tuning(place):
    lines = [line for line in COMMANDS if "weights.convert" in line and "ckpt.pt" not in line and "gguf" not in line]
    lines += [line for line in COMMANDS if "torch_gpt.train" in line]
    assert len(lines) == 3
    for line in lines:
        done = run_line(line, place)
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize("tool", ["transformers", "llama_cpp", "mlx_lm"])
def test_tools(place, tool):
    if tool == "mlx_lm":
        pytest.importorskip("mlx_lm")
        lines = [line for line in COMMANDS if re.match(r"mlx_lm\.(generate|convert)", line)]
    elif tool == "llama_cpp":
        pytest.importorskip("llama_cpp")
        lines = [line for line in dict.fromkeys(COMMANDS) if line.startswith("python") and "gguf" in line]
    else:
        pytest.importorskip("transformers")
        lines = [line for line in COMMANDS if "weights.check" in line and "gguf" not in line]
        shutil.rmtree(place / "exports" / "darija", ignore_errors=True)
    if not (place / "exports" / "darija").exists():
        first = next(line for line in COMMANDS if line.endswith("exports/darija --to hf"))
        assert run_line(first, place).returncode == 0
    assert lines
    for line in lines:
        done = run_line(line, place)
        assert done.returncode == 0, (line, done.stderr)
