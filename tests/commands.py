"""Commands as a user starts them, in this process (fast) or in one of their own (for signals)."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_core import cli

ROOT = Path(__file__).parents[1]
SMALL = ["--vocab-size", "512", "--block-size", "16", "--n-layer", "2", "--n-head", "2", "--n-embd", "24"]
SMALL += ["--micro-batch-size", "3", "--accumulation", "2"]
"""A model that trains in milliseconds a step."""


def call(monkeypatch: pytest.MonkeyPatch, module: str, *arguments: object) -> int:
    """Runs `python -m module arguments` in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.run(importlib.import_module(module).main)
    return int(ended.value.code or 0)


def train_flags(data: Path, run: Path, *more: object) -> list[object]:
    """Flags of a small training run on the CPU."""
    return ["--preset", "tiny", "--data", data, "--run", run, "--device", "cpu", *SMALL, "--val-every", 5, *more]


def start(module: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts `python -m module arguments` as a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
