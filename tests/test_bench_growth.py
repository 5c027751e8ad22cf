"""python -m benchmarks.growth: its arithmetic by hand, its files, and what it says to bad input."""

import dataclasses
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import call

from benchmarks import growth
from benchmarks.growth import Point, merged, middle, settings
from benchmarks.spec import Spec
from benchmarks.timing import Spread
from gpt_core.errors import InputError
from gpt_core.flops import flops_per_token, tokens_per_step

MINUTE = ["--context", "4,8", "--width", "16,32", "--batch", "1,2", "--n-layer", 1, "--vocab-size", 64, "--device", "cpu"]
MINUTE += ["--trial-seconds", 0.001]


def test_one_axis_is_varied_at_a_time() -> None:
    sizes = settings({"context": [128, 256, 512, 1024], "width": [64, 256, 768], "batch": [1, 2, 4, 8, 16]}, 3, 500)
    assert len(sizes) == 4 + 3 + 5
    found = {key: (m.block_size, m.n_embd, m.n_head, t.micro_batch_size, t.accumulation) for key, (m, t) in sizes.items()}
    assert found["context", 1024] == (1024, 256, 4, 4, 1)
    assert found["width", 64] == (256, 64, 1, 4, 1)
    assert found["batch", 16] == (256, 256, 4, 16, 1)
    assert found["context", 256] == found["width", 256] == found["batch", 4], "the middle is on every axis"
    assert all((m.n_layer, m.vocab_size) == (3, 500) for m, _ in sizes.values())
    assert [middle(axis) for axis in ((1, 2, 3, 4), (1, 2, 3))] == [2, 2]


class Exact:
    """A worker that reaches 1e9 FLOP/s at the middle and half of that at 8 sequences."""

    def __init__(self, spec: Spec, asked: list[str]):
        self.spec, self._asked, self.facts = spec, asked, {"chip": f"chip of {spec.engine}"}

    def ask(self, do: str, **arguments: int) -> dict:
        self._asked.append(f"{self.spec.engine} {do}")
        slow = 2 if self.spec.train.micro_batch_size == 8 else 1
        step = slow * flops_per_token(self.spec.model) * tokens_per_step(self.spec.model, self.spec.train) / 1e9
        answers: dict[str, dict] = {"warm_up": {"steps": 3}, "train": {"seconds": 3 * step}, "matmul": {"tflops": 0.004}}
        return answers[do]


def test_growth_by_hand() -> None:
    asked: list[str] = []

    @contextmanager
    def opened(specs: Sequence[Spec]) -> Iterator[list]:
        yield [Exact(spec, asked) for spec in specs]

    sizes = settings({"context": [16, 32], "width": [64], "batch": [2, 4, 8]}, 1, 100)
    tasks = {key: [Spec(twin, "cpu", "float32", *size, "") for twin in ("mlx", "torch")] for key, size in sizes.items()}
    points = growth.measure(tasks, tasks["batch", 4], 5, 0.1, lambda line: None, opened)
    by_name = {(p.twin, p.axis, p.value): p for p in points}
    assert len(by_name) == len(points) == 2 * 6
    long = by_name["mlx", "context", 32]
    assert long.flops_per_token == flops_per_token(sizes["context", 32][0])
    assert long.tokens_per_s.median == pytest.approx(1e9 / long.flops_per_token)
    assert (long.gflops, long.of_flops, long.matmul_gflops) == pytest.approx((1, 1, 4))
    assert (long.chip, by_name["torch", "width", 64].chip) == ("chip of mlx", "chip of torch")
    slow = by_name["torch", "batch", 8]
    assert (slow.gflops, slow.of_flops) == pytest.approx((0.5, 0.5))
    assert slow.step_ms == pytest.approx(1000 * 8 * 16 / slow.tokens_per_s.median)
    trained = [line for line in asked if line.endswith("train")]
    assert trained[:6] == ["mlx train", "torch train", "torch train", "mlx train", "mlx train", "torch train"]
    assert len(trained) == 2 * 5 * 4, "the middle is measured once for all axes"
    assert sum(line.endswith("matmul") for line in asked) == 2


def point(twin: str, axis: str, value: int, speed: float) -> Point:
    return Point(twin, "cpu", axis, value, Spread(speed, speed, speed), 1.0, 10, 1.0, 1.0, 2.0)


def test_new_points_replace_old_ones() -> None:
    old = [point("torch", "batch", 1, 1), point("mlx", "width", 64, 1), point("mlx", "context", 512, 1)]
    new = [point("mlx", "width", 64, 2), point("mlx", "batch", 16, 2), point("mlx", "batch", 2, 2)]
    found = [(p.twin, p.axis, p.value, p.tokens_per_s.median) for p in merged(old, new)]
    mlx = [("mlx", "context", 512, 1), ("mlx", "width", 64, 2), ("mlx", "batch", 2, 2), ("mlx", "batch", 16, 2)]
    assert found == [*mlx, ("torch", "batch", 1, 1)]


def test_points_of_another_chip_are_refused_before_any_are_measured() -> None:
    @contextmanager
    def opened(specs: Sequence[Spec]) -> Iterator[list]:
        yield [Exact(spec, []) for spec in specs]

    size = settings({"context": [16], "width": [64], "batch": [2]}, 1, 100)["batch", 2]
    centre = [Spec(twin, "cuda", "float32", *size, "") for twin in ("mlx", "torch")]
    old = [dataclasses.replace(point("mlx", "batch", 2, 1), chip="chip of mlx"), point("torch", "batch", 2, 1)]
    growth.refuse_other_chips(old, centre, opened)  # of the same, and of a file that does not say
    with pytest.raises(InputError, match="points of mlx on another, not on chip of mlx"):
        growth.refuse_other_chips([dataclasses.replace(old[0], chip="another")], centre, opened)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two runs, the second of which adds the axis that the first left out: the folder and the second's output."""
    folder = tmp_path_factory.mktemp("growth")
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.MonkeyPatch.context() as patch:
        monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")  # compiling for the CPU takes 15 s
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert call(monkeypatch, "benchmarks.growth", *MINUTE, "--vary", "context", "--out", folder) == 0
        patch.setattr(sys, "stdout", out := io.StringIO())
        (first,) = folder.glob("*.json")
        more = ["--backends", "mlx", "--vary", "batch", "--add", first, "--out", folder]
        assert call(monkeypatch, "benchmarks.growth", *MINUTE, *more) == 0
    return folder, out.getvalue()


def test_files_and_table(ran: tuple[Path, str]) -> None:
    folder, out = ran
    found = json.loads(out.splitlines()[-1])
    assert sorted(path.name.split("_")[1] for path in folder.glob("*.png")) == ["mlx", "torch"]
    (path,) = folder.glob("*.json")
    assert path.name.endswith(time.strftime("%Y") + path.name[-11:]) and json.loads(path.read_text()) == found
    names = [(p["twin"], p["axis"], p["value"]) for p in found["points"]]
    contexts, batches = (("context", 4), ("context", 8)), (("batch", 1), ("batch", 2))
    assert names == [("mlx", *at) for at in (*contexts, *batches)] + [("torch", *at) for at in contexts]
    for p in found["points"]:
        speed = p["tokens_per_s"]
        assert 0 < speed["low"] <= speed["median"] <= speed["high"]
        assert p["gflops"] == pytest.approx(p["flops_per_token"] * speed["median"] / 1e9)
        assert f"{p['twin']} {p['axis']} {p['value']} " in out
    middles = [p for p in found["points"] if (p["axis"], p["value"]) in (("context", 4), ("batch", 1))]
    assert all(p["of_flops"] == 1 for p in middles)
    assert "1 layers, vocabulary 64, float32; middle: context 4, width 16, batch 1" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--vary", "depth"], "--vary depth: choose among context, width, batch"),
        (["--context", "256,128"], "--context 256,128: give rising numbers"),
        (["--width", "0,64"], "--width 0,64"),
        (["--width", "256,400"], "--width 400 cannot be parted into 6 heads: give multiples of 64"),
        (["--batch", "a"], "--batch a"),
        (["--trials", "4"], "--trials 4: expected 5"),
        (["--trial-seconds", "nan"], "--trial-seconds nan"),
        (["--backends", "jax"], "--backends jax"),
        (["--device", "tpu"], "--device tpu"),
        (["--device", "auto,cpu"], "give one of each"),
        (["--dtype", "int8"], "--dtype int8"),
        (["--add", "nowhere.json"], "--add nowhere.json is missing"),
        (["--add", "README.md"], "--add README.md is no result of python -m benchmarks.growth"),
        (["--out", "README.md"], "--out README.md is a file"),
    ],
)
def test_bad_input_is_one_line_and_code_2(monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr(growth, "measure", None)
    assert call(monkeypatch, "benchmarks.growth", *MINUTE, *arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("error: ") and says in err and out == ""


def test_points_of_another_model_are_not_added(monkeypatch, capsys, tmp_path, ran):
    (path,) = ran[0].glob("*.json")
    monkeypatch.setattr(growth, "measure", None)
    assert call(monkeypatch, "benchmarks.growth", *MINUTE, "--n-layer", 2, "--add", path, "--out", tmp_path) == 2
    assert "has another n_layer, 1, not 2" in capsys.readouterr().err
    assert [field.name for field in dataclasses.fields(Point)][:4] == ["twin", "device", "axis", "value"]


def test_points_of_another_device_or_machine_are_not_added(monkeypatch, capsys, tmp_path, ran):
    (path,) = ran[0].glob("*.json")
    monkeypatch.setattr(growth, "measure", None)
    assert call(monkeypatch, "benchmarks.growth", *MINUTE, "--device", "auto", "--add", path, "--out", tmp_path) == 2
    assert "has mlx on --device cpu, not auto" in capsys.readouterr().err
    monkeypatch.setattr(growth.machine, "processor", lambda: "Another")
    assert call(monkeypatch, "benchmarks.growth", *MINUTE, "--add", path, "--out", tmp_path) == 2
    assert "has another processor" in capsys.readouterr().err
