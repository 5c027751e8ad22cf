"""python tests/fault_points.py: every single file operation of a run, of data_prep and of weights.convert goes wrong once.

Each command is run once to count its operations (opens for writing, renames, removals, flushes) and then once for each of
them in a forked process, which

- kills itself just before it, is started again, is killed once more somewhere in its recovery, and started a last time;
- or (`--full`) finds the disk full from it on: it must end with exit code 2 and one line that names a file, leave nothing
  half-written, and the last good checkpoint that a run names must be whole; then it is started again.

What is there in the end must be byte for byte what an undisturbed run leaves.
"""

import argparse
import errno
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not outlive a fork

from helpers import ROWS, make_dataset
from weights_samples import write_run

from data_prep.options import Options
from data_prep.pipeline import prepare
from data_prep.sources import open_source
from gpt_core import checkpoint, cli, plan, plots, run
from gpt_core.curves import Curves
from gpt_core.init import initial_weights
from weights.convert import convert

WORDS = "--preset tiny --vocab-size 512 --block-size 16 --n-layer 1 --n-head 2 --n-embd 6 --micro-batch-size 2 --steps 6 "
WORDS += "--accumulation 1 --val-every 8 --checkpoint-every 2 --keep-last 1 --warmup-steps 0"
TAKES_ROOM = frozenset(("open", "fsync", "os.mkdir"))
CHANGES = TAKES_ROOM | {"os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
KILLED = -int(signal.SIGKILL)
NOT_MOVED = "latest names step_"
"""In the one warning there may be: a kill came after the new checkpoint was there, before `latest` named it."""
Work = Callable[[Path], None]


def watch(root: Path, fault_at: int, full: bool) -> list[str]:
    """Notes this process's file operations under `root`. Before operation `fault_at` (from 1) the process is killed;
    or, if `full`, that operation fails, and from then on all that take up room."""
    seen: list[str] = []
    fsync = os.fsync

    def operation(event: str, place: str | None = None) -> None:
        seen.append(event)
        here, later = len(seen) == fault_at, len(seen) > fault_at > 0
        if here and not full:
            os.kill(os.getpid(), signal.SIGKILL)
        if full and ((here and event in TAKES_ROOM | {"os.rename"}) or (later and event in TAKES_ROOM)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or (event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        place = arguments[0]
        inside_a_folder = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # rmtree names entries by their folder's fd
        if inside_a_folder or (isinstance(place, str | os.PathLike) and str(place).startswith(str(root))):
            operation(event, None if event == "open" else os.fspath(place))  # writing to what was opened names no file

    def flush(descriptor: int) -> None:
        operation("fsync")
        fsync(descriptor)

    sys.addaudithook(hook)
    vars(os).update(fsync=flush)
    return seen


def forked(work: Work, root: Path, fault_at: int = 0, full: bool = False) -> tuple[int, list[str], str]:
    """Exit code of `work` as a command in a process of its own, the operations it did, and its stderr."""
    process = os.fork()
    if process == 0:
        try:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(root.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            seen = watch(root, fault_at, full)
            try:
                cli.run(lambda: work(root))
            except SystemExit as end:
                sys.stderr.flush()
                (root.parent / "operations").write_text(json.dumps(seen))
                os._exit(int(end.code or 0))
        finally:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    done = json.loads((root.parent / "operations").read_text()) if code in (0, 2) else []
    return code, done, (root.parent / "err").read_text()


def quietly(work: Work, root: Path, fault_at: int = 0) -> list[str]:
    """The operations of `work`, killed or not; it must not complain of anything but a `latest` that was not moved yet."""
    code, done, said = forked(work, root, fault_at)
    assert code in (0, KILLED if fault_at else 0) and (not said or NOT_MOVED in said), (
        f"fault at {fault_at}, exit code {code}: {said}"
    )
    return done


def tree(root: Path) -> dict[str, bytes]:
    """Every file and folder under `root`."""
    return {path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))}


def refuse_room(work: Work, root: Path, fault_at: int) -> None:
    """Lets the disk be full from operation `fault_at` on, and checks how the command ends."""
    code, _, said = forked(work, root, fault_at, full=True)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, f"exit code {code}: {said}"
    assert str(root) in said and os.strerror(errno.ENOSPC) in said, said
    left = [path.name for path in root.rglob("*") if path.suffix in (".tmp", ".old")]
    assert not left, f"{left} left after: {said}"
    if work is train and "in use" not in said and "last good checkpoint: none" not in said:
        named = re.search(r"last good checkpoint: (\S+)", said)
        assert named, said
        checkpoint.load(Path(named[1]))


def every_point(work: Work, prepared: Path, stride: int, full: bool) -> int:
    """Lets every `stride`th operation of `work` go wrong, on copies of `prepared`; returns how many those were."""
    with TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"

        def anew() -> None:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(prepared, root)

        anew()
        operations = quietly(work, root)
        expected = tree(root)
        points = [
            number for number, event in enumerate(operations, start=1) if not full or event in TAKES_ROOM | {"os.rename"}
        ][::stride]
        for point in points:
            anew()
            if full:
                refuse_room(work, root, point)
            else:
                code, _, said = forked(work, root, point)
                assert code == KILLED, f"operation {point} of {len(operations)} was not reached: {said}"
                quietly(work, root, 1 + 7 * point % len(operations))  # killed again in its recovery, or done
            quietly(work, root)
            found = tree(root)
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            assert not differing, f"operation {point} of {len(operations)} went wrong: {differing}"
    return len(points)


def train(root: Path) -> None:
    """A run whose weights are those of its last step, without a framework; its plots are the numbers that they show."""
    vars(plots).update(loss_figure=SimpleFigure, grad_norm_figure=SimpleFigure)
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

    def savefig(self, path: Path, **_options: Any) -> None:
        """As of matplotlib's."""
        path.write_text(self._text)


def make_data(root: Path) -> None:
    """What `python -m data_prep --source FILE --out ... --overwrite` does after its checks."""
    options = Options(latin="keep", vocab_size=300, shards=3, val_fraction=0.3, test_fraction=0.1, seed=1)
    prepare(open_source([str(root / "rows.txt")]), root / "out", options)


def converted(to: str) -> Work:
    """`python -m weights.convert` of a checkpoint."""

    def work(root: Path) -> None:
        convert(root / "source", root / ("made.gguf" if to == "gguf" else "made"), to, overwrite=True)

    return work


def main() -> None:
    """Prints how many operations of each command went wrong, as one JSON object."""
    parser = argparse.ArgumentParser(description="Lets every file operation of the commands that write go wrong.")
    parser.add_argument("--full", action="store_true", help="the disk is full, instead of a kill")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth operation only")
    parser.add_argument("--control", action="store_true", help="runs do not recover from kills: the comparison must fail")
    arguments = parser.parse_args()
    if arguments.control:
        vars(run).update(_recover=lambda plan: None)
    figures = {}
    with TemporaryDirectory() as temporary:
        places = {name: Path(temporary) / name for name in ("run", "new", "again", "model")}
        make_dataset(places["run"] / "data")
        places["new"].mkdir()
        (places["new"] / "rows.txt").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
        shutil.copytree(places["new"], places["again"])
        make_dataset(places["again"] / "out")
        places["model"].mkdir()
        write_run(places["model"] / "source")
        commands: dict[str, tuple[Work, str]] = {
            "train": (train, "run"),
            "data_prep": (make_data, "new"),
            "data_prep --overwrite": (make_data, "again"),
        } | {f"convert --to {to}": (converted(to), "model") for to in ("twin", "hf", "gguf")}
        for name, (work, place) in commands.items():
            figures[name] = every_point(work, places[place], arguments.stride, arguments.full)
    print(json.dumps({"operations gone wrong": figures, "in all": sum(figures.values())}))


if __name__ == "__main__":
    main()
