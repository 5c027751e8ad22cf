"""python -m mlx_gpt.train: the training loop. Twin of torch_gpt/train.py."""

import argparse
import time

from gpt_core import cli, plan
from gpt_core.errors import InputError
from gpt_core.peaks import nominal_tflops
from gpt_core.plan import Plan
from gpt_core.ranks import Ranks, agreed, refuse_uneven, together
from gpt_core.run import open_run
from gpt_core.schedule import lr_at
from gpt_core.validation import Validation
from mlx_gpt import device as devices
from mlx_gpt.model import GPT
from mlx_gpt.optim import make_optimizer
from mlx_gpt.ranks import joined
from mlx_gpt.state import load_moments, load_weights, read_moments, read_weights
from mlx_gpt.step import make_token_nats, make_train_step, precision


def train(plan: Plan, ranks: Ranks) -> None:
    """Trains from the plan's start to its last step, or until a signal; the run folder holds the result."""
    config = plan.train
    with open_run(plan, devices.versions(), ranks) as run:
        weights, moments = run.start()
        model = GPT(plan.model, precision(config.dtype))
        load_weights(model, weights)
        optimizer = make_optimizer(model, config)
        if moments:
            load_moments(optimizer, moments, plan.first_step)
        del weights, moments
        train_step = make_train_step(model, optimizer, config, ranks)
        token_nats = ranks.scored_apart(make_token_nats(model))
        validation = Validation(plan.dataset, plan.model, config)
        batches = plan.batches()

        for step in range(plan.first_step, plan.total_steps):
            begin = time.perf_counter()
            lr = lr_at(step, config, plan.total_steps)
            batch, drawn = batches.next()
            mine = {name: ranks.part(part) for name, part in drawn.items()}
            loss, norm = train_step(ranks.part(batch), lr, mine, meanwhile=batches.prepare)
            seconds = time.perf_counter() - begin

            done = step + 1
            record = run.record(done, loss, lr, norm, seconds, devices.peak_memory())
            if run.validates(done):
                record |= validation.measure(token_nats)
            run.heed()
            run.log(record)
            if run.saves(done):
                run.save(done, read_weights(model), read_moments(optimizer))
            if run.stop_signal:
                break


def prepare(args: argparse.Namespace, ranks: Ranks) -> Plan | None:
    """Checks the command line and all that it names; None after a dry run."""
    _, config = plan.configs(args)
    refuse_uneven(config, ranks)
    if args.shard:  # mlx.nn.fully_shard sums with sum_scatter, which the ring does not have
        raise InputError("--shard is for torch_gpt: MLX's ring cannot scatter sums; drop it, or train with torch_gpt.train")
    device = devices.pick(args.device, config.dtype)
    devices.keep_freed_memory(device)
    name = devices.describe(device)
    if args.dry_run:
        print(plan.describe(args, name))
        return None
    ready = plan.make_plan(args, "mlx_gpt", nominal_tflops(name, config.dtype), checkpoints=ranks.rank == 0)
    print(plan.banner(ready, name))
    return ready


def main() -> None:
    """The command."""
    args = plan.parser("mlx_gpt", devices.DEVICES).parse_args()
    with joined() as ranks:
        ready = together(ranks, lambda: prepare(args, ranks))
        if ready:
            train(agreed(ready, devices.versions(), ranks), ranks)


if __name__ == "__main__":
    cli.run(main)
