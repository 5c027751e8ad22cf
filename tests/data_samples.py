"""Made-up rows for the tests of data_prep, and the command as it must refuse."""

import random
import re
from pathlib import Path

import pytest

from data_prep.command import main
from gpt_core.cli import run

ROOT = Path(__file__).parents[1]
LETTERS = "ابتجحدرسشعفقكلمنهوي"
SMALL = ["--vocab-size", "400", "--shards", "5"]


def corpus(rows, seed=0):
    """`rows` different rows of made-up words, each with its number in it."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 6))) for _ in range(300)]
    words = [re.sub(r"(.)\1+", r"\1ا", word) for word in words]  # no stretched letters
    return [f"{' '.join(draw.choices(words, k=draw.randint(1, 12)))} {i}" for i in range(rows)]


def write(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def refused(arguments, capsys):
    """Runs the command, which must end with code 2 and one line on stderr; returns that line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(lambda: main(arguments))
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]
