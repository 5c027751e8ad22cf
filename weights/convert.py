"""python -m weights.convert: a model from one format to another. Needs no framework but for .pt files."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from gpt_core import checkpoint, cli
from gpt_core.cli import Parser
from gpt_core.errors import InputError
from gpt_core.files import make_parents
from gpt_core.names import parameter_count
from weights.architectures import architecture_of
from weights.destination import refuse_destination
from weights.gguf_write import write_gguf
from weights.hf_read import read_hf
from weights.hf_write import write_hf
from weights.source import Source, read_twin
from weights.torch_read import read_torch
from weights.twin_write import refuse_other_step, write_twin

WRITERS: dict[str, Callable[[Source, Path], None]] = {"twin": write_twin, "hf": write_hf, "gguf": write_gguf}


def kind_of(path: Path) -> str:
    """The format of a path: twin, hf, torch or gguf. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path} does not exist: give a checkpoint, a Hugging Face folder, a .pt or a .gguf file")
    if path.is_file():
        if path.suffix == ".gguf":
            return "gguf"
        if path.suffix in (".pt", ".pth", ".bin"):
            return "torch"
        raise InputError(f"{path} is a file of another kind: give a .pt or .gguf file, a checkpoint or a Hugging Face folder")
    if (path / checkpoint.STATE).exists() or (path / checkpoint.LATEST).exists() or checkpoint.step_folders(path):
        return "twin"
    if (path / "config.json").is_file():
        return "hf"
    raise InputError(f"{path} holds neither {checkpoint.STATE} nor config.json: give a checkpoint or a Hugging Face folder")


def read(path: Path, moments: bool = False) -> Source:
    """A model of any format that can be converted from, with the moments of a twin checkpoint if wanted. Raises InputError."""
    kind = kind_of(path)
    if kind == "gguf":
        raise InputError(f"SRC {path} is a GGUF file, which is only written: convert the folder that it was made from")
    if kind == "twin":
        return read_twin(path, moments)
    return read_hf(path) if kind == "hf" else read_torch(path)


def convert(source: Path, destination: Path, to: str, overwrite: bool = False) -> Source:
    """Converts, completely or not at all, and returns what was read. Raises InputError."""
    if to == "gguf" and destination.suffix != ".gguf":
        raise InputError(f"DST {destination} does not end in .gguf: --to gguf writes one file")
    refuse_destination(source, destination, overwrite, is_file=to == "gguf")
    model = read(source, moments=to == "twin")
    if to == "twin":
        refuse_other_step(model, destination)
    else:
        architecture_of(model.model, f"SRC {source}")  # a mixture of options is refused before anything is made
    make_parents(destination, "DST")
    WRITERS[to](model, destination)
    return model


def main() -> None:
    """The command."""
    parser = Parser(prog="python -m weights.convert", description="Converts a model; the last line is JSON.")
    parser.add_argument("source", type=Path, metavar="SRC", help="checkpoint or run folder, Hugging Face folder, or .pt file")
    parser.add_argument("destination", type=Path, metavar="DST", help="folder to make, or the .gguf file")
    parser.add_argument("--to", choices=sorted(WRITERS), required=True, help="format to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result at DST")
    args = parser.parse_args()
    begin = time.perf_counter()
    model = convert(args.source, args.destination, args.to, args.overwrite)
    result = {
        "source": str(args.source),
        "destination": str(args.destination),
        "to": args.to,
        "parameters": parameter_count(model.model),
        "step": model.records.step,
        "moments": bool(model.moments) and args.to == "twin",
        "seconds": round(time.perf_counter() - begin, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    cli.run(main)
