"""Several checkpoints whose probabilities are averaged: by hand, in both twins, and refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call, train_flags
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.scoring import averaged

TOKENS = np.zeros((2, 3), dtype=np.int32)


def saying(probabilities: list[list[float]]) -> Any:
    """A scoring function that gives the targets these probabilities."""
    return lambda _inputs, _targets: -np.log(np.array(probabilities, dtype=np.float32))


def test_probabilities_are_averaged_not_nats() -> None:
    """1/2 and 1/8 make 5/16; a certain model and one at 1e-30 make 1/2, where the mean of nats would be e^-34."""
    members = [saying([[0.5, 1.0, 0.25]] * 2), saying([[0.125, 1e-30, 0.25]] * 2)]
    expected = -np.log([[5 / 16, 0.5, 0.25]] * 2)
    np.testing.assert_allclose(averaged(members)(TOKENS, TOKENS), expected, rtol=1e-6)
    assert averaged(members[:1]) is members[0]


@given(st.lists(st.floats(0.0, 200.0), min_size=2, max_size=5))
def test_an_ensemble_lies_between_its_members(nats: list[float]) -> None:
    members = [lambda _inputs, targets, n=n: np.full(targets.shape, n) for n in nats]
    found = averaged(members)(TOKENS, TOKENS)
    assert (
        found.min() == found.max() and min(nats) - 1e-9 <= found[0, 0] <= min(max(nats), min(nats) + np.log(len(nats))) + 1e-9
    )


@pytest.fixture(scope="module")
def runs(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of other seeds, and one of another context."""
    folders = [tmp_path_factory.mktemp("ensemble") / name for name in ("one", "two", "short")]
    with pytest.MonkeyPatch.context() as patch:
        for folder, flags in zip(folders, (["--seed", 1], ["--seed", 2], ["--block-size", 8]), strict=True):
            assert call(patch, "torch_gpt.train", *train_flags(small_dataset, folder, "--steps", 3, *flags)) == 0
    return folders


@pytest.mark.parametrize("name", ["mlx", "torch"])
def test_a_command_scores_an_ensemble(
    name: str, runs: list[Path], small_dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, short = runs

    def bits(*flags: object) -> tuple[float, dict[str, Any]]:
        capsys.readouterr()
        assert call(monkeypatch, f"{name}_gpt.evaluate", "--data", small_dataset, "--device", "cpu", *flags) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found["val_bpb"], found

    alone = [bits("--checkpoint", run)[0] for run in (one, two)]
    assert bits("--checkpoint", one, "--ensemble", one)[0] == pytest.approx(alone[0], rel=1e-6)
    together, said = bits("--checkpoint", one, "--ensemble", two)
    assert together < max(alone) and together not in alone and [Path(p).parent for p in said["ensemble"]] == [two]
    assert (
        call(monkeypatch, f"{name}_gpt.evaluate", "--data", small_dataset, "--checkpoint", one, "--ensemble", two, short) == 2
    )
    assert f"--ensemble {short} has another tokenizer or another block_size (8)" in capsys.readouterr().err
