"""What is compared: model, recipe, data and initial weights, derived from a preset and a dataset."""

import contextlib
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compare.sides import Curve, Side, State
from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig, TrainConfig, presets
from gpt_core.dataset import MANIFEST, Dataset, open_dataset
from gpt_core.init import initial_weights
from gpt_core.loader import Loader

DEFAULT_DATA = Path("data/darija")
SAMPLE_VOCAB = 4000
STEPS, HALF = 40, 20
"""Optimizer steps of a curve, and the one after which training is handed over."""
TRAINED_STEPS = 160
"""Optimizer steps, by the preset's own recipe, that make the trained weights of the checks."""


@dataclass(frozen=True)
class Setup:
    """One model on one dataset. `calm` is the recipe of the curves, `lively` the one that makes trained weights."""

    config: GPTConfig
    calm: TrainConfig
    lively: TrainConfig
    dataset: Dataset
    initial: Arrays

    def start(self) -> State:
        """Where every curve begins."""
        return State(0, self.initial, {})

    def curve(self, side: Side, start: State, stops: list[int]) -> Curve:
        """Training by the calm recipe from `start` through `stops`, the schedule being that of STEPS steps."""
        loader = Loader(self.dataset.train, self.config, self.calm)
        return side.train(self.config, self.calm, start, loader.batch_at, stops, STEPS)

    def trained(self, side: Side) -> Arrays:
        """Weights after TRAINED_STEPS of the lively recipe."""
        loader = Loader(self.dataset.train, self.config, self.lively)
        curve = side.train(self.config, self.lively, self.start(), loader.batch_at, [TRAINED_STEPS], TRAINED_STEPS)
        return curve.states[TRAINED_STEPS].weights

    def tokens(self) -> np.ndarray:
        """The batch of the forward checks, (B, T+1) int32: the first of the curves."""
        batch = Loader(self.dataset.train, self.config, self.calm).batch_at(0)
        return batch.reshape(-1, batch.shape[-1])


def make_setup(preset: str, dataset: Dataset) -> Setup:
    """The preset, its vocabulary that of the data rounded up to a multiple of 256. Raises InputError for too little data."""
    config, train = presets()[preset]
    config = dataclasses.replace(config, vocab_size=-(-dataset.vocab_size // 256) * 256)
    lively = dataclasses.replace(train, steps=TRAINED_STEPS)
    Loader(dataset.train, config, lively)
    return Setup(config, calm_recipe(train), lively, dataset, initial_weights(config, train.seed))


def calm_recipe(train: TrainConfig) -> TrainConfig:
    """A recipe without loss spikes, which turn rounding into visible differences, and with everything to compare in it.

    Measured on `tiny` after 60 steps: at a learning rate of 2e-3 PyTorch differs from itself by 2e-2 nats if its initial
    weights are moved by 1e-7, at 5e-4 by 1e-6. Decay is strong enough to show; gradients are accumulated over two
    micro-batches wherever the preset's batch can be halved.
    """
    micro = train.micro_batch_size
    halved = train.accumulation == 1 and micro % 2 == 0
    return dataclasses.replace(
        train,
        micro_batch_size=micro // 2 if halved else micro,
        accumulation=2 if halved else train.accumulation,
        steps=STEPS,
        schedule="cosine",
        warmup_steps=10,
        lr=5e-4,
        min_lr=0.0,
        beta2=0.95,
        weight_decay=0.1,
        dtype="float32",
    )


def find_data(given: Path | None, out: Path) -> Dataset:
    """The dataset: the given one, else the default place's, else the embedded sample corpus, prepared in `out`/data."""
    if given is not None:
        return open_dataset(given)
    if (DEFAULT_DATA / MANIFEST).is_file():
        return open_dataset(DEFAULT_DATA)
    folder = out / "data"
    if not (folder / MANIFEST).is_file():
        from data_prep.command import main as data_prep

        with contextlib.redirect_stdout(sys.stderr):
            data_prep(["--source", "sample", "--out", str(folder), "--vocab-size", str(SAMPLE_VOCAB)])
    return open_dataset(folder)
