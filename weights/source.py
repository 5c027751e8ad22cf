"""What any format is read into, and the reader of twin checkpoints."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt_core import checkpoint
from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig, TrainConfig, from_dict
from gpt_core.errors import InputError
from gpt_core.flops import tokens_per_step
from gpt_core.names import parameters
from weights.architectures import Architecture, architecture_of
from weights.table import from_hf, layers_in, refuse_left_over, rows, stored_shape
from weights.tensors import Tensors
from weights.tokenizer import read_tokenizer, refuse_too_many


@dataclass(frozen=True)
class Records:
    """How the weights came about, as far as it is known; it travels with them through a Hugging Face folder."""

    train: TrainConfig = field(default_factory=TrainConfig)
    step: int = 0
    tokens: int = 0
    """Training tokens seen."""
    manifest_sha256: str = ""
    """Of the dataset's manifest; empty if the model was not trained here."""


@dataclass(frozen=True)
class Source:
    """A model read from any format: weights by contract name, float32, often views of a mapped file."""

    path: Path
    model: GPTConfig
    weights: Arrays
    tokenizer: str
    """Text of tokenizer.json, as data_prep writes it."""
    records: Records = field(default_factory=Records)
    moments: Arrays = field(default_factory=dict)
    """`<name>.m` and `<name>.v`, or nothing."""
    known: bool = False
    """Whether the records are known, or defaults."""
    maker: str = ""
    """What wrote the twin checkpoint: mlx, torch, weights.convert or weights.average; empty for other formats."""
    base: str = ""
    """SHA-256 of the model.safetensors that training began with; empty if it began with random weights, or is not known."""

    @property
    def architecture(self) -> Architecture:
        """What other tools know it as. Raises InputError for a mixture of options."""
        return architecture_of(self.model, str(self.path))


def read_twin(path: Path, moments: bool = False) -> Source:
    """A twin checkpoint or run folder; its moments are for another twin checkpoint, no other tool has a place for them."""
    loaded = checkpoint.load(checkpoint.find(path, "SRC"), moments)
    text, tokenizer = read_tokenizer(loaded.folder / checkpoint.TOKENIZER)
    refuse_too_many(tokenizer, loaded.model.vocab_size, str(loaded.folder))
    tokens = loaded.step * tokens_per_step(loaded.model, loaded.train)
    records = Records(loaded.train, loaded.step, tokens, loaded.manifest_sha256)
    known = bool(loaded.manifest_sha256)
    maker, base = (loaded.versions.get(name, "") for name in ("framework", checkpoint.INIT_FROM))
    return Source(loaded.folder, loaded.model, loaded.weights, text, records, loaded.moments, known, maker, base)


def records_to_dict(records: Records) -> dict[str, Any]:
    """Records as plain JSON values."""
    return dataclasses.asdict(records)


def records_from_dict(values: Any, origin: str) -> Records:
    """The inverse of `records_to_dict`, every key and type checked."""
    names = {item.name for item in dataclasses.fields(Records)}
    if not isinstance(values, dict) or set(values) != names:
        raise InputError(f"{origin} has a broken record of the training run: remove darija_gpt from it, or restore it")
    step, tokens, manifest = values["step"], values["tokens"], values["manifest_sha256"]
    if type(step) is not int or type(tokens) is not int or min(step, tokens) < 0 or not isinstance(manifest, str):
        raise InputError(f"{origin} has a broken record of the training run: remove darija_gpt from it, or restore it")
    return Records(from_dict(TrainConfig, values["train"], origin), step, tokens, manifest)


def contract_weights(tensors: Tensors, model: GPTConfig, conv1d: bool, origin: str) -> Arrays:
    """Tensors under Hugging Face's names -> contract weights. `conv1d`: linear layers are stored (in, out).

    Raises InputError for names left over on either side, for shapes that the configuration does not have, and for a model that
    is of no architecture of Hugging Face's.
    """
    if layers_in(tensors) != model.n_layer:  # before a table of that many layers is made
        raise InputError(f"{origin} has the tensors of {layers_in(tensors)} layers, its config says {model.n_layer}")
    filled = rows(architecture_of(model, origin).table, model.n_layer)
    refuse_left_over([row.hf for row in filled], tensors, origin)
    shapes = {parameter.name: parameter.shape for parameter in parameters(model)}
    for row in filled:
        shape = stored_shape(row, shapes[row.twin])
        expected = shape[::-1] if row.conv1d and conv1d else shape
        if tensors[row.hf].shape != expected:
            raise InputError(f"{origin} has {row.hf} of shape {list(tensors[row.hf].shape)}, its config says {list(expected)}")
    turned = {row.hf: tensors[row.hf].read().T if row.conv1d and conv1d else tensors[row.hf].read() for row in filled}
    return from_hf(turned, filled, model.n_head)
