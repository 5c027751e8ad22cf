"""The whole comparison, stage by stage."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from compare import curves, forward
from compare.checks import Check
from compare.controls import CONTROLS, Control, meant_checks
from compare.curves import Curves
from compare.forward import Forward
from compare.generate import Sample, compare_generation
from compare.runs import Runs
from compare.setup import TRAINED_STEPS, Setup
from compare.sides import Twins
from gpt_core import checkpoint
from gpt_core.checkpoint import Checkpoint
from gpt_core.dataset import Dataset
from gpt_core.progress import bar
from gpt_core.tokens import load_tokenizer


@dataclass(frozen=True)
class Caught:
    """A negative control and the checks that failed with it."""

    name: str
    control: Control
    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """What found the mistake, those that are meant to first, then the ones most over their limit."""
        found = [check for check in self.checks if not check.passed]
        return sorted(found, key=lambda check: (not self.control.is_meant(check), check.margin))

    @property
    def found(self) -> bool:
        """Whether a check that is meant to find it did."""
        return any(self.control.is_meant(check) for check in self.failed)


@dataclass(frozen=True)
class Proof:
    """All that was found. `broken` is the control of --break, else `controls` holds each with its own checks."""

    forwards: list[Forward]
    curves: Curves
    samples: list[Sample]
    checks: list[Check]
    controls: list[Caught]
    broken: Caught | None
    trained_steps: int

    @property
    def passed(self) -> bool:
        """Every check passed, and every control that was tried was found."""
        return all(check.passed for check in self.checks) and all(caught.found for caught in self.controls)


Stage = Callable[[str], None]


@contextmanager
def stages(count: int) -> Iterator[Stage]:
    """A function that announces a stage: on a progress bar in a terminal, else as a line with the seconds so far."""
    begin = time.monotonic()
    with bar(total=count, desc="compare", unit="stage") as progress:

        def announce(name: str) -> None:
            if progress.disable:
                print(f"{time.monotonic() - begin:6.1f} s  {name}", flush=True)
            else:
                progress.set_postfix_str(name)
                progress.update()

        yield announce


def prove(setup: Setup, twins: Twins, runs: Runs | None, broken: str | None) -> Proof:
    """Runs all checks; with a name in `broken` the MLX twin has that mistake, else each mistake is tried afterwards."""
    checkpoints = [(run.name, run.checkpoint) for run in runs.all if run.checkpoint] if runs else []
    control = CONTROLS[broken] if broken else None
    with stages(5 + 2 * len(checkpoints) + (0 if broken else len(CONTROLS))) as stage:
        stage(f"PyTorch trains {TRAINED_STEPS} steps for the checks on trained weights")
        trained = setup.trained(twins.torch)
        with control.patch() if control else nullcontext():
            stage("forward and backward passes")
            tokens = setup.tokens()
            forwards = [
                forward.compare_forward(twins, forward.INITIAL, setup.config, setup.initial, tokens),
                forward.compare_scaled(twins, setup.config, setup.initial, tokens),
                forward.compare_forward(twins, forward.TRAINED, setup.config, trained, tokens),
            ]
            stage("training curves and hand-over")
            drawn = curves.train_curves(setup, twins)
            stage("generation")
            samples, generated = compare_generation(twins, forward.TRAINED, setup.config, trained, setup.dataset.tokenizer)
            for name, loaded in checkpoints:
                stage(f"forward and backward passes of {name}")
                forwards.append(_forward_of(name, loaded, setup.dataset, twins))
                stage(f"generation by {name}")
                tokenizer = load_tokenizer(loaded.folder / checkpoint.TOKENIZER)
                more, found = compare_generation(twins, name, loaded.model, loaded.weights, tokenizer)
                samples, generated = samples + more, generated + found
        checks = [check for result in forwards for check in result.checks] + drawn.checks() + generated
        controls = []
        for name, each in CONTROLS.items() if not control else ():
            stage(f"negative control: {each.mistake}")
            controls.append(Caught(name, each, meant_checks(each, setup, twins, drawn)))
        stage("report")
    caught = Caught(broken, control, checks) if broken and control else None
    return Proof(forwards, drawn, samples, checks, controls, caught, TRAINED_STEPS)


def _forward_of(name: str, loaded: Checkpoint, dataset: Dataset, twins: Twins) -> Forward:
    """A run's newest checkpoint on validation text, encoded anew: its tokenizer may be another one."""
    B, T = loaded.train.micro_batch_size, loaded.model.block_size
    text = dataset.tokenizer.decode(dataset.val.read(0, min(len(dataset.val), 4 * B * (T + 1))).tolist())
    ids = load_tokenizer(loaded.folder / checkpoint.TOKENIZER).encode(text, add_special_tokens=False).ids
    tokens = np.resize(np.array(ids, dtype=np.int32), (B, T + 1))
    return forward.compare_forward(twins, f"{name}, step {loaded.step}", loaded.model, loaded.weights, tokens)
