"""A run folder while it is written: metrics, plots, checkpoints, and the wish to stop."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
from filelock import FileLock, Timeout

from gpt_core import checkpoint, memory, metrics, plots
from gpt_core.checkpoint import Arrays
from gpt_core.curves import Curves
from gpt_core.dataset import MANIFEST
from gpt_core.errors import InputError, describe_os_error
from gpt_core.files import flush_to_disk, naming, recover_folders, sha256, write_text
from gpt_core.flops import mfu, tokens_per_step
from gpt_core.init import initial_weights
from gpt_core.metrics import Record, TensorBoard
from gpt_core.plan import Plan
from gpt_core.progress import bar
from gpt_core.ranks import ALONE, Ranks, together

SECONDS_BETWEEN_PLOTS = 20.0
SECONDS_BETWEEN_LINES = 5.0
STEPS_TO_KNOW_THE_SPEED = 10
LONG_RUN_SECONDS = 1800.0


class Run:
    """Keeps the records of a run and writes its files; made by `open_run`."""

    def __init__(self, plan: Plan, versions: dict[str, str], ranks: Ranks = ALONE):
        self._decide(plan, ranks)
        self._versions = versions | _base(plan)
        self._tensorboard = TensorBoard(self.folder / "tensorboard", plan.first_step) if plan.tensorboard else None
        write_text(self.folder / checkpoint.CONFIG, checkpoint.config_json(plan.model, plan.train))
        write_text(self.folder / MANIFEST, (plan.dataset.folder / MANIFEST).read_text(encoding="utf-8"))
        metrics.keep_until(self._metrics, plan.first_step)
        self._curves = Curves(record for record, _ in metrics.records_of(self._metrics))
        self._plotted = self._printed = time.monotonic()
        self._bar = bar(total=plan.total_steps, initial=plan.first_step, desc=self.folder.name, unit="step")

    def _decide(self, plan: Plan, ranks: Ranks) -> None:
        self._plan, self._ranks, self.folder = plan, ranks, plan.run
        self._saved = plan.first_step if plan.start else None
        self.stop_signal: str | None = None
        self._asked, self._launcher = 0, os.getppid()

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def last_good(self) -> str:
        """Name of the newest checkpoint, for messages."""
        return "none" if self._saved is None else str(checkpoint.step_folder(self.folder, self._saved))

    def start(self) -> tuple[Arrays, Arrays]:
        """Weights and moments to start from; a new run has no moments. The plan, which lives on, lets go of them."""
        begin = self._plan.start or self._plan.init
        if begin is None:
            return initial_weights(self._plan.model, self._plan.train.seed), {}
        weights, moments = dict(begin.weights), dict(begin.moments)
        begin.weights.clear()
        begin.moments.clear()
        return weights, moments

    def record(self, step: int, loss: float, lr: float, norm: float, seconds: float, memory: int) -> Record:
        """The record of optimizer step `step` (1-based); refuses a loss or norm that is not finite."""
        metrics.refuse_non_finite(loss, norm, step, lr, self.last_good)
        plan = self._plan
        tokens = tokens_per_step(plan.model, plan.train)
        speed = tokens / seconds
        peak = plan.peak_tflops * self._ranks.size if plan.peak_tflops else None
        values = (
            step,
            round(step / plan.loader.steps_per_epoch, 4),
            step * tokens,
            loss,
            lr,
            norm,
            metrics.clipped_norm(norm, plan.train.grad_clip),
            round(1000 * seconds, 3),
            round(speed, 2),
            round(100 * mfu(plan.model, speed, peak), 2) if peak else None,
            round(memory / 2**30, 4),
        )
        return dict(zip(metrics.FIELDS, values, strict=True))

    def validates(self, step: int) -> bool:
        """Whether validation follows optimizer step `step` (1-based)."""
        return step % self._plan.train.val_every == 0 or step == self._plan.total_steps

    def log(self, record: Record) -> None:
        """Writes a record and shows it."""
        metrics.append(self._metrics, record)
        self._curves.add(record)
        if self._tensorboard:
            self._tensorboard.write(record)
        last = record["step"] == self._plan.total_steps
        now = time.monotonic()
        if "val_loss" in record or last or now - self._printed > SECONDS_BETWEEN_LINES:
            self._printed = now
            self._bar.write(metrics.console_line(record), file=sys.stdout)
            sys.stdout.flush()
        if record["step"] - self._plan.first_step == STEPS_TO_KNOW_THE_SPEED:
            self._advise(record)
        self._bar.set_postfix_str(f"loss {record['loss']:.3f}, {record['tokens_per_s']:.0f} tok/s", refresh=False)
        self._bar.update()
        if now - self._plotted > SECONDS_BETWEEN_PLOTS:
            self._plotted = now
            plots.draw(self._curves, self.folder / "plots")

    def _advise(self, record: Record) -> None:
        if sys.platform == "darwin" and self._seconds_left(record) > LONG_RUN_SECONDS:
            command = f"caffeinate -s -w {os.getpid()}"
            self._bar.write(f"a long run: `{command}` in another window keeps a Mac on its charger awake", file=sys.stdout)

    def _seconds_left(self, record: Record) -> float:
        return (self._plan.total_steps - record["step"]) * record["step_ms"] / 1000

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows optimizer step `step` (1-based)."""
        plan = self._plan
        return step % plan.train.checkpoint_every == 0 or step == plan.total_steps or self.stop_signal is not None

    def save(self, step: int, weights: Arrays, moments: Arrays) -> None:
        """Writes the checkpoint of `step` optimizer steps done."""
        plan = self._plan
        flush_to_disk(self._metrics)  # the records of a checkpoint's steps are there if it is
        checkpoint.save(
            run=self.folder,
            model=plan.model,
            train=plan.train,
            step=step,
            tokens=step * tokens_per_step(plan.model, plan.train),
            weights=weights,
            moments=moments,
            tokenizer=plan.dataset.folder / checkpoint.TOKENIZER,
            manifest_sha256=plan.dataset.manifest_sha256,
            versions=self._versions,
        )
        self._saved = step

    def finish(self) -> None:
        """Draws the last plots and says where everything is."""
        self._bar.close()
        if self._tensorboard:
            self._tensorboard.close()
        plots.draw(self._curves, self.folder / "plots")
        if self.stop_signal:
            print(f"stopped by {self.stop_signal}; checkpoint: {self.last_good}; {_same_command(self._plan)} goes on from it")
        else:
            print(f"done; checkpoint: {self.last_good}; plots: {self.folder / 'plots'}")

    def ask_to_stop(self, number: int, _frame: FrameType | None) -> None:
        """Signal handler: the step that runs is finished and saved; a second signal ends the process at once."""
        self._asked = number
        signal.signal(number, signal.SIG_DFL)

    def heed(self) -> None:
        """Makes a signal to any rank, or the end of their launcher, known to all, so that they stop after the same step."""
        if self._ranks.size > 1 and os.getppid() != self._launcher:
            self._asked = self._asked or signal.SIGHUP
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the launcher read it)
        asked = [number for number in self._ranks.gather(np.array([self._asked], np.int32))[:, 0] if number]
        self.stop_signal = signal.Signals(asked[0]).name if asked else None


class Follower(Run):
    """The run on every rank but the first: the same decisions, and nothing written."""

    def __init__(self, plan: Plan, ranks: Ranks):
        self._decide(plan, ranks)

    def log(self, record: Record) -> None:
        """Rank 0 writes it."""

    def save(self, step: int, weights: Arrays, moments: Arrays) -> None:
        """Rank 0 writes it."""
        self._saved = step

    def finish(self) -> None:
        """Rank 0 tells."""


@contextmanager
def open_run(plan: Plan, versions: dict[str, str], ranks: Ranks = ALONE) -> Iterator[Run]:
    """A run whose SIGINT and SIGTERM mean: finish the step, save, stop. Only rank 0 writes.

    Where disk or memory fail, InputError names the last good checkpoint.
    """
    with ExitStack() as stack:

        def begin() -> Run:
            if ranks.rank:
                return Follower(plan, ranks)
            stack.enter_context(_naming_last_good(plan))
            stack.enter_context(locked(plan.run))
            _recover(plan)
            return Run(plan, versions, ranks)

        run = together(ranks, begin)
        before = {number: signal.signal(number, run.ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield run
            run.finish()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _naming_last_good(plan: Plan) -> Iterator[None]:
    """Turns what a disk, the memory or the system did to a run into an InputError that names its last good checkpoint."""
    try:
        yield
    except BrokenPipeError:  # of stdout
        raise
    except OSError as error:
        reason = f"{describe_os_error(error)}; put that right, then {_same_command(plan)} goes on"
        raise InputError(f"{reason}; {_last_good(plan.run)}") from error
    except (RuntimeError, MemoryError) as error:
        explained = memory.explain(error, plan.model, plan.train)
        if explained is None:
            raise
        raise InputError(f"{explained}; {_last_good(plan.run)}") from error


def _base(plan: Plan) -> dict[str, str]:
    """What the weights began with, if --init-from gave them: the hash of its model file, from checkpoint to checkpoint."""
    if plan.init is not None:
        return {checkpoint.INIT_FROM: sha256(plan.init.folder / checkpoint.MODEL)}
    known = plan.start.versions if plan.start else {}
    return {checkpoint.INIT_FROM: known[checkpoint.INIT_FROM]} if checkpoint.INIT_FROM in known else {}


def _same_command(plan: Plan) -> str:
    """What goes on with a run: --init-from begins one, and is refused where checkpoints are."""
    begun = plan.init is not None and bool(checkpoint.step_folders(plan.run))
    return "the same command without --init-from" if begun else "the same command"


def _last_good(folder: Path) -> str:
    try:
        return f"last good checkpoint: {checkpoint.find(folder, '--run')}"
    except InputError:
        return "last good checkpoint: none"


def _recover(plan: Plan) -> None:
    """Ends what a killed process had begun: half a checkpoint, half a plot, the removal of an old checkpoint."""
    for folder in (plan.run, plan.run / "plots"):
        if folder.is_dir():
            recover_folders(folder)
    checkpoint.keep_newest(plan.run, plan.first_step, plan.train.keep_last)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in `folder`. The lock is the system's: it ends with its process."""
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / ".lock")
    with naming(folder / ".lock"):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"--run {folder} is in use by another process: wait for it to end, or choose another folder"
            ) from error
    try:
        yield
    finally:
        lock.release()
