"""Every engine drives the model that it says it does: the same one, by the library's own code."""

import importlib
import math
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.spec import ENGINES, Spec
from benchmarks.work import Work, loader
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.init import initial_weights
from gpt_core.shards import write_shard

MODEL = GPTConfig(vocab_size=300, block_size=16, n_layer=2, n_head=2, n_embd=24)
TRAIN = TrainConfig(micro_batch_size=3, accumulation=2)

NANOGPT = """
import dataclasses, torch
import torch.nn.functional as F
from torch_gpt.model import GPT as Twin
from gpt_core import config

@dataclasses.dataclass
class GPTConfig:
    block_size: int; vocab_size: int; n_layer: int; n_head: int; n_embd: int; dropout: float; bias: bool

class GPT(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        assert c.dropout == 0 and c.bias
        self.transformer = Twin(config.GPTConfig(c.vocab_size, c.block_size, c.n_layer, c.n_head, c.n_embd))
    def forward(self, idx, targets):
        logits = self.transformer(idx)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.view(-1))
    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        print("nanoGPT prints things")
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay)
"""
"""What nanoGPT's model.py offers, in few lines."""


def spec(engine: str, shard: Path, checkout: Path | None = None) -> Spec:
    return Spec(engine, "cpu", TRAIN.dtype, MODEL, TRAIN, str(shard), str(checkout) if checkout else None)


def write_random(folder: Path) -> Path:
    """A shard of 2,000 random tokens."""
    path = folder / "random.bin"
    write_shard(path, np.random.default_rng(3).integers(0, MODEL.vocab_size, 2000).astype(np.uint16))
    return path


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("shard"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", [*ENGINES])
def test_every_engine_trains_the_same_model(engine, shard, tmp_path):
    """First loss on our weights and batch, computed by every library itself; then the loss on that batch falls."""
    for package in ENGINES[engine].packages:
        pytest.importorskip(package)
    (tmp_path / "model.py").write_text(NANOGPT)
    task = spec(engine, shard, tmp_path if engine == "nanogpt" else None)
    work: Work = importlib.import_module(ENGINES[engine].module).open_work(task)
    batch = work.batch_at(0)
    first = work.step(batch)
    assert first == pytest.approx(_loss(loader(task).batch_at(0)), abs=1e-4)
    after = [work.step(batch) for _ in range(6)][-1]
    assert math.isnan(after) if engine == "mlx-lm" else after < first - 0.05
    assert work.peak_memory() > 0
    assert bool(work.generate) == ENGINES[engine].generates
    if work.generate:
        prefill, decode, count = work.generate([5, 6, 7], 4, time.perf_counter)
        assert prefill > 0 and decode > 0 and count == 4


def _loss(batch: np.ndarray) -> float:
    """The torch twin's, by its scoring function, not by its step."""
    torch = importlib.import_module("torch")
    model = importlib.import_module("torch_gpt.model").GPT(MODEL)
    importlib.import_module("torch_gpt.state").load_weights(model, initial_weights(MODEL, TRAIN.seed))
    token_nats = importlib.import_module("torch_gpt.step").make_token_nats(model, torch.device("cpu"))
    flat = batch.reshape(-1, batch.shape[-1])
    return float(token_nats(flat[:, :-1], flat[:, 1:]).mean())


@pytest.mark.parametrize("engine", ["mlx", "torch"])
def test_forward_and_backward_alone_leave_the_weights_and_the_update_does_not(engine, shard):
    work: Work = importlib.import_module(ENGINES[engine].module).open_work(spec(engine, shard))
    batch = work.batch_at(0)
    losses = [work.step(batch)]
    work.parts["forward_backward"]()
    with_idle = work.step(batch)
    again: Work = importlib.import_module(ENGINES[engine].module).open_work(spec(engine, shard))
    losses += [again.step(batch), again.step(batch)]
    assert losses[0] == losses[1] and with_idle == losses[2], "a step that idles in between changes nothing"
    work.parts["forward_backward"]()
    work.parts["optimizer"]()
    assert work.step(batch) != again.step(batch)
