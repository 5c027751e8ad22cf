"""python tests/fault_bits.py: flips every bit, one at a time, of a small dataset and of a small checkpoint.

Each flip must be found before anything is trained on: bad data are refused, and a run falls back to the checkpoint before
and says so. `--stride N` flips every Nth bit only.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import ROWS, make_tokenizer

from data_prep.options import Options
from data_prep.pipeline import prepare
from data_prep.report import read_details
from data_prep.sources import open_source
from gpt_core import checkpoint
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.dataset import open_dataset, open_test
from gpt_core.errors import InputError
from gpt_core.init import initial_weights

MODEL = GPTConfig(vocab_size=280, block_size=5, n_layer=1, n_head=1, n_embd=2)
Finds = Callable[[], bool]


def make_data(folder: Path) -> Path:
    """A dataset folder as data_prep makes it."""
    (folder / "rows.txt").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    options = Options(latin="keep", vocab_size=262, shards=3, val_fraction=0.3, test_fraction=0.3, seed=1)
    prepare(open_source([str(folder / "rows.txt")]), folder / "data", options)
    return folder / "data"


def read_all(data: Path) -> None:
    """Opens a dataset folder and what is read from it on demand: the test split, and the file for the report."""
    dataset = open_dataset(data)
    open_test(dataset)
    read_details(data, dataset.manifest)


def make_run(run: Path) -> Path:
    """A run folder with checkpoints of steps 4, 5 and 6: digits that are one bit apart."""
    run.mkdir()
    make_tokenizer(vocab_size=262).save(str(run / "tokenizer.json"))
    for step in (4, 5, 6):
        weights = initial_weights(MODEL, step)
        moments = {f"{name}.{moment}": value for name, value in weights.items() for moment in "mv"}
        versions = {"framework": "torch", "torch": "2.13.0+cpu"}
        tokenizer, manifest = run / "tokenizer.json", "ab" * 32
        checkpoint.save(run, MODEL, TrainConfig(), step, 9 * step, weights, moments, tokenizer, manifest, versions)
    return run


def refused(read: Callable[[], object]) -> bool:
    """Whether reading raises InputError."""
    try:
        read()
    except InputError:
        return True
    return False


def falls_back(run: Path) -> bool:
    """Whether the run goes on from another checkpoint, or from the named one, and says so in one line."""
    said = io.StringIO()
    with redirect_stderr(said):
        loaded = checkpoint.load_newest_intact(run, "--run")
    return said.getvalue().count("\n") == 1 and f"going on from {loaded.folder}" in said.getvalue()


def flip_bits(path: Path, finds: Finds, stride: int) -> tuple[int, list[int]]:
    """Flips every `stride`th bit of a file; returns how many those were and which were not found."""
    content = path.read_bytes()
    bits = range(0, 8 * len(content), stride)
    missed = []
    with open(path, "r+b", buffering=0) as file:
        for bit in bits:
            place = bit // 8
            file.seek(place)
            file.write(bytes([content[place] ^ (1 << bit % 8)]))
            if not finds():
                missed.append(bit)
            file.seek(place)
            file.write(content[place : place + 1])
    return len(bits), missed


def main() -> None:
    """Prints flips and finds of each file as one JSON object; exit code 1 if one was missed."""
    parser = argparse.ArgumentParser(description="Flips the bits of a dataset and of a checkpoint.")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth bit only")
    stride = parser.parse_args().stride
    flipped, missed = {}, {}
    with TemporaryDirectory() as temporary:
        data, run = make_data(Path(temporary)), make_run(Path(temporary) / "run")
        newest = checkpoint.step_folder(run, 6)
        files: dict[Path, Finds] = {path: lambda: refused(lambda: read_all(data)) for path in sorted(data.rglob("*.*"))}
        files |= {path: lambda: refused(lambda: checkpoint.load(newest)) for path in sorted(newest.iterdir())}
        for path, finds in files.items():
            assert not finds(), f"control: {path} is whole"
            flipped[f"{path.parent.name}/{path.name}"], missed[path.name] = flip_bits(path, finds, stride)
        assert not falls_back(run), "control: the run is whole"
        for path in (run / "latest", newest / "model.safetensors", newest / "state.json", newest / "tokenizer.json"):
            few = 1 if path.name == "latest" else 97 * stride
            flipped[f"falls back, {path.name}"], missed[f"falls back, {path.name}"] = flip_bits(
                path, lambda: falls_back(run), few
            )
    lost = {name: bits for name, bits in missed.items() if bits}
    print(json.dumps({"flipped": flipped, "in all": sum(flipped.values()), "missed": lost}))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
