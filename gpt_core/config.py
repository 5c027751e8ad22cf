"""Configuration: the model, the training run, and the presets. Every field is a command-line flag of both trainers."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from gpt_core.cli import flag
from gpt_core.errors import InputError

DType = Literal["float32", "bfloat16", "float16"]
MLP = Literal["gelu", "swiglu"]
Optimizer = Literal["adamw", "muon"]
Norm = Literal["layernorm", "rmsnorm"]
Positions = Literal["learned", "rope"]
Schedule = Literal["constant", "linear", "cosine"]

ROPE_BASE, RMS_EPS = 10_000.0, 1e-6
"""Of RoPE's angles and of RMSNorm, in both twins and in what they export."""


MUON_LR = 0.02


def option(default: Any, help: str, *, on_resume: str = "fixed", added: bool = False) -> Any:
    """A documented field. `on_resume`: "fixed" if a resumed run must keep it, "free" if it only steers the run, "product" if
    it may change as long as the sequences of a step stay the same.

    `added`: files of earlier versions lack the field, and mean its default.
    """
    return field(default=default, metadata={"help": help, "on_resume": on_resume, "added": added})


@dataclass(frozen=True)
class GPTConfig:
    """Architecture: a pre-norm decoder with tied embedding and head. The defaults are GPT-2's; with RoPE they are
    GPT-NeoX's, and all other choices together (RoPE, RMSNorm, QK-norm, SwiGLU, no biases) Qwen3's. These three can be exported
    (docs/weights.md)."""

    vocab_size: int = option(10_240, "rows of the embedding, tokens; those beyond the tokenizer's are padding")
    block_size: int = option(512, "context length, tokens")
    n_layer: int = option(12, "transformer blocks")
    n_head: int = option(12, "attention heads a block")
    n_embd: int = option(768, "width of the residual stream")
    positions: Positions = option("learned", "a learned vector a position, or rotated queries and keys (RoPE)", added=True)
    norm: Norm = option("layernorm", "normalization before each layer and before the head", added=True)
    qk_norm: bool = option(False, "RMSNorm of every query and key", added=True)
    mlp: MLP = option("gelu", "tanh GELU, 4 x width wide, or SwiGLU, 8/3 x width rounded up to a multiple of 64", added=True)
    bias: bool = option(True, "biases in the linear layers", added=True)

    def __post_init__(self) -> None:
        _check_positive(self, "vocab_size", "block_size", "n_layer", "n_head", "n_embd")
        if self.n_embd % self.n_head:
            raise InputError(f"--n-embd {self.n_embd} is not a multiple of --n-head {self.n_head}: change one of them")
        if self.vocab_size > 65_536:
            raise InputError(f"--vocab-size {self.vocab_size} is over 65536, the most that uint16 shards can hold")
        if self.positions == "rope" and self.n_embd // self.n_head % 2:
            raise InputError(f"--positions rope rotates pairs: --n-embd {self.n_embd} / --n-head {self.n_head} must be even")

    @property
    def n_hidden(self) -> int:
        """Values between the linear layers of an MLP."""
        return 4 * self.n_embd if self.mlp == "gelu" else math.ceil(8 * self.n_embd / 3 / 64) * 64


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of a run; together with GPTConfig and the data it determines every batch and every learning rate."""

    micro_batch_size: int = option(2, "sequences in one forward and backward pass", on_resume="product")
    accumulation: int = option(2, "micro-batches whose gradients are summed for one optimizer step", on_resume="product")
    document_mask: bool = option(
        False, "pack whole rows into sequences, and let no row see another, in attention, positions and loss", added=True
    )
    dropout: float = option(0.0, "share of the values that embedding, attention and MLP add which a step drops", added=True)
    token_noise: float = option(0.0, "share of the tokens read that are replaced by others of the step's batch", added=True)
    epochs: int = option(2, "passes over the training tokens; ignored when steps is given", on_resume="horizon")
    steps: int | None = option(None, "optimizer steps in all, instead of epochs", on_resume="horizon")
    schedule: Schedule = option("constant", "learning rate after warm-up: constant, or linear or cosine decay")
    optimizer: Optimizer = option(
        "adamw", "AdamW for all parameters, or Muon for the matrices of the layers and AdamW for the rest", added=True
    )
    lr: float = option(1e-3, "peak learning rate of AdamW")
    muon_lr: float = option(MUON_LR, "peak learning rate of Muon, which follows the same schedule", added=True)
    min_lr: float = option(0.0, "learning rate at the end of a linear or cosine decay")
    warmup_steps: int = option(0, "optimizer steps over which the learning rate rises linearly to its peak")
    beta1: float = option(0.9, "AdamW decay rate of the first moment, a step")
    beta2: float = option(0.999, "AdamW decay rate of the second moment, a step")
    weight_decay: float = option(0.01, "decoupled weight decay of the matrices, times the learning rate a step")
    grad_clip: float = option(1.0, "largest global norm of the gradient, larger ones are scaled down to it")
    seed: int = option(1337, "seed of the initial weights and of the order of the batches")
    dtype: DType = option("float32", "dtype of the matrix products; weights and moments stay float32", on_resume="free")
    val_every: int = option(20, "optimizer steps between validations", on_resume="free")
    val_batches: int = option(
        4, "micro-batches of packed windows, and about as many tokens of rows, a validation", on_resume="free"
    )
    checkpoint_every: int = option(500, "optimizer steps between checkpoints", on_resume="free")
    keep_last: int = option(3, "checkpoints kept, the newest ones", on_resume="free")

    def __post_init__(self) -> None:
        _check_positive(self, "micro_batch_size", "accumulation", "epochs", "val_every", "val_batches", "checkpoint_every")
        _check_positive(self, "keep_last", "grad_clip", "lr", "muon_lr")
        if self.steps is not None:
            _check_positive(self, "steps")
        for name in ("min_lr", "warmup_steps", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{flag(name)} {getattr(self, name)} is out of range: give 0 or more")
        for name in ("beta1", "beta2", "dropout", "token_noise"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{flag(name)} {getattr(self, name)} is out of range: give at least 0 and less than 1")
        if self.min_lr > self.lr:
            raise InputError(f"--min-lr {self.min_lr} is above --lr {self.lr}: the schedule only decays")
        if self.schedule == "constant" and self.min_lr > 0:
            raise InputError(f"--min-lr {self.min_lr} has no effect with --schedule constant: drop it, or decay")
        if self.optimizer == "adamw" and self.muon_lr != MUON_LR:
            raise InputError(f"--muon-lr {self.muon_lr} has no effect with --optimizer adamw: drop it, or choose muon")

    @property
    def sequences_per_step(self) -> int:
        """Sequences in one optimizer step, over all micro-batches."""
        return self.micro_batch_size * self.accumulation


def presets() -> dict[str, tuple[GPTConfig, TrainConfig]]:
    """Named starting points.

    `seed` is the reference run, `tiny` learns visibly in minutes on two CPU cores. `fast` is to reach what `seed` ends at for
    the least arithmetic, `best` the fewest bits a byte that the same rows give a single model (docs/recipes.md).
    """
    neox = GPTConfig(block_size=128, positions="rope")
    qwen = dataclasses.replace(neox, norm="rmsnorm", qk_norm=True, mlp="swiglu", bias=False)
    rows = TrainConfig(
        micro_batch_size=16,
        accumulation=1,
        document_mask=True,
        schedule="linear",
        optimizer="muon",
        lr=3e-3,
        beta2=0.99,
        weight_decay=0.1,
    )
    return {
        "seed": (GPTConfig(), TrainConfig()),
        "tiny": (
            GPTConfig(block_size=64, n_layer=4, n_head=4, n_embd=128),
            TrainConfig(
                micro_batch_size=8,
                accumulation=1,
                steps=600,
                schedule="linear",
                warmup_steps=20,
                weight_decay=0.1,
                val_every=50,
                checkpoint_every=200,
            ),
        ),
        "fast": (
            dataclasses.replace(neox, n_layer=4, n_head=4, n_embd=128),
            dataclasses.replace(rows, epochs=1, warmup_steps=30, val_every=100),
        ),
        "best": (
            dataclasses.replace(qwen, n_layer=6, n_head=4, n_embd=256),
            dataclasses.replace(rows, epochs=8, dropout=0.1, token_noise=0.1, warmup_steps=60, val_every=250),
        ),
    }


Config = TypeVar("Config", GPTConfig, TrainConfig)


def from_dict(config: type[Config], values: Any, origin: str) -> Config:
    """The inverse of dataclasses.asdict, with every key and type checked; `origin` names the file in errors."""
    hints = get_type_hints(config)
    added = {item.name for item in dataclasses.fields(config) if item.metadata["added"]}
    differing = set(values) ^ set(hints) if isinstance(values, dict) else set()
    if not isinstance(values, dict) or differing - added:
        found = sorted(differing - added) or type(values).__name__
        raise InputError(f"{origin} does not describe a {config.__name__}: missing or unknown {str(found)[:200]}")
    for name, value in values.items():
        if not _has_type(value, hints[name]):
            raise InputError(f"{origin} has {name} = {repr(value)[:60]}, expected {_type_name(hints[name])}")
    try:
        return config(**values)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def refuse_other_recipe(stored: TrainConfig, given: TrainConfig, origin: str) -> None:
    """Raises InputError where continuing `stored` as `given` would not be the same run; names flags and both values."""
    for item in dataclasses.fields(TrainConfig):
        old, new = getattr(stored, item.name), getattr(given, item.name)
        rule = item.metadata["on_resume"]
        if item.name == "epochs" and stored.steps is not None and given.steps is not None:
            continue  # not used
        if rule == "product" and stored.sequences_per_step == given.sequences_per_step:
            continue
        if old != new and (rule in ("fixed", "product") or (rule == "horizon" and given.schedule != "constant")):
            raise InputError(
                f"{flag(item.name)} {new} differs from {old} in {origin}: give the same, or start anew with another --run"
            )


def refuse_other_model(stored: GPTConfig, given: GPTConfig, origin: str, remedy: str = "or another --run") -> None:
    """Raises InputError naming the first flag in which the two models differ, with both values."""
    for item in dataclasses.fields(GPTConfig):
        old, new = getattr(stored, item.name), getattr(given, item.name)
        if old != new:
            raise InputError(f"{flag(item.name)} {new} differs from {old} in {origin}: give the same, {remedy}")


def _check_positive(config: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise InputError(f"{flag(name)} {getattr(config, name)} is not positive: give a number above 0")


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    return (
        " or ".join(_type_name(arg) for arg in get_args(hint))
        if get_args(hint)
        else "None"
        if hint is type(None)
        else hint.__name__
    )


def _has_type(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_args(hint):
        return any(_has_type(value, arg) for arg in get_args(hint))
    if hint is bool:
        return isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and not isinstance(value, bool)
