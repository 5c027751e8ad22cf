"""Ranks: processes that train one model together. Who computes which part of a batch, and how they agree."""

import hashlib
import io
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from gpt_core.checkpoint import Arrays, Checkpoint, config_json
from gpt_core.config import TrainConfig
from gpt_core.errors import InputError
from gpt_core.names import moment_shapes, parameters
from gpt_core.plan import Plan
from gpt_core.scoring import TokenNats

TIMEOUT_S = 600.0
"""Seconds after which a rank that waits for the others gives up: more than a checkpoint or a compilation takes."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run as one of them sees it. `total` sums an int32 array elementwise over all of them."""

    rank: int = 0
    size: int = 1
    total: Callable[[np.ndarray], np.ndarray] = lambda values: values

    def sum(self, number: int) -> int:
        """The sum of a number of each rank."""
        return int(self.total(np.array([number], dtype=np.int32))[0])

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The values of every rank, (n,) int32 -> (size, n) int32, the same on all of them."""
        table = np.zeros((self.size, len(values)), dtype=np.int32)
        table[self.rank] = values
        return self.total(table)

    def share(self, array: np.ndarray) -> np.ndarray:
        """Rank 0's array on every rank, bit for bit; any dtype of 4 bytes. The others give one of the same shape."""
        bits = np.ascontiguousarray(array).view(np.int32)
        return self.total(bits if self.rank == 0 else np.zeros_like(bits)).view(array.dtype)

    def part(self, batch: np.ndarray) -> np.ndarray:
        """This rank's sequences of a global batch (accumulation, B, T+1): whole micro-batches as far as they go round."""
        groups = math.gcd(len(batch), self.size)
        group, place = divmod(self.rank, self.size // groups)
        return np.split(np.split(batch, groups)[group], self.size // groups, axis=1)[place]

    def scored_apart(self, token_nats: TokenNats) -> TokenNats:
        """A scoring function that deals the rows of every batch out, and has all results on every rank.

        A rank that gets none scores one for nothing: sharded weights need all ranks in every forward pass.
        """
        if self.size == 1:
            return token_nats

        def apart(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
            nats = np.zeros(targets.shape, dtype=np.float32)
            mine = np.arange(self.rank, len(inputs), self.size)
            rows = mine if len(mine) else np.array([0])
            nats[mine] = token_nats(inputs[rows], targets[rows])[: len(mine)]
            return self.total(nats.view(np.int32)).view(np.float32)

        return apart


ALONE = Ranks()
"""One process, which has everything to itself."""


def refuse_uneven(train: TrainConfig, ranks: Ranks) -> None:
    """Raises InputError where the sequences of a step cannot be dealt out evenly."""
    if train.sequences_per_step % ranks.size:
        raise InputError(
            f"--micro-batch-size {train.micro_batch_size} x --accumulation {train.accumulation} is {train.sequences_per_step} "
            f"sequences a step, which {ranks.size} ranks cannot share evenly: make the product a multiple of {ranks.size}"
        )


def together(ranks: Ranks, action: Callable[[], Result]) -> Result:
    """Does on every rank what one of them may refuse: all go on, or all end with the code of the first that refused.

    One rank is heard, that one, or rank 0 if none did: what all have to say is said once.
    """
    if ranks.size == 1:
        return action()
    code, out, err = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            result = action()
        except InputError as error:
            code = 2
            print(f"error: {error}", file=sys.stderr)
    codes = ranks.gather(np.array([code], dtype=np.int32))[:, 0]
    if ranks.rank == int(np.argmax(codes != 0)):  # 0 where all are
        print(out.getvalue(), end="", flush=True)
        print(err.getvalue(), end="", file=sys.stderr, flush=True)
    if codes.any():
        sys.exit(2)
    return result


def agreed(plan: Plan, versions: dict[str, str], ranks: Ranks) -> Plan:
    """The plan with rank 0's checkpoint, after a check that all ranks have the same configuration, data and versions."""
    if ranks.size == 1:
        return plan
    together(ranks, lambda: _refuse_different(plan, versions, ranks))
    return replace(plan, start=_shared(plan, plan.start, ranks), init=_shared(plan, plan.init, ranks))


def _refuse_different(plan: Plan, versions: dict[str, str], ranks: Ranks) -> None:
    facts = {
        "configuration (the flags)": hashlib.sha256(config_json(plan.model, plan.train).encode()).hexdigest(),
        "manifest (--data)": plan.dataset.manifest_sha256,
        "tokenizer (--data)": plan.dataset.tokenizer_sha256,
        "framework (pip list)": hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest(),
    }
    digests = np.array([list(bytes.fromhex(digest)) for digest in facts.values()], dtype=np.int32)
    for rank, found in enumerate(ranks.gather(digests.ravel()).reshape(ranks.size, *digests.shape)):
        for name, ours, theirs in zip(facts, digests, found, strict=True):
            if ranks.rank == 0 and not np.array_equal(ours, theirs):
                first, other = (bytes(digest.astype(np.uint8)).hex()[:12] for digest in (ours, theirs))
                raise InputError(
                    f"rank {rank} has another {name} than rank 0, {other}... for {first}...: start all ranks with the same"
                )


def _shared(plan: Plan, found: Checkpoint | None, ranks: Ranks) -> Checkpoint | None:
    """Rank 0's checkpoint on every rank: the others need no run folder, and no other checkpoint can slip in."""
    step = ranks.share(np.array([found.step if found else -1], dtype=np.int32))[0]
    if step < 0:
        return None
    shapes = {parameter.name: parameter.shape for parameter in parameters(plan.model)}
    has_moments = ranks.share(np.array([bool(found and found.moments)], dtype=np.int32))[0]

    def arrays(shapes: dict[str, tuple[int, ...]], ours: Arrays) -> Arrays:
        # taken out of rank 0's own: it would hold them beside the shared ones as long as it trains
        return {name: ranks.share(ours.pop(name, np.empty(shape, np.float32))) for name, shape in shapes.items()}

    return Checkpoint(
        folder=found.folder if found else plan.run,
        model=plan.model,
        train=plan.train,
        step=int(step),
        manifest_sha256=plan.dataset.manifest_sha256,
        tokenizer_sha256=plan.dataset.tokenizer_sha256,
        weights=arrays(shapes, found.weights if found else {}),
        moments=arrays(moment_shapes(plan.model, plan.train) if has_moments else {}, found.moments if found else {}),
        versions=found.versions if found else {},
    )


@contextmanager
def reaching(ranks: Ranks) -> Iterator[None]:
    """Around work that waits for other ranks: what ends it when one of them is gone is one line, and so is a timeout."""
    if ranks.size == 1:
        yield
        return
    timer = threading.Timer(TIMEOUT_S, _give_up, [ranks])
    timer.daemon = True
    timer.start()
    try:
        yield
    except RuntimeError as error:  # what both frameworks raise
        reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0][:120] if str(error) else type(error).__name__
        raise InputError(_lost(ranks, reason)) from error
    finally:
        timer.cancel()


def _lost(ranks: Ranks, reason: str) -> str:
    return (
        f"rank {ranks.rank} of {ranks.size} lost another one ({reason}): the same command (without --init-from), on "
        "any number of ranks, goes on from the newest checkpoint"
    )


def _give_up(ranks: Ranks) -> None:
    """Ends a process whose main thread hangs in a framework."""
    print(f"error: {_lost(ranks, f'no answer for {TIMEOUT_S:g} s')}", file=sys.stderr, flush=True)
    os._exit(2)
