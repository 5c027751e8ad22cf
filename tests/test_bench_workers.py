"""Workers: that timing measures what it claims, in which order they are asked, and that peers are the same model."""

import dataclasses
import gc
import importlib
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from test_bench_engines import MODEL, TRAIN, spec, write_random

from benchmarks import command, data_speed, generate_speed, train_speed
from benchmarks.pool import Turns, workers
from benchmarks.spec import MLX_DEVICES, TORCH_DEVICES, engines, from_json, specs
from benchmarks.work import Work
from benchmarks.worker import answer
from gpt_core.ahead import nothing
from gpt_core.config import GPTConfig
from gpt_core.errors import InputError


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("shard"))


class Clock:
    """A clock that only moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def fake_work(clock: Clock, step_s: float) -> Work:
    """Takes `step_s` a step, 0.125 s a batch, 1 s and 2 s for its parts."""

    def wait(amount: float, value: object = None) -> object:
        clock.now += amount
        return value

    return Work(
        chip="none",
        versions={},
        batch_at=lambda step: wait(0.125, np.array([step])),
        step=lambda batch, meanwhile=nothing: meanwhile() or wait(step_s, float(batch[0])),  # type: ignore[arg-type, return-value]
        peak_memory=lambda: 42,
        product=lambda n: lambda: None,
        generate=lambda prompt, count, clock: (len(prompt) * 1.0, 2.0, count),
        parts={"forward_backward": lambda: wait(1.0), "optimizer": lambda: wait(2.0)},
    )


def test_a_trial_is_its_steps_and_their_data_and_nothing_else():
    clock = Clock()
    work = fake_work(clock, 0.375)
    assert answer(work, {"do": "warm_up", "trial_s": 2.2}, clock) == {"first_loss": 0.0, "steps": 5}
    assert clock.now == 4 * 0.5, "warm-up ends once two seconds are over"
    trained: list[int] = []
    noting = dataclasses.replace(work, batch_at=lambda step: trained.append(step) or work.batch_at(step))  # type: ignore[func-returns-value]
    found = answer(noting, {"do": "train", "first": 7, "steps": 4}, clock)
    assert trained == [7, 8, 9, 10]
    assert (found["seconds"], found["peak_memory"]) == (4 * 0.5, 42) and found["resident"] > 2**20
    assert answer(work, {"do": "split", "first": 0}, clock) == {"data": 0.125, "forward_backward": 1.0, "optimizer": 2.0}


@pytest.mark.parametrize("name", ["mlx", "torch"])
def test_the_model_that_generates_is_not_there_in_training(name: str, shard: Path) -> None:
    """It would add its weights to the peak: models alive after generating was tried, and in the first step."""
    gpt = importlib.import_module(f"{name}_gpt.model").GPT

    def alive() -> int:
        gc.collect()
        return sum(type(value) is gpt for value in gc.get_objects())

    before, counted = alive(), []
    work = importlib.import_module(f"benchmarks.{name}_work").open_work(spec(name, shard))
    watched = dataclasses.replace(work, step=lambda *given: counted.append(alive() - before) or work.step(*given))  # type: ignore[func-returns-value]
    answer(watched, {"do": "generate", "prompt": 3, "tokens": 5, "vocab_size": MODEL.vocab_size}, time.perf_counter)
    assert alive() - before == 2
    answer(watched, {"do": "warm_up", "trial_s": 0.01}, time.perf_counter)
    assert set(counted) == {1}


def test_warm_up_is_three_steps_at_least():
    clock = Clock()
    assert answer(fake_work(clock, 100.0), {"do": "warm_up", "trial_s": 1.0}, clock)["steps"] == 1
    assert clock.now == 3 * 100.125


def test_a_step_that_sleeps_20_ms_is_measured_as_20_ms():
    """The real clock: never less, and more only by what a shared machine adds."""

    def step(_batch: np.ndarray, _meanwhile: object) -> float:
        time.sleep(0.02)
        return 0.0

    work = dataclasses.replace(fake_work(Clock(), 0.0), step=step)
    found = answer(work, {"do": "train", "first": 0, "steps": 10}, time.perf_counter)["seconds"] / 10
    assert 0.020 <= found < 0.040


def test_a_generation_that_ends_early_is_refused():
    work = dataclasses.replace(fake_work(Clock(), 1.0), generate=lambda prompt, count, clock: (1.0, 1.0, count - 1))
    with pytest.raises(InputError, match="after 4 of 5 tokens"):
        answer(work, {"do": "generate", "prompt": 3, "tokens": 5, "vocab_size": 9}, time.perf_counter)


class FakeWorker:
    """Answers as a worker would, and notes what it was asked."""

    def __init__(self, name: str, asked: list[tuple[str, str]], work: Work, clock: Clock, shard: Path):
        self.spec, self._asked, self._name = spec(name, shard), asked, name
        self._work, self._clock = work, clock
        self.facts = {"chip": work.chip, "versions": {}, "parts": list(work.parts)}

    def ask(self, do: str, **arguments: object) -> dict:
        self._asked.append((self._name, do))
        return answer(self._work, {"do": do, **arguments}, self._clock) if do != "matmul" else {"tflops": 1.0}


def test_workers_are_asked_in_turns(shard):
    clock = Clock()
    asked: list[tuple[str, str]] = []
    said: list[str] = []
    fakes = [FakeWorker("mlx", asked, fake_work(clock, 0.875), clock, shard)]
    fakes.append(FakeWorker("torch", asked, fake_work(clock, 1.875), clock, shard))
    rows = train_speed.measure(fakes, 5, 0.1, None, Turns(said.append), said.append)  # type: ignore[arg-type]
    assert [name for name, do in asked if do == "train"] == ["mlx", "torch", "torch", "mlx"] * 2 + ["mlx", "torch"]
    assert [name for name, do in asked if do == "warm_up"] == ["mlx", "torch"]
    assert asked.index(("torch", "warm_up")) < asked.index(("mlx", "train")), "everyone is warm before anyone is timed"
    assert asked.index(("mlx", "split")) > max(i for i, (_, do) in enumerate(asked) if do == "train")
    tokens = 6 * MODEL.block_size
    assert [(row.name, row.rate.median) for row in rows] == [("mlx cpu float32", tokens), ("torch cpu float32", tokens / 2)]

    asked.clear()
    rows = generate_speed.measure(fakes, 5, Turns(said.append), said.append)  # type: ignore[arg-type]
    assert [name for name, _ in asked][:6] == ["mlx", "torch", "torch", "mlx", "mlx", "torch"] and len(asked) == 12
    assert [(row.part, row.rate.median) for row in rows[:2]] == [("prefill", 1.0), ("decode", 7 / 2)]


@pytest.mark.parametrize("fails_at", ["warm_up", "train", "split", "matmul", "generate"])
def test_who_fails_in_the_trials_is_left_out_and_the_others_are_measured(shard, fails_at):
    """One of three fails at its second request of a kind, or its only one; the two others have all their figures."""
    asked: list[tuple[str, str]] = []
    said: list[str] = []

    class Failing(FakeWorker):
        def ask(self, do: str, **arguments: object) -> dict:
            found = super().ask(do, **arguments)
            if do == fails_at and (asked.count(("torch", do)) > 1 or do in ("warm_up", "matmul")):
                raise InputError("torch cpu float32: out of memory")
            return found

    kinds = {"mlx": FakeWorker, "torch": Failing, "nanogpt": FakeWorker}
    clock = Clock()
    fakes = [kind(name, asked, fake_work(clock, 1.0), clock, shard) for name, kind in kinds.items()]
    turns = Turns(said.append)
    rows = train_speed.measure(fakes, 5, 0.1, None, turns, said.append)  # type: ignore[arg-type]
    rows += generate_speed.measure(fakes, 5, turns, said.append)  # type: ignore[arg-type]
    assert turns.failed == {"torch cpu float32": "torch cpu float32: out of memory"}
    assert said.count("left out: torch cpu float32: out of memory") == 1
    measured = [(row.part, row.name.split(" ")[0]) for row in rows]
    trained = ["mlx", "torch", "nanogpt"] if fails_at == "generate" else ["mlx", "nanogpt"]
    expected = [("train", name) for name in trained]
    assert measured == expected + [(part, name) for name in ("mlx", "nanogpt") for part in ("prefill", "decode")]
    requests = [do for name, do in asked if name == "torch"]
    assert requests[-1] == fails_at, "who has failed is asked no more"
    assert len([do for name, do in asked if (name, do) == ("nanogpt", "train")]) == 5


def test_if_all_fail_the_reason_is_the_error(shard, monkeypatch):
    def fail(_do: str, **_arguments: object) -> dict:
        raise InputError("mlx cpu float32: out of memory")

    fakes = [FakeWorker("mlx", [], fake_work(Clock(), 1.0), Clock(), shard)]
    monkeypatch.setattr(fakes[0], "ask", fail)
    monkeypatch.setattr(command, "workers", lambda _tasks: nullcontext(fakes))
    with pytest.raises(InputError, match="out of memory"):
        command.measure([fakes[0].spec], ["train"], 5, 0.1, None)


def test_who_cannot_generate_says_so_before_anyone_is_timed(shard, monkeypatch):
    asked: list[tuple[str, str]] = []
    unable = dataclasses.replace(fake_work(Clock(), 1.0), generate=lambda prompt, count, clock: (1.0, 1.0, count - 1))
    fakes = [
        FakeWorker("mlx", asked, fake_work(Clock(), 1.0), Clock(), shard),
        FakeWorker("torch", asked, unable, Clock(), shard),
    ]
    monkeypatch.setattr(command, "workers", lambda _tasks: nullcontext(fakes))
    with pytest.raises(InputError, match="leave out --parts generate"):
        command.measure([fake.spec for fake in fakes], ["train", "generate"], 5, 0.1, None)
    assert asked == [("mlx", "generate"), ("torch", "generate")]


def test_prompt_and_new_tokens_fit_the_context():
    assert generate_speed.lengths(GPTConfig()) == (256, 64)
    assert generate_speed.lengths(MODEL) == (8, 8)
    assert generate_speed.lengths(GPTConfig(block_size=5)) == (2, 3)


def test_devices_are_those_of_the_twins():
    """The parent process cannot ask the twins, since it loads no framework."""
    assert importlib.import_module("torch_gpt.device").DEVICES == TORCH_DEVICES
    assert importlib.import_module("mlx_gpt.device").DEVICES == MLX_DEVICES


def test_a_task_goes_to_the_worker_and_back(shard):
    task = spec("nanogpt", shard, Path("x"))
    assert from_json(task.to_json()) == task


def test_tasks_are_engines_by_dtypes_by_fitting_devices(shard):
    made = specs({"mlx": None, "torch": None}, "gpu,cpu,mps", "float32,bfloat16", MODEL, TRAIN, shard)
    labels = [task.label for task in made]
    assert labels[:4] == ["mlx gpu float32", "mlx cpu float32", "torch cpu float32", "torch mps float32"]
    assert len(labels) == 8 and all(task.train.dtype == task.dtype for task in made)


LOUD = "import sys; input(); print('{\"parts\": []}', flush=True); input(); sys.exit('it broke')"


def test_a_worker_that_dies_is_one_line(shard):
    stopped = pytest.raises(InputError, match=r"torch cpu float32 ended with code 1: it broke")
    with workers([spec("torch", shard)], [sys.executable, "-c", LOUD]) as (worker,), stopped:
        worker.ask("train")


KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
EXHAUSTED = """
from benchmarks import worker
def import_module(name):
    raise RuntimeError("CUDA out of memory")
worker.importlib.import_module = import_module
worker.main()
"""


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (KILLED, "was ended by SIGKILL, as the system does where memory runs out: measure fewer engines"),
        (EXHAUSTED, r"torch cpu float32: out of memory \(CUDA out of memory\): measure fewer engines"),
        ("import os; print('half a word', file=__import__('sys').stderr, flush=True); os.abort()", "SIGABRT: half a word"),
    ],
)
def test_out_of_memory_is_one_line_with_what_to_do(shard, program, says):
    stopped = pytest.raises(InputError, match=says)
    with stopped, workers([spec("torch", shard)], [sys.executable, "-c", program]):
        pass


def test_a_worker_that_cannot_start_says_why(shard):
    task = dataclasses.replace(spec("torch", shard), device="cuda" if not _cuda() else "mps")
    with pytest.raises(InputError, match=r"is not available to torch"), workers([task]):
        pass


def _cuda() -> bool:
    return bool(importlib.import_module("torch").cuda.is_available())


def test_data_stages():
    clock = Clock()

    def tick() -> float:  # every stage takes one second
        clock.now += 1.0
        return clock.now

    rows = {(row.name, row.unit): row for row in data_speed.measure(1, tick, copies=1)}
    assert [name for name, unit in rows if unit == "rows/s"] == ["reading", "cleaning", "tokenizer", "encoding", "shards"]
    read, encoded = rows["reading", "rows/s"], rows["encoding", "rows/s"]
    assert read.rate.median == read.details["rows"] > 2000 and encoded.rate.median == encoded.details["rows"] > 1500
    assert rows["encoding", "tok/s"].rate.median == pytest.approx(rows["encoding", "tok/s"].details["tokens"])


def test_engines_from_flags(tmp_path):
    (tmp_path / "model.py").write_text("")
    assert engines("torch,mlx", None) == {"torch": None, "mlx": None}
    assert engines("torch", f"nanogpt={tmp_path}") == {"torch": None, "nanogpt": str(tmp_path.resolve())}
