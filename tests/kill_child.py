"""python tests/kill_child.py FD MODULE ARGUMENTS...: a training command that says on pipe FD what it is doing.

One line as each phase begins ("checkpoint") and one as it ends ("checkpoint done"), so that a kill can be aimed at it.
Plots are drawn as often as they can be.
"""

import os
import runpy
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpt_core import checkpoint, plots, run
from gpt_core.validation import Validation


def announced(phase: str, function: Callable, pipe: int) -> Callable:
    """The function with a line before and a line after it."""

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        os.write(pipe, f"{phase}\n".encode())
        found = function(*arguments, **options)
        os.write(pipe, f"{phase} done\n".encode())
        return found

    return wrapped


def main() -> None:
    """Runs the module as `python -m` does."""
    pipe = int(sys.argv[1])
    sys.argv = sys.argv[2:]
    run.SECONDS_BETWEEN_PLOTS = 0.1
    for phase, owner, name in (
        ("checkpoint", checkpoint, "save"),
        ("validation", Validation, "measure"),
        ("plot", plots, "draw"),
        ("step", run.Run, "record"),
        ("start", run.Run, "start"),
    ):
        setattr(owner, name, announced(phase, getattr(owner, name), pipe))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
