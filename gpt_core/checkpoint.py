"""A checkpoint belongs to neither framework: float32 weights and moments by name, configuration, state, tokenizer."""

import dataclasses
import json
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gpt_core.config import GPTConfig, TrainConfig, from_dict
from gpt_core.errors import InputError
from gpt_core.files import checksum, naming, new_folder, read_json, remove_folder, sha256, write_text
from gpt_core.names import moment_shapes, parameters

FORMAT_VERSION = 1
MODEL, OPTIMIZER, CONFIG, STATE, TOKENIZER = (
    "model.safetensors",
    "optimizer.safetensors",
    "config.json",
    "state.json",
    "tokenizer.json",
)
LATEST, INIT_FROM = "latest", "init_from"
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. Arrays are float32; moments are `<name>.m` and `<name>.v`, or none after an import.

    `manifest_sha256` is empty for a model that was not trained on a dataset of ours.
    """

    folder: Path
    model: GPTConfig
    train: TrainConfig
    step: int
    manifest_sha256: str
    tokenizer_sha256: str
    weights: Arrays
    moments: Arrays
    versions: dict[str, str]
    """Of what wrote it: `framework` is mlx, torch, weights.convert or weights.average; `init_from` the SHA-256 of the
    model.safetensors that --init-from began with, if it did."""


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is kept."""
    return run / f"step_{step:06d}"


def config_json(model: GPTConfig, train: TrainConfig) -> str:
    """Both configurations as the text of config.json."""
    return json.dumps({"model": dataclasses.asdict(model), "train": dataclasses.asdict(train)}, indent=2) + "\n"


def save(
    run: Path,
    model: GPTConfig,
    train: TrainConfig,
    step: int,
    tokens: int,
    weights: Arrays,
    moments: Arrays,
    tokenizer: Path,
    manifest_sha256: str,
    versions: dict[str, str],
) -> Path:
    """Writes step_NNNNNN/ beside and renames it into place, moves `latest`, then removes all but the newest ones."""
    folder = step_folder(run, step)
    write(folder, model, train, step, tokens, weights, moments, tokenizer.read_bytes(), manifest_sha256, versions)
    write_text(run / LATEST, folder.name + "\n")
    keep_newest(run, step, train.keep_last)
    return folder


def keep_newest(run: Path, step: int, count: int) -> None:
    """Removes all but the newest `count` checkpoints up to `step`; later ones are of a run that was set back."""
    older = [path for path in step_folders(run) if _step_of(path) <= step]
    for old in older[:-count]:
        remove_folder(old)


def write(
    folder: Path,
    model: GPTConfig,
    train: TrainConfig,
    step: int,
    tokens: int,
    weights: Arrays,
    moments: Arrays,
    tokenizer: bytes,
    manifest_sha256: str,
    versions: dict[str, str],
) -> None:
    """Writes one checkpoint folder, complete or not at all. Arrays are float32 and contiguous."""
    with new_folder(folder) as beside:
        # safetensors writes memory as it lies: a transposed array would be saved scrambled
        weights, moments = ({name: np.ascontiguousarray(a) for name, a in part.items()} for part in (weights, moments))
        for name, arrays in ((MODEL, weights), (OPTIMIZER, moments)):
            with naming(beside / name):
                save_file(arrays, beside / name, metadata={"format": "pt"})
        for name, content in ((CONFIG, config_json(model, train).encode()), (TOKENIZER, tokenizer)):
            with naming(beside / name):
                (beside / name).write_bytes(content)
        state = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "tokens": tokens,
            "manifest_sha256": manifest_sha256,
            "tokenizer_sha256": sha256(beside / TOKENIZER),
            "versions": {"python": platform.python_version(), "numpy": np.__version__} | versions,
            "files": {name: sha256(beside / name) for name in (MODEL, OPTIMIZER, CONFIG, TOKENIZER)},
        }
        state["checksum"] = checksum(state)
        with naming(beside / STATE):
            (beside / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def step_folders(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not run.is_dir():
        return []
    found = [path for path in run.iterdir() if re.fullmatch(r"step_\d{6,}", path.name) and path.is_dir()]
    return sorted(found, key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def find(path: Path, flag: str) -> Path:
    """The checkpoint folder that `path` names: itself, or the latest of a run folder. Raises InputError."""
    if (path / STATE).is_file():
        return path
    if (path / LATEST).is_file():
        name = (path / LATEST).read_text(encoding="utf-8", errors="replace").removesuffix("\n")
        if re.fullmatch(r"step_\d{6,}", name) and (path / name / STATE).is_file():
            return path / name
        raise InputError(f"{path / LATEST} names {name[:20]!r}, which is not a checkpoint: there are {_there(path)}")
    whole = [folder for folder in step_folders(path) if (folder / STATE).is_file()]
    if whole:  # a crash, or an import, left no `latest`
        return whole[-1]
    if not path.is_dir():
        raise InputError(f"{flag} {path} does not exist: give a run folder or one of its step_NNNNNN folders")
    raise InputError(f"{flag} {path} is no checkpoint, {STATE} is missing: there are {_there(path)}")


def load(folder: Path, moments: bool = True) -> Checkpoint:
    """Reads a checkpoint after checking its hashes, and its names and shapes against the contract table.

    Without `moments` their file is neither checked nor read: two thirds of the bytes.
    """
    state = read_json(folder / STATE, "use another checkpoint")
    try:
        version, step = state["format_version"], state["step"]
        hashes, manifest, tokenizer = state["files"], state["manifest_sha256"], state["tokenizer_sha256"]
        whole = isinstance(step, int) and step >= 0 and isinstance(manifest, str) and isinstance(tokenizer, str)
        versions = state["versions"]
        whole = whole and isinstance(hashes, dict) and hashes.get(TOKENIZER) == tokenizer and isinstance(versions, dict)
        if version != FORMAT_VERSION or not whole or set(hashes) != {MODEL, OPTIMIZER, CONFIG, TOKENIZER}:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / STATE} is not the state of a checkpoint of format version {FORMAT_VERSION}") from error
    if state.get("checksum") != checksum(state):
        raise InputError(f"{folder / STATE} does not have its own checksum: it is corrupt, use another checkpoint")
    for name, expected in hashes.items():
        if name == OPTIMIZER and not moments:
            continue
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: the checkpoint is not whole, use another one")
        if sha256(folder / name) != expected:
            raise InputError(f"{folder / name} does not have the SHA-256 in {STATE}: it is corrupt, use another checkpoint")
    config = read_json(folder / CONFIG, "use another checkpoint")
    if set(config) != {"model", "train"}:
        raise InputError(f"{folder / CONFIG} has the keys {str(sorted(config))[:200]}, expected model and train")
    model = from_dict(GPTConfig, config["model"], str(folder / CONFIG))
    train = from_dict(TrainConfig, config["train"], str(folder / CONFIG))
    shapes = {parameter.name: parameter.shape for parameter in parameters(model)}
    return Checkpoint(
        folder=folder,
        model=model,
        train=train,
        step=step,
        manifest_sha256=manifest,
        tokenizer_sha256=tokenizer,
        weights=read_arrays(folder / MODEL, shapes),
        moments=_read_moments(folder / OPTIMIZER, moment_shapes(model, train)) if moments else {},
        versions=versions,
    )


def load_newest_intact(run: Path, flag: str) -> Checkpoint:
    """The latest checkpoint of a run, or, told on stderr, the newest one that is whole. Raises InputError.

    Also told: a `latest` that does not name the newest one. It is followed, since it may have been set back on purpose,
    or the process died before it moved `latest`; but one flipped bit makes the name of another step as well.
    """
    there, problems = step_folders(run)[::-1], []
    if (run / LATEST).is_file():
        try:
            named = find(run, flag)
            if named != there[0]:
                problems.append(f"{run / LATEST} names {named.name}, though {there[0].name} is there")
            there.sort(key=lambda folder: folder != named)
        except InputError as error:
            problems.append(str(error))
    for folder in there:
        try:
            loaded = load(folder)
        except InputError as error:
            problems.append(str(error))
            continue
        if problems:
            print(f"warning: {'; '.join(problems)}; going on from {folder}", file=sys.stderr)
        return loaded
    raise InputError(problems[0])


def read_arrays(path: Path, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """The float32 arrays of a safetensors file, which must be exactly those of `shapes`; InputError lists what differs."""
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            if names != set(shapes):
                missing, extra = sorted(set(shapes) - names), sorted(names - set(shapes))
                raise InputError(f"{path} does not fit its config: missing {missing or 'none'}, unknown {extra or 'none'}")
            for name, shape in shapes.items():
                found = file.get_slice(name)
                if tuple(found.get_shape()) != shape or found.get_dtype() != "F32":
                    raise InputError(
                        f"{path} has {name} as {found.get_dtype()} {found.get_shape()}, expected F32 {list(shape)}"
                    )
            return {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): use another checkpoint") from error


def _read_moments(path: Path, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    with suppress(SafetensorError), safe_open(path, framework="np") as file:
        if not file.keys():  # imported from a source that has none
            return {}
    return read_arrays(path, shapes)


def _there(run: Path) -> str:
    return ", ".join(path.name for path in step_folders(run)) or "no step_NNNNNN folders in it"
