"""python -m benchmarks.worker: one engine in a process of its own.

Reads lines of JSON from stdin, the first a task (benchmarks/spec.py), then one request a line, and answers each with one
line of JSON; whatever libraries print goes to stderr.
"""

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peaks import measured_tflops
from benchmarks.spec import ENGINES, from_json
from benchmarks.timing import Clock, seconds
from benchmarks.work import Work, resident
from gpt_core.ahead import Ahead
from gpt_core.errors import InputError
from gpt_core.memory import cause

Answer = dict[str, Any]

WARM_STEPS = (3, 10)
"""Fewest and most warm-up steps; between them, as many as fit into WARM_S."""
WARM_S = 2.0


def answer(work: Work, request: dict[str, Any], clock: Clock) -> Answer:
    """Does what one request asks, {"do": ...} with its arguments, and says how long it took."""
    kinds: dict[str, Callable[..., Answer]] = {
        "warm_up": warm_up,
        "train": train,
        "split": split,
        "matmul": matmul,
        "generate": generate,
    }
    return kinds[request.pop("do")](work, clock, **request)


def warm_up(work: Work, clock: Clock, trial_s: float) -> Answer:
    """The first steps, not counted: they compile, allocate and raise the clock.

    Answers the loss of the very first, and how many steps like the last one fill a trial of `trial_s` seconds.
    """
    work.forget()  # generating was tried first
    fewest, most = WARM_STEPS
    begin = clock()
    losses: list[float] = []
    taken = 0.0
    while len(losses) < fewest or (len(losses) < most and clock() - begin < WARM_S):
        taken = seconds(lambda: losses.append(work.step(work.batch_at(len(losses)))), clock)
    first = losses[0] if math.isfinite(losses[0]) else None
    return {"first_loss": first, "steps": max(1, math.ceil(trial_s / taken))}


def train(work: Work, clock: Clock, first: int, steps: int) -> Answer:
    """Seconds of `steps` optimizer steps from batch `first` on, data included, and the peak memory so far in bytes.

    As in the trainers, an engine that leaves its host time to make the next batch meanwhile gets it.
    """
    batches = Ahead(work.batch_at, range(first, first + steps))
    taken = seconds(lambda: [work.step(batches.next(), batches.prepare) for _ in range(steps)], clock)
    return {"seconds": taken, "peak_memory": work.peak_memory(), "resident": resident()}


def split(work: Work, clock: Clock, first: int) -> Answer:
    """Seconds of each part of a step on its own, the device waited for after each."""
    data = seconds(lambda: work.batch_at(first), clock)
    return {"data": data} | {name: seconds(part, clock) for name, part in work.parts.items()} if work.parts else {}


def matmul(work: Work, clock: Clock) -> Answer:
    """The matmul peak, 1e12 FLOP/s."""
    return {"tflops": measured_tflops(work.product, clock)}


def generate(work: Work, clock: Clock, prompt: int, tokens: int, vocab_size: int) -> Answer:
    """Seconds of reading `prompt` tokens up to the first new one, and of those after it, at batch 1."""
    if work.generate is None:
        return {}
    ids = np.random.default_rng(0).integers(1, vocab_size, prompt).tolist()
    prefill, decode, count = work.generate(ids, tokens, clock)
    if count < tokens:
        raise InputError(f"the untrained model ended its row after {count} of {tokens} tokens: leave out --parts generate")
    return {"prefill": prefill, "decode": decode, "decoded": count - 1}


def main() -> None:
    """Serves requests until stdin ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spec = from_json(sys.stdin.readline())
    try:
        work: Work = importlib.import_module(ENGINES[spec.engine].module).open_work(spec)
        print(json.dumps({"chip": work.chip, "versions": work.versions, "parts": list(work.parts)}), file=replies)
        for line in sys.stdin:
            print(json.dumps(answer(work, json.loads(line), time.perf_counter)), file=replies)
    except (InputError, ImportError) as error:
        print(json.dumps({"error": str(error)}), file=replies)
    except (RuntimeError, MemoryError) as error:
        reason = cause(error)
        if reason is None:
            raise
        remedy = "measure fewer engines and dtypes at once, or a smaller model or batch"
        print(json.dumps({"error": f"{reason}: {remedy}"}), file=replies)


if __name__ == "__main__":
    main()
