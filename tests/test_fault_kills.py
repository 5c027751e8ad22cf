"""SIGKILL: at aimed moments of training in each twin, and before the single file operations of every command that writes.

The long versions are `python tests/kill_test.py --kills 100` and `python tests/fault_points.py`; docs/faults.md has
their figures.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_test import PHASES, kill_and_compare

from gpt_core.errors import InputError
from gpt_core.files import new_file, new_folder, recover_folders

SCRIPT = Path(__file__).parent / "fault_points.py"
STRIDE = 11
forks = pytest.mark.skipif(sys.platform != "linux", reason="forks, after which the libraries of macOS may not be used")


@pytest.mark.parametrize(("name", "kills"), [("mlx", len(PHASES)), ("torch", 3)])  # starting torch takes two seconds
def test_killed_training_goes_on_exactly(name: str, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    figures = kill_and_compare(name, kills, tmp_path / "out")
    assert figures["survived"] == kills


@forks
def test_killed_before_every_file_operation() -> None:
    found = subprocess.run([sys.executable, SCRIPT, "--stride", str(STRIDE)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["in all"] > 300 // STRIDE


@forks
def test_without_recovery_something_is_left_behind() -> None:
    """The control of the test above."""
    found = subprocess.run([sys.executable, SCRIPT, "--control"], capture_output=True, text=True, check=False)
    assert found.returncode == 1 and "AssertionError: operation" in found.stderr


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_two_processes_never_write_the_same_thing(tmp_path: Path, new: Callable) -> None:
    """The lock goes along when the result is renamed into place, and ends with its owner."""
    path = tmp_path / "x"
    with new(path) as beside:
        with pytest.raises(InputError, match=r"x is being written by another process"), new(path):
            pass
        recover_folders(tmp_path)
        assert beside.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    with new(path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


HOLD = """
import os, sys, time
from pathlib import Path
from gpt_core.files import new_folder
with new_folder(Path(sys.argv[1])) as beside:
    (beside / "half").touch()
    print("holding", flush=True)
    time.sleep(600)
"""


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "x"], cwd=SCRIPT.parents[1], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "holding\n"
    try:
        with pytest.raises(InputError, match="another process"), new_folder(tmp_path / "x"):
            pass
    finally:
        process.kill()
        process.communicate()
    with new_folder(tmp_path / "x") as beside:
        assert list(beside.iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
