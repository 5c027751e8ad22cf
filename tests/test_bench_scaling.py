"""python -m benchmarks.scaling: what it refuses, how it starts ranks, and its figures from given times."""

import json
from pathlib import Path

import pytest
from commands import call

from benchmarks import scaling


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--ranks", "2,4"], "--ranks 2,4: give numbers parted by commas, 1 first"),
        (["--ranks", "1,x"], "--ranks 1,x"),
        (["--ranks", "1,3"], "which 3 ranks cannot share evenly"),
        (["--steps", "3"], "--steps 3"),
        (["--backends", "jax"], "--backends jax"),
        (["--data", "nowhere"], "data_prep --source sample"),
    ],
)
def test_bad_usage_is_one_line(
    flags: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "benchmarks.scaling", "--out", tmp_path, *flags) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and told in err and not list(tmp_path.iterdir())


def test_figures_by_hand(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """512 tokens a step: 100 ms on one rank is 5,120 tok/s, 80 and 64 ms on two are 7,200 between 6,400 and 8,000."""
    asked: list[tuple[str, int, int]] = []

    def trial(twin: str, ranks: int, threads: int, flags: list[str]) -> tuple[list[float], float]:
        asked.append((twin, ranks, threads))
        times = {1: [100.0, 100.0], 2: [80.0, 64.0]}[ranks]
        return [times[sum(other[1] == ranks for other in asked) - 1]] * 5, 7.5

    monkeypatch.setattr(scaling, "trial", trial)
    monkeypatch.setattr(scaling.os, "cpu_count", lambda: 8)
    flags = ["--backends", "torch", "--trials", "2", "--data", small_dataset, "--out", tmp_path]
    assert call(monkeypatch, "benchmarks.scaling", *flags) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    one, two = result["rows"]
    assert (one["threads"], two["threads"]) == (8, 4)
    assert one["tokens_per_s"] == {"median": pytest.approx(5120), "low": pytest.approx(5120), "high": pytest.approx(5120)}
    assert two["tokens_per_s"]["low"] == pytest.approx(6400) and two["tokens_per_s"]["high"] == pytest.approx(8000)
    assert two["against_1"] == pytest.approx(512 / 0.072 / 5120)
    assert asked == [("torch", 1, 8), ("torch", 2, 4), ("torch", 2, 4), ("torch", 1, 8)]
    assert (tmp_path / "scaling_tiny.png").stat().st_size > 5000 and json.loads(
        (tmp_path / "scaling_tiny.json").read_text()
    ) == result


def test_ranks_are_started_as_the_page_says() -> None:
    assert scaling.command("mlx", 1, ["--steps", "3"])[1:] == ["-m", "mlx_gpt.train", "--steps", "3"]
    assert scaling.command("torch", 2, ["--run", "x"])[-5:] == ["-m", "torch_gpt.train", "--", "--run", "x"]
    assert "mlx.launch -n 4 -- " in " ".join(scaling.command("mlx", 4, [])).split("bin/")[1]
