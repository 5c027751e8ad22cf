"""Generation speed at batch 1 with the KV cache: prefill and decode, in turns."""

from collections.abc import Sequence
from typing import Any

from benchmarks.pool import Turns, Worker
from benchmarks.rows import Row
from benchmarks.timing import Spread, rounds, spread
from benchmarks.train_speed import Say, facts
from gpt_core.config import GPTConfig

MOST_PROMPT, MOST_TOKENS = 256, 64


def lengths(model: GPTConfig) -> tuple[int, int]:
    """(prompt, new tokens) that fit the context: up to half of it to read, so that it never has to slide."""
    half = model.block_size // 2
    return min(MOST_PROMPT, half), min(MOST_TOKENS, model.block_size - half)


def request(model: GPTConfig) -> dict[str, Any]:
    """The arguments of one generation."""
    prompt, tokens = lengths(model)
    return {"prompt": prompt, "tokens": tokens, "vocab_size": model.vocab_size}


def measure(workers: Sequence[Worker], trials: int, turns: Turns, say: Say) -> list[Row]:
    """Two rows, prefill and decode, for each worker that generates and does not fail. The first generation is not counted."""
    prompt, tokens = lengths(workers[0].spec.model)
    found: list[list[dict[str, Any]]] = [[] for _ in workers]
    for number, order in enumerate(rounds(len(workers), trials + 1)):
        for index in order:
            answer = turns.ask(workers[index], "generate", **request(workers[index].spec.model))
            if number and answer:
                found[index].append(answer)
                speed = answer["decoded"] / answer["decode"]
                say(f"generating, trial {number} of {trials}: {workers[index].spec.label} {speed:,.0f} tok/s")
    made = []
    for worker, answers in zip(workers, found, strict=True):
        if answers and worker.spec.label not in turns.failed:
            made += [
                Row(
                    "prefill", worker.spec.label, "tok/s", rate(answers, prompt, "prefill"), facts(worker) | {"tokens": prompt}
                ),
                Row("decode", worker.spec.label, "tok/s", rate(answers, 1, "decode"), facts(worker) | {"tokens": tokens}),
            ]
    return made


def rate(answers: Sequence[dict[str, Any]], prompt: int, phase: str) -> Spread:
    """Tokens a second over the trials; prefill reads `prompt` tokens, decode makes those after the first."""
    return spread([a[phase] / (prompt if phase == "prefill" else a["decoded"]) for a in answers]).rate(1)
