"""mlx_gpt, to be timed. Twin of benchmarks/torch_work.py."""

from collections.abc import Callable
from functools import cache, partial

import mlx_gpt  # noqa: F401  # isort: skip
import mlx.core as mx
from mlx.optimizers import MultiOptimizer
from mlx.utils import tree_map

from benchmarks.peaks import Product
from benchmarks.spec import Spec
from benchmarks.timing import Clock, time_tokens
from benchmarks.work import Work, loader
from gpt_core.ahead import nothing
from gpt_core.generation import Forward, generate
from gpt_core.init import initial_weights
from gpt_core.noise import Drawn, batch_at
from gpt_core.sampling import Sampling
from mlx_gpt import device as devices
from mlx_gpt.generate import make_forward
from mlx_gpt.model import GPT
from mlx_gpt.optim import make_optimizer
from mlx_gpt.state import load_weights
from mlx_gpt.step import make_train_step, precision


class Idle(MultiOptimizer):
    """Leaves the weights alone: a step with it is all of a step but the update."""

    def update(self, model: object, gradients: dict) -> None:
        """Does nothing."""


def open_work(spec: Spec) -> Work:
    """Model, optimizer and batches of a task."""
    device = devices.pick(spec.device, spec.dtype)
    devices.keep_freed_memory(device)
    make = partial(batch_at, loader=loader(spec), config=spec.model, train=spec.train)
    first = make(0)
    model = GPT(spec.model, precision(spec.dtype))
    load_weights(model, initial_weights(spec.model, spec.train.seed))
    optimizer = make_optimizer(model, spec.train)
    train_step = make_train_step(model, optimizer, spec.train)
    idle_step = make_train_step(model, Idle(optimizer.optimizers, optimizer.filters[:-1]), spec.train)
    state = [model.state, optimizer.state]

    def step(given: Drawn, meanwhile: Callable[[], None] = nothing) -> float:
        batch, drawn = given
        return train_step(batch, spec.train.lr, drawn, meanwhile)[0]  # evaluates the new state itself

    @partial(mx.compile, inputs=state, outputs=state)
    def compiled_update(gradients: dict) -> mx.array:
        optimizer.update(model, gradients)
        return mx.zeros(())

    gradients: dict = {}

    def forward_backward() -> None:
        idle_step(first[0], spec.train.lr, first[1])

    def update() -> None:
        if not gradients:  # a step keeps its own; any will do here, but none that let moments decay to denormal numbers
            gradients.update(tree_map(lambda p: mx.full(p.shape, 1e-3), model.trainable_parameters()))
            mx.eval(gradients)
        mx.eval(compiled_update(gradients), state)

    @cache
    def forward() -> Forward:
        """Of a model of its own: with the one trained here, MLX decoded a third slower (docs/lab-notes.md)."""
        generating = GPT(spec.model, precision(spec.dtype))
        load_weights(generating, initial_weights(spec.model, spec.train.seed))
        return make_forward(generating)

    def complete(prompt: list[int], count: int, clock: Clock) -> tuple[float, float, int]:
        tokens = generate(
            forward(), prompt[1:], Sampling(temperature=0), count, spec.model.vocab_size, spec.model.block_size, 0
        )
        return time_tokens(tokens, clock)

    return Work(
        chip=devices.describe(device),
        versions=devices.versions(),
        batch_at=make,
        step=step,
        peak_memory=devices.peak_memory,
        product=matmul(spec.dtype),
        generate=complete,
        parts={"forward_backward": forward_backward, "optimizer": update},
        forget=forward.cache_clear,
    )


def matmul(dtype: str) -> Product:
    """Products of random matrices, on the default device."""

    def product(n: int) -> Callable[[], None]:
        a, b = (mx.random.normal((n, n)).astype(getattr(mx, dtype)) for _ in range(2))
        mx.eval(a, b)
        return lambda: mx.eval(a @ b)

    return product
