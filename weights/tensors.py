"""safetensors files as lazily read tensors: the header is checked against the file's size before anything is allocated.

numpy has no bfloat16, which the safetensors package therefore cannot read without a framework; hence an own reader.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpt_core.errors import InputError
from gpt_core.files import MAX_JSON_BYTES, read_json

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
OTHER_BYTES = {"F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes a value of dtypes that are no weights: causal masks, which old versions of transformers stored, are left unread."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet; `read` gives float32, without a copy where the file holds float32."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


Tensors = Mapping[str, Tensor]


def open_folder(folder: Path) -> Tensors:
    """The tensors of model.safetensors, or of the shards that model.safetensors.index.json names."""
    if (folder / SINGLE).is_file():
        return open_file(folder / SINGLE)
    index = folder / INDEX
    if not index.is_file():
        raise InputError(f"{folder} holds neither {SINGLE} nor {INDEX}: give a Hugging Face folder with safetensors weights")
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(f"{index} has no weight_map of names to files: restore the file")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise InputError(f"{index} names the shard {shard[:80]!r}, which is not a file of {folder}: restore it")
        found = open_file(folder / shard)
        promised = {name for name, place in shards.items() if place == shard}
        if promised != set(found):
            name = sorted(promised ^ set(found))[0]
            raise InputError(f"{index} and {shard} disagree about {name[:80]!r}: restore the files")
        tensors |= found
    return tensors


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, mapped into memory and read when asked for."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_JSON_BYTES):
            raise InputError(f"{path} claims a header of {length} bytes in a file of {size}: it is no whole safetensors file")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("the header is not an object")
        header.pop("__metadata__", None)
        entries = {name: _entry(entry, size - 8 - length) for name, entry in header.items()}
        _refuse_holes([(begin, end) for _, _, begin, end in entries.values()], size - 8 - length)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} has a broken safetensors header ({reason}): restore the file") from error
    if not entries:
        raise InputError(f"{path} holds no tensors: restore the file")
    data = np.memmap(path, dtype=np.uint8, mode="c", offset=8 + length)  # private: torch wants to be able to write
    return {
        name: Tensor(shape, partial(_float32, data[begin:end], dtype, shape, f"{path} holds {name}"))
        for name, (dtype, shape, begin, end) in entries.items()
    }


def _entry(entry: Any, available: int) -> tuple[str, tuple[int, ...], int, int]:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    sizes = OTHER_BYTES | {name: found.itemsize for name, found in DTYPES.items()}
    if not isinstance(dtype, str) or dtype not in sizes:
        raise ValueError(f"dtype {dtype!r} is not one of {', '.join(sizes)}")
    if not isinstance(shape, list) or len(shape) > 4 or not all(type(n) is int and n > 0 for n in [*shape, begin + 1, end]):
        raise ValueError("a shape or an offset is not a list of sizes")
    if end > available or end - begin != math.prod(shape) * sizes[dtype]:
        raise ValueError(f"a tensor of {math.prod(shape)} {dtype} at bytes {begin} to {end} of {available}")
    return dtype, tuple(shape), begin, end


def _refuse_holes(spans: list[tuple[int, int]], available: int) -> None:
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError(f"tensors overlap or leave a hole at byte {position}")
        position = end
    if position != available:
        raise ValueError(f"tensors end at byte {position} of {available}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands there twice")
    return dict(pairs)


def _float32(data: np.ndarray, dtype: str, shape: tuple[int, ...], what: str) -> np.ndarray:
    if dtype not in DTYPES:
        raise InputError(f"{what} as {dtype}, expected one of {', '.join(DTYPES)}: it cannot be converted")
    values = data.view(DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(values, dtype=np.float32)
