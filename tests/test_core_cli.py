"""Command lines: a flag for every field, and one line and exit code 2 for whatever is wrong."""

import argparse
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_core import evaluation, generation, plan
from gpt_core.cli import Parser, add_config_flags, flag, overrides, run
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError

ROOT = Path(__file__).parents[1]
FIELDS = [field for config in (GPTConfig, TrainConfig) for field in dataclasses.fields(config)]


@pytest.fixture
def parser():
    made = Parser(prog="python -m x")
    add_config_flags(made, GPTConfig, TrainConfig)
    return made


def test_every_field_is_a_flag_with_its_help(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    text = parser.format_help()
    for field in FIELDS:
        assert f"--{field.name.replace('_', '-')} " in text and field.metadata["help"] in text, field.name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--n-layer", "3"], ("n_layer", 3)),
        (["--steps", "7"], ("steps", 7)),
        (["--lr", "1e-4"], ("lr", 1e-4)),
        (["--lr=2"], ("lr", 2.0)),
        (["--dtype", "bfloat16"], ("dtype", "bfloat16")),
        (["--schedule", "cosine"], ("schedule", "cosine")),
        (["--document-mask"], ("document_mask", True)),
        (["--no-document-mask"], ("document_mask", False)),
    ],
)
def test_flags_have_the_type_of_their_field(parser, words, expected):
    found = vars(parser.parse_args(words))
    assert found == dict([expected]) and type(found[expected[0]]) is type(expected[1])


def test_only_given_flags_override(parser):
    args = parser.parse_args(["--n-layer", "3", "--steps", "9"])
    assert (overrides(args, GPTConfig), overrides(args, TrainConfig)) == ({"n_layer": 3}, {"steps": 9})
    assert flag("val_batches") == "--val-batches"


@pytest.mark.parametrize(
    "words",
    [
        ["--n-layer", "x"], ["--n-layer", "1.5"], ["--n-layer"], ["--lr", "fast"], ["--dtype", "float64"], ["--n-lay", "3"],
        ["--unknown"], ["word"], ["--schedule", "CONSTANT"], ["--lr", "1\n2"],
        pytest.param(["two\nlines"]),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_exit_code_2(parser, capsys, words):
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(words)
    out, err = capsys.readouterr()
    assert leaving.value.code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("(see python -m x --help)\n")


@pytest.mark.parametrize("parser_of", [plan.parser, generation.parser, evaluation.parser])
def test_help_of_every_command_is_whole(parser_of, capsys):
    with pytest.raises(SystemExit) as leaving:
        parser_of("mlx_gpt", ("auto", "cpu")).parse_args(["--help"])
    assert leaving.value.code == 0 and "usage: python -m mlx_gpt." in capsys.readouterr().out


def outcome(main: Callable[[], int | None], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as leaving:
        run(main)
    return leaving.value.code, capsys.readouterr().err


def raises(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("--lr 5 is\nwrong"), "error: --lr 5 is wrong\n"),
        (FileNotFoundError(2, "No such file or directory", "a.bin"), "error: a.bin: No such file or directory\n"),
        (OSError(28, "No space left on device"), "error: disk: No space left on device\n"),
        (OSError("odd"), "error: disk: odd\n"),
        (BrokenPipeError(32, "Broken pipe"), "error: the output was closed before the command ended\n"),
        (KeyboardInterrupt(), "error: interrupted\n"),
    ],
)
def test_outcomes_for_the_user_are_one_line_and_exit_code_2(error, line, capsys):
    assert outcome(raises(error), capsys) == (2, line)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_of_a_command_that_ended(returned, code, capsys):
    assert outcome(lambda: returned, capsys) == (code, "")


def test_a_bug_is_not_disguised_as_bad_input():
    with pytest.raises(ZeroDivisionError):
        run(raises(ZeroDivisionError()))


def command(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_bad_usage_of_a_real_command():
    done = command("-m", "torch_gpt.train", "--n-layer", "x")
    line = "error: argument --n-layer: invalid int value: 'x' (see python -m torch_gpt.train --help)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--n-embd", "770"], "--n-embd 770 is not a multiple of --n-head 12"),
        (["--data", "/nowhere"], "--data /nowhere does not exist: make the data with python -m data_prep"),
        (["--peak-tflops", "-1"], "--peak-tflops -1.0"),
    ],
)
def test_bad_input_of_a_real_command(words, part):
    done = command("-m", "mlx_gpt.train", "--device", "cpu", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {part}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("length", [5, 1_000_000])
def test_a_closed_pipe_is_one_line_however_much_was_written(length):
    read, write = os.pipe()
    os.close(read)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    script = f"from gpt_core import cli; cli.run(lambda: print('x' * {length}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (2, b"error: the output was closed before the command ended\n")


def test_configuration_flags_do_not_hide_one_another():
    """argparse would raise for two flags of one name; a field of both configurations would be set in both."""
    assert len({field.name for field in FIELDS}) == len(FIELDS)
    assert isinstance(plan.parser("x", ("auto",)), argparse.ArgumentParser)
