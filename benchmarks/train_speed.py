"""Training speed: trials in turns, then the parts of a step and the matmul peak, each on its own."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.pool import Turns, Worker
from benchmarks.roofline import predicted_ms
from benchmarks.rows import Row
from benchmarks.timing import rounds, spread
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.flops import mfu, tokens_per_step
from gpt_core.peaks import nominal_tflops

SPLIT_TRIALS = 5
SAME_LOSS = {"float32": 1e-3, "bfloat16": 1e-2, "float16": 1e-2}
"""Nats a token by which first losses may differ. On the same weights the libraries were apart by 1e-5 in float32 and 1e-3 in
bfloat16. Fresh weights give ln V almost whatever the model, so a wider limit would find nothing."""

Say = Callable[[str], None]


def measure(
    workers: Sequence[Worker], trials: int, trial_s: float, peak_tflops: float | None, turns: Turns, say: Say
) -> list[Row]:
    """A row for each worker that does not fail; a trial is as many steps as fill `trial_s` seconds.

    `peak_tflops` overrides the nominal peak of every chip.
    """
    warm = []
    for worker in workers:
        answer = turns.ask(worker, "warm_up", trial_s=trial_s)
        warm.append(answer or {})
        if answer:
            say(f"{worker.spec.label} is warm, {answer['steps']} steps a trial")
    found: list[list[dict[str, Any]]] = [[] for _ in workers]
    for number, order in enumerate(rounds(len(workers), trials), 1):
        for index in order:
            worker, steps = workers[index], warm[index].get("steps", 0)
            answer = turns.ask(worker, "train", first=len(found[index]) * steps, steps=steps)
            if answer is None:
                continue
            found[index].append(answer)
            speed = steps * tokens_per_step(worker.spec.model, worker.spec.train) / answer["seconds"]
            say(f"training, trial {number} of {trials}: {worker.spec.label} {speed:,.0f} tok/s")
    splits: list[list[dict[str, float]]] = [[] for _ in workers]
    for trial in range(SPLIT_TRIALS + 1):
        for index, worker in enumerate(workers):
            parts = turns.ask(worker, "split", first=trial) if worker.facts["parts"] else {}
            if trial:  # the first one compiles
                splits[index].append(parts or {})
    made = []
    for index, worker in enumerate(workers):
        matmul = turns.ask(worker, "matmul")
        if matmul:
            made.append(
                row(
                    worker.spec.model,
                    worker.spec.train,
                    facts(worker),
                    warm[index],
                    found[index],
                    splits[index],
                    matmul["tflops"],
                    peak_tflops,
                )
            )
    return made


def facts(worker: Worker) -> dict[str, Any]:
    """What a worker is and what it computes on."""
    spec = worker.spec
    known = {"engine": spec.engine, "device": spec.device, "dtype": spec.dtype}
    return known | {"chip": worker.facts["chip"], "versions": worker.facts["versions"]}


def row(
    model: GPTConfig,
    train: TrainConfig,
    facts: dict[str, Any],
    warm: dict[str, Any],
    trials: Sequence[dict[str, Any]],
    splits: Sequence[dict[str, float]],
    matmul_tflops: float,
    peak_tflops: float | None,
) -> Row:
    """The answers of one worker as figures. MFU is a percentage at the median speed, None without a nominal peak."""
    tokens = tokens_per_step(model, train)
    step = spread([trial["seconds"] / warm["steps"] for trial in trials])
    rate = step.rate(tokens)
    nominal = peak_tflops or nominal_tflops(facts["chip"], train.dtype)
    parts = {name: 1000 * statistics.median(split[name] for split in splits) for name in splits[0]}
    return Row(
        "train",
        " ".join(facts[key] for key in ("engine", "device", "dtype")),
        "tok/s",
        rate,
        facts
        | {
            "steps_per_trial": warm["steps"],
            "first_loss": warm["first_loss"],
            "step_ms": step.scaled(1000),
            "split_ms": parts or None,
            "nominal_tflops": nominal,
            "mfu_nominal_pct": 100 * mfu(model, rate.median, nominal) if nominal else None,
            "matmul_tflops": matmul_tflops,
            "mfu_matmul_pct": 100 * mfu(model, rate.median, matmul_tflops),
            "peak_mem_gib": max(trial["peak_memory"] for trial in trials) / 2**30,
            "peak_rss_gib": max(trial["resident"] for trial in trials) / 2**30,
            "predicted_ms": predicted_ms(model, train, facts["chip"]),
        },
    )


def strangers(rows: Sequence[Row]) -> list[str]:
    """Names of the training rows whose first loss, on the same weights and batch, is not that of the first row."""
    told = [row for row in rows if row.details["first_loss"] is not None]
    limits = [max(SAME_LOSS[row.details["dtype"]], SAME_LOSS[told[0].details["dtype"]]) for row in told]
    expected = told[0].details["first_loss"] if told else None
    return [row.name for row, limit in zip(told, limits, strict=True) if abs(row.details["first_loss"] - expected) > limit]
