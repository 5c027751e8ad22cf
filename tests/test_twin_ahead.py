"""The next step's numbers are made while a step is computed: which, when, and in which steps of the trainers."""

from pathlib import Path

import numpy as np
import pytest
from commands import call, train_flags
from twins import CONFIG, TWINS

from gpt_core.ahead import Ahead
from gpt_core.config import TrainConfig
from gpt_core.init import initial_weights


def test_every_step_once_and_in_order():
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return step * step

    plain, early = Ahead(make, range(3, 7)), Ahead(make, range(3, 7))
    assert [plain.next() for _ in range(4)] == [9, 16, 25, 36] and made == [3, 4, 5, 6]
    made.clear()
    for step in range(3, 7):
        assert early.next() == step * step
        early.prepare()
        early.prepare()
        assert made == [*range(3, min(step + 2, 7))], "one ahead and no more: memory for two"
    with pytest.raises(IndexError):
        early.next()


@pytest.mark.parametrize("name", TWINS)
def test_a_step_has_it_made_before_its_update(name: str) -> None:
    """Called once, with the weights as they were, and the step is the same as without."""
    train = TrainConfig(micro_batch_size=2, accumulation=2)
    batch = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 2, CONFIG.block_size + 1)).astype(np.int32)
    weights = initial_weights(CONFIG, 1)
    seen: list[bool] = []
    twin, alone = TWINS[name](weights, CONFIG, train), TWINS[name](weights, CONFIG, train)

    def look() -> None:
        seen.append(all((twin.weights()[key] == value).all() for key, value in weights.items()))

    assert twin.train_step(batch, 1e-3, None, look) == alone.train_step(batch, 1e-3)
    assert seen == [True]
    look()
    assert seen == [True, False], "the update has come since"
    assert all((value == alone.weights()[key]).all() for key, value in twin.weights().items())


@pytest.mark.parametrize("name", TWINS)
def test_the_trainers_find_every_batch_but_the_first_made(
    name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing would show that the device waits for the host: the losses are the same."""
    ready: list[int] = []
    take = Ahead.next

    def watched(self: Ahead) -> object:
        ready.append(len(self._ready))
        return take(self)

    monkeypatch.setattr(Ahead, "next", watched)
    assert call(monkeypatch, f"{name}_gpt.train", *train_flags(small_dataset, tmp_path / "run", "--steps", 4)) == 0
    assert ready == [0, 1, 1, 1]
