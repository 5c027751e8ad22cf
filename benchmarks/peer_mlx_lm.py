"""mlx-lm: its GPT-2, its optimizer and its own `train` function, which is kept waiting between trials.

It clips nothing, and in half precision it holds weights and moments in that dtype: less work than ours does.
"""

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version

import mlx_gpt  # noqa: F401  # isort: skip
import mlx.core as mx
import numpy as np
from mlx.optimizers import AdamW
from mlx.utils import tree_unflatten
from mlx_lm.generate import generate_step
from mlx_lm.models.gpt2 import Model, ModelArgs
from mlx_lm.tuner.trainer import TrainingArgs, default_loss
from mlx_lm.tuner.trainer import train as trainer

from benchmarks.mlx_work import matmul
from benchmarks.spec import Spec
from benchmarks.timing import Clock, time_tokens
from benchmarks.work import Work, loader
from gpt_core.ahead import nothing
from gpt_core.init import initial_weights
from mlx_gpt import device as devices


class Trainer:
    """mlx-lm's `train` in a thread of its own, fed one optimizer step at a time.

    It asks for the next micro-batch only after it has evaluated the last: then the step is over.
    """

    def __init__(self, model: Model, optimizer: AdamW, args: TrainingArgs):
        self._asked: queue.Queue[np.ndarray] = queue.Queue()
        self._done: queue.Queue[BaseException | None] = queue.Queue()
        self._given = (model, optimizer, args)
        self._device = mx.default_device()
        threading.Thread(target=self._run, daemon=True).start()

    def step(self, batch: np.ndarray) -> None:
        """One optimizer step on (accumulation, B, T+1) tokens."""
        self._asked.put(batch)
        failure = self._done.get()
        if failure:
            raise failure

    def _feed(self, **_options: object) -> Iterator[tuple[mx.array, mx.array]]:
        while True:
            batch = self._asked.get()
            for micro_batch in batch:
                lengths = np.tile([0, micro_batch.shape[1]], (len(micro_batch), 1))
                yield mx.array(micro_batch), mx.array(lengths)
            self._done.put(None)

    def _run(self) -> None:
        model, optimizer, args = self._given
        try:
            mx.set_default_device(self._device)
            trainer(model, optimizer, None, None, args, iterate_batches=self._feed)
        except BaseException as error:
            self._done.put(error)


def open_work(spec: Spec) -> Work:
    """The same GPT-2 with our weights in it."""
    device = devices.pick(spec.device, spec.dtype)
    batches = loader(spec)
    size, recipe = spec.model, spec.train
    model = Model(
        ModelArgs(
            model_type="gpt2",
            n_ctx=size.block_size,
            n_embd=size.n_embd,
            n_head=size.n_head,
            n_layer=size.n_layer,
            n_positions=size.block_size,
            layer_norm_epsilon=1e-5,
            vocab_size=size.vocab_size,
        )
    )
    weights = initial_weights(size, recipe.seed)
    model.update(tree_unflatten([(f"model.{name}", mx.array(value)) for name, value in weights.items()]))
    model.set_dtype(getattr(mx, spec.dtype))
    mx.eval(model.parameters())
    optimizer = AdamW(recipe.lr, [recipe.beta1, recipe.beta2], weight_decay=recipe.weight_decay)
    args = TrainingArgs(iters=sys.maxsize, steps_per_report=sys.maxsize, steps_per_save=sys.maxsize)
    args.batch_size, args.grad_accumulation_steps, args.max_seq_length = recipe.micro_batch_size, recipe.accumulation, 1 << 20
    first = [first_loss(model, batches.batch_at(0))]
    driven = Trainer(model, optimizer, args)
    stream = mx.new_thread_local_stream(device)  # mlx-lm's own is of the device that was the default when it was imported

    def step(batch: np.ndarray, meanwhile: Callable[[], None] = nothing) -> float:
        driven.step(batch)
        meanwhile()  # afterwards: its trainer fetches a batch when it needs one
        return first.pop() if first else float("nan")  # the trainer reports losses in its own time only

    def complete(prompt: list[int], count: int, clock: Clock) -> tuple[float, float, int]:
        tokens = (int(token) for token, _ in generate_step(mx.array(prompt), model, stream=stream, max_tokens=count))
        return time_tokens(tokens, clock)

    return Work(
        chip=devices.describe(device),
        versions=devices.versions() | {"mlx-lm": version("mlx-lm")},
        batch_at=batches.batch_at,
        step=step,
        peak_memory=devices.peak_memory,
        product=matmul(spec.dtype),
        generate=complete,
    )


def first_loss(model: Model, batch: np.ndarray) -> float:
    """Mean loss over the micro-batches, nats a token, by mlx-lm's own loss."""
    return float(np.mean([default_loss(model, mx.array(m), mx.array([[0, m.shape[1]]] * len(m)))[0].item() for m in batch]))
