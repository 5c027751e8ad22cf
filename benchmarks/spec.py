"""What a worker is to run: one engine on one device in one dtype. Imports no framework: the parent process has none."""

import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gpt_core.config import DType, GPTConfig, TrainConfig, from_dict
from gpt_core.errors import InputError
from weights.architectures import GPT2, others


class Engine(NamedTuple):
    """A library that trains the model: the module that drives it, the packages it needs, the devices it knows."""

    module: str
    packages: tuple[str, ...]
    devices: tuple[str, ...]
    generates: bool = True
    """Whether it has a KV cache to generate with."""


TORCH_DEVICES = ("auto", "mps", "cuda", "cpu")  # as torch_gpt.device.DEVICES, which only a process with torch can ask
MLX_DEVICES = ("auto", "gpu", "cpu")
ENGINES = {
    "mlx": Engine("benchmarks.mlx_work", ("mlx",), MLX_DEVICES),
    "torch": Engine("benchmarks.torch_work", ("torch",), TORCH_DEVICES),
    "transformers": Engine("benchmarks.peer_transformers", ("torch", "transformers"), TORCH_DEVICES),
    "mlx-lm": Engine("benchmarks.peer_mlx_lm", ("mlx", "mlx_lm"), MLX_DEVICES),
    "mlx-plain": Engine("benchmarks.peer_mlx_plain", ("mlx",), MLX_DEVICES, generates=False),
    "nanogpt": Engine("benchmarks.peer_nanogpt", ("torch",), TORCH_DEVICES, generates=False),
}
BACKENDS = ("mlx", "torch")
PEERS = ("transformers", "mlx-lm", "mlx-plain", "nanogpt")


@dataclass(frozen=True)
class Spec:
    """One worker's task. All workers of a run have the same model, recipe and token shard."""

    engine: str
    device: str
    dtype: DType
    model: GPTConfig
    train: TrainConfig
    shard: str
    """File of training tokens."""
    checkout: str | None = None
    """Folder of nanoGPT's model.py; None for every other engine."""

    @property
    def label(self) -> str:
        """Its name in tables and messages."""
        return f"{self.engine} {self.device} {self.dtype}"

    def to_json(self) -> str:
        """One line for the worker."""
        return json.dumps(dataclasses.asdict(self))


def from_json(line: str) -> Spec:
    """The inverse of Spec.to_json."""
    values: dict[str, Any] = json.loads(line)
    model = from_dict(GPTConfig, values.pop("model"), "the task")
    return Spec(model=model, train=from_dict(TrainConfig, values.pop("train"), "the task"), **values)


def engines(backends: str, peers: str | None) -> dict[str, str | None]:
    """Engine -> nanoGPT checkout or None, from --backends and --peers. Raises InputError for what is not there."""
    chosen: dict[str, str | None] = {}
    for name in backends.split(","):
        if name not in BACKENDS:
            raise InputError(f"--backends {name}: choose among {', '.join(BACKENDS)}, parted by commas")
        chosen[name] = None
    for peer in peers.split(",") if peers else ():
        name, _, path = peer.partition("=")
        if name not in PEERS:
            raise InputError(f"--peers {peer}: choose among transformers, mlx-lm, mlx-plain, nanogpt=PATH, parted by commas")
        if (name == "nanogpt") != bool(path):
            raise InputError(f"--peers {peer}: nanogpt takes a folder, nanogpt=PATH, and the others take none")
        if path and not Path(path, "model.py").is_file():
            raise InputError(f"--peers nanogpt={path} has no model.py: give the folder of a nanoGPT checkout")
        chosen[name] = str(Path(path).resolve()) if path else None
    for name in chosen:
        for package in ENGINES[name].packages:
            if importlib.util.find_spec(package) is None:
                flag = "--backends" if name in BACKENDS else "--peers"
                raise InputError(f"{flag} {name} needs the package {package}: pip install {package.replace('_', '-')}")
    return chosen


def beyond_peers(train: TrainConfig) -> list[str]:
    """What of a recipe the peers would not do: beside them, the twins would be timed with more work."""
    plain = TrainConfig()
    return [
        f"{name.replace('_', ' ')} {getattr(train, name)}"
        for name in ("optimizer", "document_mask", "dropout", "token_noise")
        if getattr(train, name) != getattr(plain, name)
    ]


def specs(
    chosen: dict[str, str | None], devices: str, dtypes: str, model: GPTConfig, train: TrainConfig, shard: Path
) -> list[Spec]:
    """A task for each engine, each of the devices that it knows, and each dtype."""
    peers = [name for name in chosen if name in PEERS]
    if peers and (options := others(model, GPT2)):
        raise InputError(f"--peers {','.join(peers)}: GPT-2 is what they run, not {', '.join(options)}: leave them out")
    if peers and (options := beyond_peers(train)):
        raise InputError(
            f"--peers {','.join(peers)}: AdamW on packed windows is what they run, not {', '.join(options)}: take "
            "--preset seed or tiny, or leave the peers out"
        )
    made = []
    known = {device for engine in ENGINES.values() for device in engine.devices}
    for device in devices.split(","):
        if device not in known:
            raise InputError(f"--device {device}: choose among {', '.join(sorted(known))}, parted by commas")
    for dtype in dtypes.split(","):
        for name, checkout in chosen.items():
            fitting = [device for device in devices.split(",") if device in ENGINES[name].devices]
            if not fitting:
                choices = ", ".join(ENGINES[name].devices)
                raise InputError(f"--device {devices} has none for {name}, which knows {choices}: add one, as in gpu,mps")
            recipe = from_dict(TrainConfig, dataclasses.asdict(train) | {"dtype": dtype}, f"--dtype {dtype}")
            made += [Spec(name, device, recipe.dtype, model, recipe, str(shard), checkout) for device in fitting]
    if len(set(made)) < len(made):
        raise InputError(f"--device {devices} or --dtype {dtypes} names one twice: name each once")
    return made
