"""torch_gpt, to be timed. Twin of benchmarks/mlx_work.py."""

from collections.abc import Callable
from functools import cache, partial

import torch_gpt  # noqa: F401  # isort: skip  (before torch, as in its own commands: gpt_core/mkl.py)
import torch

from benchmarks.peaks import Product
from benchmarks.spec import Spec
from benchmarks.timing import Clock, time_tokens
from benchmarks.work import Work, loader
from gpt_core.ahead import nothing
from gpt_core.generation import Forward, generate
from gpt_core.init import initial_weights
from gpt_core.noise import Drawn, batch_at
from gpt_core.sampling import Sampling
from torch_gpt import device as devices
from torch_gpt.generate import make_forward
from torch_gpt.model import GPT
from torch_gpt.optim import MultiOptimizer, make_optimizer
from torch_gpt.state import load_weights
from torch_gpt.step import make_train_step, precision


class Idle(MultiOptimizer):
    """Leaves the weights alone: a step with it is all of a step but the update."""

    def step(self) -> None:
        """Does nothing."""


def open_work(spec: Spec) -> Work:
    """Model, optimizer and batches of a task."""
    device = devices.pick(spec.device, spec.dtype)
    devices.keep_freed_memory(device)
    make = partial(batch_at, loader=loader(spec), config=spec.model, train=spec.train)
    first = make(0)
    model = GPT(spec.model).to(device)
    load_weights(model, initial_weights(spec.model, spec.train.seed))
    optimizer = make_optimizer(model, spec.train)
    train_step = make_train_step(model, optimizer, spec.train, device)
    idle_step = make_train_step(model, Idle(optimizer.optimizers), spec.train, device)

    def step(given: Drawn, meanwhile: Callable[[], None] = nothing) -> float:
        batch, drawn = given
        loss = train_step(batch, spec.train.lr, drawn, meanwhile)[0]
        devices.synchronize(device)
        return loss

    def forward_backward() -> None:
        idle_step(first[0], spec.train.lr, first[1])
        devices.synchronize(device)

    def update() -> None:  # with the gradients that the last forward_backward left behind
        optimizer.step()
        devices.synchronize(device)

    @cache
    def forward() -> Forward:
        """Of a model of its own: with the one trained here, MLX decoded a third slower (docs/lab-notes.md)."""
        generating = GPT(spec.model).to(device)
        load_weights(generating, initial_weights(spec.model, spec.train.seed))
        return make_forward(generating, device)

    def complete(prompt: list[int], count: int, clock: Clock) -> tuple[float, float, int]:
        with precision(device, spec.dtype):
            tokens = generate(
                forward(), prompt[1:], Sampling(temperature=0), count, spec.model.vocab_size, spec.model.block_size, 0
            )
            return time_tokens(tokens, clock)

    return Work(
        chip=devices.describe(device),
        versions=devices.versions(),
        batch_at=make,
        step=step,
        peak_memory=partial(devices.peak_memory, device),
        product=matmul(device, spec.dtype),
        generate=complete,
        parts={"forward_backward": forward_backward, "optimizer": update},
        forget=forward.cache_clear,
    )


def matmul(device: torch.device, dtype: str) -> Product:
    """Products of random matrices."""

    def product(n: int) -> Callable[[], None]:
        a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))

        def multiply() -> None:
            torch.mm(a, b)
            devices.synchronize(device)

        return multiply

    return product
