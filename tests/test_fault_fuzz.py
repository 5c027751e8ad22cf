"""Damaged files for every reader: InputError or a value, never a traceback, a hang or gigabytes.

`python tests/fuzz_readers.py --inputs 2000` is the long version; docs/faults.md has its figures.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_readers import Target, attempt

from gpt_core.errors import InputError

SCRIPT = Path(__file__).parent / "fuzz_readers.py"
GROWTH_LIMIT_MIB = 200  # measured over 2,000 inputs: 20


def test_every_reader() -> None:
    found = subprocess.run([sys.executable, SCRIPT, "--inputs", "250"], capture_output=True, text=True, check=False)
    figures = json.loads(found.stdout)
    assert found.returncode == 0, figures
    assert figures["readers"] >= 25 and figures["refused"] > figures["read"] > 0
    assert figures["grown_mib"] < GROWTH_LIMIT_MIB


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [(InputError("a.json is no file of ours"), "refused"), (KeyError("n"), "KeyError: 'n'"), (MemoryError(), "MemoryError: ")],
)
def test_what_a_reader_raises_is_told_apart(raised: Exception, outcome: str, tmp_path: Path) -> None:
    """The control."""

    def read(_folder: Path) -> None:
        raise raised

    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "a.json").write_text('{"n": 1}')
    assert attempt(Target(tmp_path / "whole", "a.json", read), tmp_path / "damaged", 1)[0] == outcome
