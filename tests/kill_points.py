"""python tests/kill_points.py: SIGKILL before every single file operation of a run, of data_prep and of weights.convert.

Each command is run once to count its operations (opens for writing, renames, removals, flushes) and then once for each of
them, in a forked process that kills itself just before it. Then it is started again, killed once more somewhere in its
recovery, and started a last time: what is there then must be byte for byte what an undisturbed run leaves.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not outlive a fork

from helpers import ROWS, make_dataset
from weights_samples import write_run

from data_prep.pipeline import Options, prepare
from data_prep.sources import open_source
from gpt_core import plan, plots, run
from gpt_core.curves import Curves
from gpt_core.init import initial_weights
from weights.convert import convert

WORDS = "--preset tiny --vocab-size 512 --block-size 16 --n-layer 1 --n-head 2 --n-embd 6 --micro-batch-size 2 --steps 6 "
WORDS += "--accumulation 1 --val-every 8 --checkpoint-every 2 --keep-last 1 --warmup-steps 0"
CHANGES = frozenset(("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"))
Work = Callable[[Path], None]


def watch(root: Path, kill_at: int) -> SimpleNamespace:
    """Counts this process's file operations under `root`, and ends it by SIGKILL before operation `kill_at` (from 1)."""
    seen = SimpleNamespace(count=0)
    fsync = os.fsync

    def operation() -> None:
        seen.count += 1
        if seen.count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES and not (event == "open" and int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        place = arguments[0]
        inside_a_folder = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # rmtree names entries by their folder's fd
        if inside_a_folder or (isinstance(place, str | os.PathLike) and str(place).startswith(str(root))):
            operation()

    def flush(descriptor: int) -> None:
        operation()
        fsync(descriptor)

    sys.addaudithook(hook)
    vars(os).update(fsync=flush)
    return seen


def forked(work: Work, root: Path, kill_at: int = 0) -> int | None:
    """Operations of `work` in a process of its own, or None if it was killed. Raises if it failed or said something."""
    counted, told = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            said = os.open(root.parent / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            seen = watch(root, kill_at)
            work(root)
            os.write(told, str(seen.count).encode())
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(told)
    status = os.waitpid(process, 0)[1]
    answer = os.read(counted, 100)
    os.close(counted)
    output = (root.parent / "said").read_text()
    if os.WIFSIGNALED(status):
        return None
    if status or "warning" in output:
        raise AssertionError(f"killed before operation {kill_at}, then: {output}")
    return int(answer)


def tree(root: Path) -> dict[str, bytes]:
    """Every file and folder under `root`; `latest` and all else as bytes."""
    return {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))}


def every_point(work: Work, prepared: Path, stride: int) -> int:
    """Kills `work` before its operations, every `stride`th one, on copies of `prepared`; returns how many that were."""
    with TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"

        def anew() -> None:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(prepared, root)

        anew()
        count = forked(work, root)
        assert count is not None
        expected = tree(root)
        for kill_at in range(1, count + 1, stride):
            anew()
            assert forked(work, root, kill_at) is None, f"operation {kill_at} of {count} was not reached"
            forked(work, root, 1 + 7 * kill_at % count)  # killed again in its recovery, or done
            forked(work, root)
            found = tree(root)
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            assert not differing, f"killed before operation {kill_at} of {count}: {differing}"
    return len(range(1, count + 1, stride))


def train(root: Path) -> None:
    """A run whose weights are those of its last step, without a framework; its plots are the numbers that they show."""
    SimpleFigure.install()
    run.SECONDS_BETWEEN_PLOTS = -1.0
    words = ["--data", str(root / "data"), "--run", str(root / "run"), *WORDS.split(" ")]
    ready = plan.make_plan(plan.parser("torch_gpt", ("cpu",)).parse_args(words), "torch_gpt", None)
    with run.open_run(ready, {}) as running:
        weights, _ = running.start()
        for step in range(ready.first_step + 1, ready.total_steps + 1):
            running.log(running.record(step, 5.0 - step / 10, 1e-3, 2.0, 0.25, 3 * 2**29))
            weights = initial_weights(ready.model, step)
            if running.saves(step):
                running.save(step, weights, {f"{name}.{m}": value for name, value in weights.items() for m in "mv"})


class SimpleFigure:
    """Stands for a figure of matplotlib, which takes a tenth of a second: the points as text."""

    def __init__(self, curves: Curves):
        self._text = repr([curves.loss.points, curves.norm.points])

    @classmethod
    def install(cls) -> None:
        """Makes `plots.draw` write texts."""
        vars(plots).update(loss_figure=cls, grad_norm_figure=cls)

    def savefig(self, path: Path, **_options: Any) -> None:
        """As of matplotlib's."""
        path.write_text(self._text)


def make_data(root: Path) -> None:
    """What `python -m data_prep --source FILE --out ... --overwrite` does after its checks."""
    prepare(open_source([str(root / "rows.txt")]), root / "out", Options("keep", 300, 3, 0.3, 1))


def main() -> None:
    """Prints before how many operations each command was killed, as one JSON object."""
    parser = argparse.ArgumentParser(description="SIGKILL before every file operation of the commands that write.")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="kill before every Nth operation only")
    parser.add_argument("--control", action="store_true", help="train without recovery: the comparison must fail")
    arguments = parser.parse_args()
    stride = arguments.stride
    if arguments.control:
        vars(run).update(_recover=lambda plan: None)
    figures = {}
    with TemporaryDirectory() as temporary:
        prepared = Path(temporary)
        make_dataset(prepared / "run" / "data")
        figures["train"] = every_point(train, prepared / "run", stride)

        (prepared / "new").mkdir()
        (prepared / "new" / "rows.txt").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
        figures["data_prep"] = every_point(make_data, prepared / "new", stride)
        shutil.copytree(prepared / "new", prepared / "again")
        make_dataset(prepared / "again" / "out")
        figures["data_prep --overwrite"] = every_point(make_data, prepared / "again", stride)

        (prepared / "model").mkdir()
        write_run(prepared / "model" / "source")
        for to in ("twin", "hf", "gguf"):
            name = "made.gguf" if to == "gguf" else "made"

            def work(root: Path, to: str = to, name: str = name) -> None:
                convert(root / "source", root / name, to, overwrite=True)

            figures[f"convert --to {to}"] = every_point(work, prepared / "model", stride)
    print(json.dumps({"killed before": figures, "points": sum(figures.values())}))


if __name__ == "__main__":
    main()
