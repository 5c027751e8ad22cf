"""Reading a foreign PyTorch file: a nanoGPT ckpt.pt, or a state dict of a GPT-2. The one place where a pickle is opened."""

import dataclasses
import pickle
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig, TrainConfig, from_dict
from gpt_core.errors import InputError
from gpt_core.files import read_json
from weights.architectures import GPT2, architecture_of
from weights.hf_read import plain_names, read_config
from weights.source import Records, Source, contract_weights
from weights.table import rows
from weights.tensors import Tensor, Tensors
from weights.tokenizer import read_tokenizer, refuse_too_many

NANOGPT_TRAIN = {
    "batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "accumulation",
    "max_iters": "steps",
    "learning_rate": "lr",
    "min_lr": "min_lr",
    "warmup_iters": "warmup_steps",
    "beta1": "beta1",
    "beta2": "beta2",
    "weight_decay": "weight_decay",
    "grad_clip": "grad_clip",
}


def read_torch(path: Path) -> Source:
    """A .pt file with tokenizer.json beside it, and config.json too unless it is nanoGPT's. Raises InputError."""
    loaded = _load(path)
    state = loaded.get("model", loaded)
    if not isinstance(state, dict) or not all(hasattr(value, "detach") for value in state.values()):
        raise InputError(f"{path} holds no state dict: expected names with tensors, or a nanoGPT checkpoint")
    arguments = loaded.get("model_args")
    model = _nanogpt_config(arguments, str(path)) if "model_args" in loaded else _config_beside(path)
    other = architecture_of(model, str(path))
    if other is not GPT2:
        raise InputError(f"{path} is of a {other.name} model, of GPT-2 only is a .pt file read: give its Hugging Face folder")
    text, tokenizer = read_tokenizer(path.parent / "tokenizer.json")
    refuse_too_many(tokenizer, model.vocab_size, str(path))
    tensors = plain_names({str(name): _tensor(value, f"{path} holds {name}") for name, value in state.items()}, GPT2, str(path))
    order = list(tensors)
    tensors |= _zero_biases(tensors, model) if isinstance(arguments, dict) and arguments.get("bias") is False else {}
    first = tensors.get("h.0.attn.c_attn.weight")
    conv1d = first is not None and first.shape == (model.n_embd, 3 * model.n_embd)
    weights = contract_weights(tensors, model, conv1d, str(path))
    step = loaded.get("iter_num", 0)
    records = Records(train=_nanogpt_train(loaded.get("config")), step=step if type(step) is int and step > 0 else 0)
    moments = _moments(loaded.get("optimizer"), order, weights, conv1d, str(path))
    return Source(path, model, weights, text, records, moments)


def _load(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{path} is a PyTorch file, which needs the package torch to be read: pip install torch") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it calls {found[1]}" if found else "it is damaged, or calls code"
        raise InputError(f"{path} is refused: only tensors and plain values are read from a .pt file, {reason}") from error
    except Exception as error:  # torch raises what its zip and pickle readers happen to raise
        raise InputError(f"{path} is not a whole PyTorch file ({type(error).__name__}): restore it") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path} holds a {type(loaded).__name__}, expected a state dict or a nanoGPT checkpoint")
    return loaded


def _tensor(value: Any, what: str) -> Tensor:
    def read() -> np.ndarray:  # of weights alone: masks are of other dtypes, and left unread
        if not value.is_floating_point() or str(value.layout) != "torch.strided":
            raise InputError(f"{what} as {value.dtype}, expected dense floating-point numbers: it cannot be converted")
        return np.asarray(value.detach().float().numpy())

    return Tensor(tuple(value.shape), read)


def _nanogpt_config(arguments: Any, origin: str) -> GPTConfig:
    names = list(GPT2.fields.values())  # nanoGPT's `bias` is not ours: missing ones are read as zeros
    if not isinstance(arguments, dict) or not set(names) <= set(arguments):
        raise InputError(f"{origin} has no model_args with {', '.join(names)}: it is no nanoGPT checkpoint")
    return from_dict(GPTConfig, {name: arguments[name] for name in names}, f"model_args of {origin}")


def _config_beside(path: Path) -> GPTConfig:
    config = path.parent / "config.json"
    if not config.is_file():
        raise InputError(f"{config} is missing: a state dict does not say how many heads it has, put its config there")
    values = read_json(config)
    if set(values) == {"model", "train"}:
        return from_dict(GPTConfig, values["model"], str(config))
    return read_config(values, str(config))


def _zero_biases(tensors: Tensors, model: GPTConfig) -> dict[str, Tensor]:
    """The biases of a nanoGPT model without any: zeros compute the same."""
    C, widths = model.n_embd, {"c_attn": 3, "c_fc": 4}
    zeros = {}
    for row in rows(GPT2.table, model.n_layer if model.n_layer <= len(tensors) else 0):
        if row.hf.endswith(".bias") and row.hf not in tensors:
            width = C * widths.get(row.hf.split(".")[-2], 1)
            zeros[row.hf] = Tensor((width,), partial(np.zeros, width, dtype=np.float32))
    return zeros


def _nanogpt_train(config: Any) -> TrainConfig:
    """nanoGPT's recipe as far as ours has the same fields and values; what does not fit is left at our default."""
    if not isinstance(config, dict):
        return TrainConfig()
    given = {ours: config[theirs] for theirs, ours in NANOGPT_TRAIN.items() if theirs in config}
    decays = config.get("decay_lr") is True
    given |= {"schedule": "cosine"} if decays else {"schedule": "constant", "min_lr": 0.0, "warmup_steps": 0}
    try:
        return from_dict(TrainConfig, dataclasses.asdict(TrainConfig()) | given, "config")
    except InputError:
        return TrainConfig()


def _moments(optimizer: Any, order: list[str], weights: Arrays, conv1d: bool, origin: str) -> Arrays:
    """AdamW's moments by contract name, zeros for biases that the source does not have; nothing if there are none.

    torch numbers parameters group by group: all of them in the order of the state dict, or matrices, then vectors.
    """
    if not isinstance(optimizer, dict) or not optimizer.get("state"):
        return {}
    n_layer = 1 + max(int(name.split(".")[1]) for name in order if name[:2] == "h.")
    turned = {row.twin for row in rows(GPT2.table, n_layer) if row.conv1d and conv1d}
    names = order
    if len(optimizer["param_groups"]) == 2:
        names = sorted(order, key=lambda name: weights[name].ndim < 2)
    state = optimizer["state"]
    if sorted(state) != list(range(len(names))):
        raise InputError(f"{origin} has moments of {len(state)} tensors and {len(names)} tensors: it is damaged")
    if not all({"exp_avg", "exp_avg_sq"} <= set(values) for values in state.values()):
        return {}  # another optimizer's: the weights are worth having without
    moments = {}
    for index, name in enumerate(names):
        for ours, theirs in (("m", "exp_avg"), ("v", "exp_avg_sq")):
            values = state[index][theirs].float().numpy()
            values = values.T if name in turned else values
            if values.shape != weights[name].shape:
                raise InputError(
                    f"{origin} has a moment of shape {list(values.shape)} for {name}: its groups are not nanoGPT's"
                )
            moments[f"{name}.{ours}"] = values
    absent = {f"{name}.{moment}": name for name in weights if name not in names for moment in ("m", "v")}
    return moments | {moment: np.zeros(weights[name].shape, np.float32) for moment, name in absent.items()}
