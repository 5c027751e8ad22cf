"""docs/scale.md: its tables are what the command prints, its command lines parse; and the formulas by hand."""

import re
import shlex

import pytest
from commands import ROOT

from benchmarks import large
from gpt_core import plan
from gpt_core.flops import flops_per_token
from gpt_core.names import parameter_count

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_command() -> None:
    printed = re.search(r"<!-- benchmarks.large -->\n```\n(.*?)\n```", PAGE, re.DOTALL)
    assert printed and printed[1] == f"{large.sizes()}\n\n{large.days()}"


def test_the_formulas_by_hand() -> None:
    """10 parameters on 4 ranks: a ring sends 2 x 3/4 x 40 bytes; sharded and 3 micro-batches, 7 x 3/4 x 40."""
    assert large.all_reduce_bytes(10, 4) == 60 and large.all_reduce_bytes(10, 1) == 0
    assert large.sharded_bytes(10, 4, 3) == 210
    d, L, T, V = 1792, 24, 2048, 32_768
    assert parameter_count(large.MODEL) == V * d + T * d + L * (12 * d * d + 13 * d) + 2 * d
    assert flops_per_token(large.MODEL) == 6 * (parameter_count(large.MODEL) - T * d) + 12 * L * d * T
    eight = large.CLUSTERS[0]
    assert large.step_seconds(eight) == pytest.approx(flops_per_token(large.MODEL) * 8 * 32 * T / (8 * 989e12 * 0.4))
    assert large.wire_seconds(eight) == pytest.approx(2 * 7 / 8 * 4 * parameter_count(large.MODEL) / 450e9)
    assert large.wire_seconds(large.CLUSTERS[-1]) == 0


def test_the_command_lines_parse() -> None:
    lines = re.findall(r"-m (\w+_gpt)\.train(?: --)? (--[^.\n]*)$", PAGE, re.MULTILINE)
    assert len(lines) == 3
    for twin, flags in lines:
        plan.parser(twin, ("auto", "cpu")).parse_args(shlex.split(flags))
