"""A training command before it starts: every flag, file and folder checked, everything derived from them."""

import argparse
import dataclasses
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpt_core import checkpoint
from gpt_core.ahead import Ahead
from gpt_core.checkpoint import Checkpoint
from gpt_core.cli import Parser, add_config_flags, overrides
from gpt_core.config import GPTConfig, TrainConfig, presets, refuse_other_model, refuse_other_recipe
from gpt_core.dataset import Dataset, open_dataset
from gpt_core.errors import InputError
from gpt_core.files import make_parents
from gpt_core.flops import flops_per_token, optimizer_flops, tokens_per_step, training_memory
from gpt_core.loader import Loader
from gpt_core.metrics import require_tensorboard
from gpt_core.names import parameter_count
from gpt_core.noise import Drawn, batch_at


@dataclass(frozen=True)
class Plan:
    """A run that can start."""

    model: GPTConfig
    train: TrainConfig
    run: Path
    dataset: Dataset
    loader: Loader
    total_steps: int
    start: Checkpoint | None
    """The checkpoint to go on from, or None to start anew."""
    init: Checkpoint | None
    """The checkpoint whose weights a new run starts from, or None for random ones."""
    peak_tflops: float | None
    tensorboard: bool
    shard: bool
    """Whether each rank keeps only its part of weights, gradients and moments."""

    @property
    def first_step(self) -> int:
        """Optimizer steps done so far."""
        return self.start.step if self.start else 0

    def batches(self) -> Ahead[Drawn]:
        """Those of the steps that are left."""
        make = partial(batch_at, loader=self.loader, config=self.model, train=self.train)
        return Ahead(make, range(self.first_step, self.total_steps))


def parser(twin: str, devices: tuple[str, ...]) -> Parser:
    """The command line of `python -m <twin>.train`."""
    made = Parser(prog=f"python -m {twin}.train", description="Trains a GPT on shards made by data_prep; resumes by itself.")
    made.add_argument("--preset", choices=sorted(presets()), default="seed", help="configuration that the other flags change")
    made.add_argument("--data", type=Path, default=Path("data/darija"), metavar="DIR", help="dataset folder")
    made.add_argument("--run", type=Path, metavar="DIR", help=f"run folder, instead of {default_run('PRESET', twin)}")
    made.add_argument("--device", choices=devices, default="auto", help="where to compute")
    made.add_argument(
        "--resume",
        choices=("auto", "never", "required"),
        default="auto",
        help="auto goes on from the run folder's latest checkpoint if there is one, required insists, never refuses",
    )
    made.add_argument("--init-from", type=Path, metavar="DIR", help="start a new run from a checkpoint's weights, at step 0")
    made.add_argument("--peak-tflops", type=float, metavar="X", help="the chip's peak for MFU, 1e12 FLOP/s, if not known")
    made.add_argument("--tensorboard", action="store_true", help="also write event files (needs tensorboardX)")
    made.add_argument("--shard", action="store_true", help="each rank keeps a part of weights and moments (FSDP, in PyTorch)")
    made.add_argument("--dry-run", action="store_true", help="print what would be done, and stop")
    add_config_flags(made, GPTConfig, TrainConfig)
    return made


def default_run(preset: str, twin: str) -> Path:
    """Where a run goes that was given no folder: runs/seed-mlx."""
    return Path("runs") / f"{preset}-{twin.removesuffix('_gpt')}"


def configs(args: argparse.Namespace) -> tuple[GPTConfig, TrainConfig]:
    """The preset with the given flags on top. A --epochs without --steps overrules the preset's steps."""
    model, train = presets()[args.preset]
    given = overrides(args, TrainConfig)
    if "epochs" in given and "steps" not in given:
        given["steps"] = None
    if args.peak_tflops is not None and not args.peak_tflops > 0:
        raise InputError(f"--peak-tflops {args.peak_tflops} is not positive: give the chip's peak in 1e12 FLOP/s")
    return dataclasses.replace(model, **overrides(args, GPTConfig)), dataclasses.replace(train, **given)


def make_plan(args: argparse.Namespace, twin: str, peak_tflops: float | None, checkpoints: bool = True) -> Plan:
    """Opens the data and the run folder and checks that they fit. Raises InputError; makes no more than parent folders.

    Without `checkpoints` none is looked for or read: ranks other than 0 get what rank 0 found.
    """
    model, train = configs(args)
    if args.tensorboard:
        require_tensorboard()
    dataset, loader = _open_data(args.data, model, train)
    total = loader.total_steps()
    run = args.run or default_run(args.preset, twin)
    if checkpoints and args.init_from is not None and checkpoint.step_folders(run):
        raise InputError(
            f"--init-from {args.init_from} starts a new run, --run {run} has checkpoints already: "
            "choose another --run, or drop --init-from to go on with it"
        )
    return Plan(
        model=model,
        train=train,
        run=run,
        dataset=dataset,
        loader=loader,
        total_steps=total,
        start=_find_start(run, args.resume, model, train, dataset, total) if checkpoints else None,
        init=_find_init(args.init_from, model, dataset) if checkpoints else None,
        peak_tflops=args.peak_tflops or peak_tflops,
        tensorboard=args.tensorboard,
        shard=args.shard,
    )


def _open_data(folder: Path, model: GPTConfig, train: TrainConfig) -> tuple[Dataset, Loader]:
    """The data and its batches, after checking that the model fits them."""
    dataset = open_dataset(folder)
    if dataset.vocab_size > model.vocab_size:
        raise InputError(f"--vocab-size {model.vocab_size} is below the {dataset.vocab_size} tokens of {folder}: raise it")
    if len(dataset.val) <= model.block_size:
        tokens = f"{len(dataset.val)} validation tokens of {folder}"
        raise InputError(f"--block-size {model.block_size} is not below the {tokens}: lower it, or prepare more rows")
    return dataset, Loader(dataset.train, model, train)


def _find_start(
    run: Path, resume: str, model: GPTConfig, train: TrainConfig, dataset: Dataset, total: int
) -> Checkpoint | None:
    if run.exists() and not run.is_dir():
        raise InputError(f"--run {run} is a file: a folder is expected")
    make_parents(run, "--run")
    found = checkpoint.step_folders(run)
    if resume == "never" and run.exists() and any(run.iterdir()):
        raise InputError(f"--run {run} exists: choose another folder, or drop --resume never to go on from it")
    if not found:
        if resume == "required":
            raise InputError(f"--run {run} has no checkpoint to resume from: start without --resume required")
        return None
    start = checkpoint.load_newest_intact(run, "--run")
    refuse_other_model(start.model, model, str(start.folder))
    if start.tokenizer_sha256 != dataset.tokenizer_sha256:
        raise InputError(
            f"--data {dataset.folder} has the tokenizer {dataset.tokenizer_sha256[:12]}..., {start.folder} was trained "
            f"with {start.tokenizer_sha256[:12]}...: give the data of that run, or another --run"
        )
    if start.manifest_sha256 and start.manifest_sha256 != dataset.manifest_sha256:
        raise InputError(
            f"--data {dataset.folder} has the manifest {dataset.manifest_sha256[:12]}..., {start.folder} was trained on "
            f"{start.manifest_sha256[:12]}...: give the data of that run, or another --run"
        )
    refuse_other_recipe(start.train, train, str(start.folder))
    if start.step and not start.moments:
        raise InputError(f"--run {run} goes on from {start.folder}, which has no moments: start with --init-from it instead")
    if start.step > total:
        raise InputError(f"--run {run} is at step {start.step}, beyond the {total} steps asked for: raise --steps or --epochs")
    return start


def _find_init(folder: Path | None, model: GPTConfig, dataset: Dataset) -> Checkpoint | None:
    if folder is None:
        return None
    init = checkpoint.load(checkpoint.find(folder, "--init-from"), moments=False)
    refuse_other_model(init.model, model, str(init.folder), "or another --init-from")
    if init.tokenizer_sha256 != dataset.tokenizer_sha256:
        raise InputError(
            f"--init-from {init.folder} has the tokenizer {init.tokenizer_sha256[:12]}..., --data {dataset.folder} has "
            f"{dataset.tokenizer_sha256[:12]}...: encode the rows with the checkpoint's tokenizer, or start anew"
        )
    return init


def describe(args: argparse.Namespace, device: str) -> str:
    """What a run would do, for --dry-run: a line of JSON last. Data that is not there yet leaves the steps open."""
    model, train = configs(args)
    steps, padding = train.steps, None if train.document_mask else 0.0
    if args.data.exists():
        loader = _open_data(args.data, model, train)[1]
        steps, padding = loader.total_steps(), round(loader.padding, 6)
    per_step = flops_per_token(model) * tokens_per_step(model, train)
    facts = {
        "parameters": parameter_count(model),
        "tokens_per_step": tokens_per_step(model, train),
        "steps": steps,
        "padding": padding,
        "flops_per_token": flops_per_token(model),
        "flops": per_step * steps if steps else None,
        "optimizer_flops": optimizer_flops(model, train) * steps if steps else None,
        "memory_gib": round(training_memory(model, train) / 2**30, 2),
        "device": device,
    }
    resolved = {"model": dataclasses.asdict(model), "train": dataclasses.asdict(train)}
    lines = [f"{part}.{name} = {value}" for part, values in resolved.items() for name, value in values.items()]
    lines += [
        f"parameters: {facts['parameters']:,}",
        f"tokens a step: {facts['tokens_per_step']:,}" + (f", {100 * padding:.2g} % of them padding" if padding else ""),
        f"optimizer steps: {steps:,}" if steps else f"optimizer steps: known once {args.data} is there (python -m data_prep)",
        f"FLOPs: {per_step / 1e12:.3f}e12 a step" + (f", {per_step * steps / 1e15:.3f}e15 in all" if steps else ""),
        f"FLOPs of the optimizer: {optimizer_flops(model, train) / 1e12:.3f}e12 a step, not counted above",
        f"memory: about {facts['memory_gib']} GiB (weights, gradients, moments, activations in float32)",
        json.dumps(facts | resolved),
    ]
    return "\n".join(lines)


def banner(plan: Plan, device: str) -> str:
    """One line on what starts or goes on."""
    began = f"goes on after step {plan.first_step}" if plan.start else "starts"
    began += f" from the weights of {plan.init.folder}" if plan.init else ""
    padding = f", {100 * plan.loader.padding:.2g} % of them padding" if plan.loader.padding else ""
    return (
        f"{time.strftime('%H:%M:%S')} {plan.run} {began}: {parameter_count(plan.model):,} parameters, "
        f"{plan.total_steps - plan.first_step:,} steps of {tokens_per_step(plan.model, plan.train):,} tokens{padding}, "
        f"{plan.train.dtype} on {device}"
    )
