"""The commands of docs/metric.md have the flags that they are shown with, and its fields are those of the JSON line."""

import importlib
import re
import shlex

import numpy as np
import pytest
from commands import ROOT

from gpt_core import evaluation
from gpt_core.dataset import open_dataset

TEXT = (ROOT / "docs" / "metric.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command):
    words = shlex.split(command, comments=True)
    assert words[:2] == ["python", "-m"]
    if words[2].endswith(".evaluate"):
        parser = evaluation.parser(words[2].split(".")[0], ("auto",))
    else:
        parser = importlib.import_module(words[2]).parser()
    parser.parse_args(words[3:])


def test_the_fields_are_those_of_the_json_line(small_dataset):
    dataset = open_dataset(small_dataset)
    scores = evaluation.evaluate(dataset.val, dataset.tokenizer, 16, lambda x, y: np.ones(y.shape, dtype=np.float32))
    fields = set(evaluation.figures(*scores, [("a", 4), ("b", 6)])) - {"confidence"} | {"against"}
    named = {name for line in re.findall(r"^\| (`\w+`.*?) \|", TEXT, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)}
    assert fields <= named


@pytest.mark.parametrize("target", re.findall(r"\]\((?!#|https?:)([^)]+)\)", TEXT))
def test_links_lead_to_files(target):
    assert (ROOT / "docs" / target).is_file()
