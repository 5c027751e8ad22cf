"""python -m torch_gpt.train: the training loop. Twin of mlx_gpt/train.py."""

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
from torch_gpt import device as devices
from torch_gpt.model import GPT
from torch_gpt.optim import make_optimizer
from torch_gpt.ranks import joined, place, shard
from torch_gpt.state import load_moments, load_weights, read_moments, read_weights
from torch_gpt.step import make_token_nats, make_train_step


def train(plan: Plan, device: devices.torch.device, ranks: Ranks) -> None:
    """Trains from the plan's start to its last step, or until a signal; the run folder holds the result."""
    config = plan.train
    with open_run(plan, devices.versions(), ranks) as run:
        weights, moments = run.start()
        model = GPT(plan.model).to(device)
        load_weights(model, weights)
        if plan.shard:
            shard(model, device, ranks)
        optimizer = make_optimizer(model, config)
        if moments:
            load_moments(model, optimizer, moments, plan.first_step)
        del weights, moments
        train_step = make_train_step(model, optimizer, config, device, ranks)
        token_nats = ranks.scored_apart(make_token_nats(model, device, config.dtype))
        validation = Validation(plan.dataset, plan.model, config)
        batches = plan.batches()

        for step in range(plan.first_step, plan.total_steps):
            begin = time.perf_counter()
            lr = lr_at(step, config, plan.total_steps)
            batch, drawn = batches.next()
            mine = {name: ranks.part(part) for name, part in drawn.items()}
            loss, norm = train_step(ranks.part(batch), lr, mine, meanwhile=batches.prepare)
            devices.synchronize(device)
            seconds = time.perf_counter() - begin

            done = step + 1
            record = run.record(done, loss, lr, norm, seconds, devices.peak_memory(device))
            if run.validates(done):
                record |= validation.measure(token_nats)
            run.heed()
            run.log(record)
            if run.saves(done):
                run.save(done, read_weights(model), read_moments(model, optimizer))
            if run.stop_signal:
                break


def prepare(args: argparse.Namespace, ranks: Ranks) -> tuple[Plan, devices.torch.device] | None:
    """Checks the command line and all that it names; None after a dry run."""
    model, config = plan.configs(args)
    refuse_uneven(config, ranks)
    if args.shard and config.optimizer == "muon":
        raise InputError("--shard leaves ranks parts of matrices, Muon needs whole ones: drop it, or give --optimizer adamw")
    device = place(devices.pick(args.device, config.dtype), ranks)
    devices.keep_freed_memory(device)
    devices.refuse_large_micro_batch(device, config.micro_batch_size * model.block_size)
    name = devices.describe(device)
    if args.dry_run:
        print(plan.describe(args, name))
        return None
    ready = plan.make_plan(args, "torch_gpt", nominal_tflops(name, config.dtype), checkpoints=ranks.rank == 0)
    print(plan.banner(ready, name))
    return ready, device


def main() -> None:
    """The command."""
    args = plan.parser("torch_gpt", devices.DEVICES).parse_args()
    with joined() as ranks:
        prepared = together(ranks, lambda: prepare(args, ranks))
        if prepared:
            ready, device = prepared
            train(agreed(ready, devices.versions(), ranks), device, ranks)


if __name__ == "__main__":
    cli.run(main)
