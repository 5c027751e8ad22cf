"""The README's commands do what it says, and its files and pictures are there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, call

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands_after(marker: str) -> list[list[str]]:
    """The commands of the shell block that follows a comment in the README."""
    block = README.split(f"<!-- {marker} -->\n```bash\n")[1].split("```")[0]
    return [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]


def test_the_commands_by_hand_run_as_they_stand(tmp_path: Path) -> None:
    printed = ""
    commands = commands_after("run by tests/test_readme.py")
    assert len(commands) == 5
    for command in commands:
        assert command[0] == "python"
        done = subprocess.run(
            [sys.executable, *command[1:]],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "MLX_DISABLE_COMPILE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, (command, done.stderr)
        printed += done.stdout
    assert "val bpb" in printed and "واش راك" in printed and '"val_bpb"' in printed
    assert (tmp_path / "runs/demo/plots/loss.png").is_file()


def test_the_flags_of_the_full_run_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody downloads the dataset or trains 93M parameters here: trainers make a dry run, on the CPU."""
    monkeypatch.chdir(tmp_path)
    for command in commands_after("flags checked by tests/test_readme.py"):
        flags = [flag if flag != "mps" else "cpu" for flag in command[3:]]
        if command[2] == "data_prep":
            from data_prep.command import parser

            assert parser().parse_args(flags).source == ["hub"]
            continue
        assert call(monkeypatch, command[2], *flags, "--dry-run") == 0
        preset = flags[flags.index("--preset") + 1] if "--preset" in flags else "seed"
        parameters = {"seed": 93_313_536, "fast": 2_104_064, "best": 7_442_432}[preset]
        assert f'"parameters": {parameters}' in capsys.readouterr().out


@pytest.mark.parametrize("target", re.findall(r"\]\((?!#|https?:)([^)]+)\)", README))
def test_links_lead_to_files(target: str) -> None:
    assert (ROOT / target).is_file()


def test_every_package_of_the_file_tree_is_there_and_the_other_way_round() -> None:
    tree = README.split("## Files\n\n```\n")[1].split("```")[0]
    named = set(re.findall(r"^(\w+)/", tree, re.MULTILINE))
    there = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"tests", "docs"}
    assert named == there
