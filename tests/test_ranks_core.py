"""What ranks agree on, with threads for ranks: parts of a batch, sums, a shared checkpoint, refusals, a timeout."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import numpy as np
import pytest
import torch
from commands import ROOT
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.config import TrainConfig
from gpt_core.errors import InputError
from gpt_core.ranks import ALONE, Ranks, reaching, refuse_uneven, together
from torch_gpt.ranks import place

Result = TypeVar("Result")


def on_each(size: int, action: Callable[[Ranks], Result]) -> list[Result]:
    """The results of an action on every rank, each a thread; sums wait for all of them."""
    given_in: dict[int, np.ndarray] = {}
    barrier = Barrier(size, timeout=20)

    def rank(index: int) -> Result:
        def total(values: np.ndarray) -> np.ndarray:
            assert values.dtype == np.int32
            given_in[index] = values
            barrier.wait()
            summed = np.asarray(np.sum([given_in[i] for i in range(size)], axis=0, dtype=np.int32))
            barrier.wait()
            return summed

        return action(Ranks(index, size, total))

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(rank, range(size)))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12))
def test_parts_are_the_batch_or_refused(accumulation: int, micro_batch: int, size: int) -> None:
    """Every sequence on exactly one rank, all ranks the same shape; whole micro-batches where they go round."""
    train = TrainConfig(accumulation=accumulation, micro_batch_size=micro_batch)
    batch = np.arange(accumulation * micro_batch * 3).reshape(accumulation, micro_batch, 3)
    if accumulation * micro_batch % size:
        with pytest.raises(
            InputError, match=f"--micro-batch-size {micro_batch} x --accumulation {accumulation} .* {size} ranks"
        ):
            refuse_uneven(train, Ranks(0, size))
        return
    refuse_uneven(train, Ranks(0, size))
    parts = [Ranks(rank, size).part(batch) for rank in range(size)]
    assert len({part.shape for part in parts}) == 1
    dealt = np.concatenate([part.reshape(-1, 3) for part in parts])
    assert np.array_equal(np.sort(dealt[:, 0]), batch.reshape(-1, 3)[:, 0])
    if accumulation % size == 0:
        assert parts[0].shape == (accumulation // size, micro_batch, 3)


def test_parts_by_hand() -> None:
    """Two micro-batches of four sequences: 2 ranks take one each, 4 ranks half of one each."""
    batch = np.arange(8).reshape(2, 4, 1)
    assert [Ranks(rank, 2).part(batch).ravel().tolist() for rank in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [Ranks(rank, 4).part(batch).ravel().tolist() for rank in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert ALONE.part(batch) is not None and np.array_equal(ALONE.part(batch), batch)


def test_sum_gather_and_share() -> None:
    assert on_each(3, lambda ranks: ranks.sum(10 + ranks.rank)) == [33] * 3
    for table in on_each(3, lambda ranks: ranks.gather(np.array([ranks.rank, -7], np.int32))):
        assert table.tolist() == [[0, -7], [1, -7], [2, -7]]
    values = np.array([[-0.0, np.nan], [1e-45, np.inf]], np.float32)
    for found in on_each(3, lambda ranks: ranks.share(values if ranks.rank == 0 else values + 1)):
        assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize("rows", [1, 5])
def test_scoring_apart_is_scoring(rows: int) -> None:
    """More ranks than rows as well: then a rank scores a row for nothing, so that all make the same number of calls."""
    inputs = np.arange(rows * 4, dtype=np.int32).reshape(rows, 4)
    scored: list[int] = []

    def token_nats(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        scored.extend(inputs[:, 0].tolist())
        return (inputs * 0.1 + targets).astype(np.float32)

    expected = token_nats(inputs, inputs + 1)
    scored.clear()
    for found in on_each(3, lambda ranks: ranks.scored_apart(token_nats)(inputs, inputs + 1)):
        assert np.array_equal(found, expected) and found.dtype == np.float32
    assert sorted(scored) == (inputs[:, 0].tolist() if rows == 5 else [0, 0, 0])
    assert ALONE.scored_apart(token_nats) is token_nats


def test_alone_a_refusal_is_passed_on() -> None:
    def refuse() -> None:
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        together(ALONE, refuse)
    assert together(ALONE, lambda: 7) == 7


def test_a_lost_rank_is_one_line() -> None:
    with pytest.raises(InputError, match=r"rank 1 of 2 lost another one \(gone\): the same command"), reaching(Ranks(1, 2)):
        raise RuntimeError("[ring] gone\nsecond line")
    with pytest.raises(RuntimeError, match="mine"), reaching(ALONE):
        raise RuntimeError("mine")


def test_a_rank_that_waits_too_long_ends_with_one_line() -> None:
    code = (
        "import time; from gpt_core import ranks; ranks.TIMEOUT_S = 0.2\n"
        "with ranks.reaching(ranks.Ranks(1, 2)): pass\n"
        "time.sleep(0.4); print('alive')\n"
        "with ranks.reaching(ranks.Ranks(1, 2)): time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (2, "alive\n")
    assert done.stderr.count("\n") == 1 and "no answer for 0.2 s" in done.stderr


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_ranks_that_would_share_a_gpu_are_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match=f"--device {device} with 2 ranks on this machine and 1 GPU"):
        place(torch.device(device), Ranks(0, 2))
    assert place(torch.device(device), ALONE) == torch.device(device)
    assert place(torch.device("cpu"), Ranks(1, 2)) == torch.device("cpu")


@pytest.mark.parametrize("twin", ["mlx_gpt", "torch_gpt"])
def test_a_rank_that_cannot_join_is_one_line(twin: str) -> None:
    """A host file that is none, a port that is none."""
    places = {"MLX_RANK": "1", "MLX_HOSTFILE": __file__}
    places |= {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "none"}
    code = f"from gpt_core import cli; from {twin}.ranks import joined; cli.run(lambda: joined().__enter__() and None)"
    command, environment = [sys.executable, "-c", code], os.environ | places
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: rank 1"), done.stderr
