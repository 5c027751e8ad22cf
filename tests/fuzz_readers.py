"""python tests/fuzz_readers.py --inputs 2000: damaged files for every reader, made from whole ones by seeded mutation.

Each reader must return or raise InputError, of one line: no other exception, no hang, no blow-up of memory. Hashes in
manifests and states are made to fit the damage in half of the cases, so that what lies behind them is reached.
"""

import argparse
import json
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from helpers import ROWS, make_dataset, sha256_hex, sign, sign_state
from safetensors.numpy import load_file, save_file
from weights_samples import write_run

from data_prep.readers import read_rows
from gpt_core import checkpoint, plots
from gpt_core.curves import Curves
from gpt_core.dataset import open_dataset
from gpt_core.errors import InputError
from gpt_core.evaluation import text_stream
from gpt_core.files import checksum
from gpt_core.metrics import FIELDS, read_metrics
from gpt_core.tokens import load_tokenizer
from weights.convert import convert
from weights.hf_read import read_hf
from weights.torch_read import read_torch

LONGEST_S = 10.0
ROOM = 2 * 2**30
"""Bytes of address space that all inputs together may take on top of what the imports took."""
JUNK: tuple[Any, ...] = (None, True, -1, 0, 1.5, 10**30, 2**31, 2**63, "", "x" * 5000, "..", "/etc/passwd", "\ud800", [], {})
JUNK += ([1, 2], {"a": 1}, "9" * 5000, float("nan"), float("inf"), "step_000001", [[[]]])
TEXTS: tuple[bytes, ...] = (
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b"9" * 50_000,
    b"NaN",
    b"\0" * 1000,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r" * 999,
    b"",
)
TEXTS += (b"PAR1", b"PK\x03\x04", b"\x80\x04\x95", b"GGUF", (2**63).to_bytes(8, "little"), b'"' * 999, b"\xf0\x9f\x98")


@dataclass(frozen=True)
class Target:
    """A reader, the file that is damaged, and what makes hashes agree with the damage."""

    folder: Path
    file: str
    read: Callable[[Path], object]
    """Of the folder."""
    sign: Callable[[Path], None] | None = None


def targets(home: Path) -> dict[str, Target]:
    """Everything that reads a file, on whole files under `home`."""
    data, run = make_dataset(home / "data"), home / "run"
    write_run(run)
    step = "step_000030"
    record = dict.fromkeys(FIELDS, 1.5) | {"val_loss": 2.5}
    (run / "metrics.jsonl").write_text("".join(json.dumps(record | {"step": n}) + "\n" for n in range(1, 9)))
    convert(run, home / "hf", "hf")
    tensors = load_file(home / "hf" / "model.safetensors")
    (home / "pt").mkdir()
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, home / "pt" / "model.pt")
    shutil.copytree(home / "hf", home / "sharded")
    (home / "sharded" / "model.safetensors").unlink()
    save_file(tensors, home / "sharded" / "model-1.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-1.safetensors")}
    (home / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(home / "hf" / name, home / "pt" / name)
    rows = home / "rows"
    rows.mkdir()
    (rows / "rows.txt").write_text("\n".join(ROWS), encoding="utf-8")
    (rows / "rows.jsonl").write_text("\n".join(json.dumps({"Text": row}, ensure_ascii=False) for row in ROWS), encoding="utf-8")
    (rows / "rows.csv").write_text("n,Text\n" + "".join(f'{n},"{row}"\n' for n, row in enumerate(ROWS)), encoding="utf-8")
    pq.write_table(pa.table({"Text": list(ROWS), "n": list(range(len(ROWS)))}), rows / "rows.parquet")

    def load_step(folder: Path) -> object:
        return checkpoint.load(folder / step)

    def draw(folder: Path) -> object:
        curves = Curves(read_metrics(folder / "metrics.jsonl"))
        return plots.loss_figure(curves), plots.grad_norm_figure(curves)

    tokenizer = load_tokenizer(data / "tokenizer.json")
    made = {f"dataset, {name}": Target(data, name, open_dataset, sign_data) for name in ("manifest.json", "tokenizer.json")}
    made |= {f"dataset, {path.name}": Target(data, path.name, open_dataset, sign_data) for path in sorted(data.glob("*.bin"))}
    made |= {"tokenizer": Target(data, "tokenizer.json", lambda folder: load_tokenizer(folder / "tokenizer.json"))}
    for name in (checkpoint.STATE, checkpoint.CONFIG, checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.TOKENIZER):
        made[f"checkpoint, {name}"] = Target(run, f"{step}/{name}", load_step, sign_step)
    made["latest"] = Target(run, "latest", lambda folder: checkpoint.find(folder, "--checkpoint"))
    made["metrics.jsonl"] = Target(run, "metrics.jsonl", draw)
    for name in ("rows.txt", "rows.jsonl", "rows.csv", "rows.parquet"):
        made[name] = Target(rows, name, partial(rows_in, name))
    made["text to score"] = Target(rows, "rows.txt", lambda folder: text_stream(folder / "rows.txt", tokenizer))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        made[f"Hugging Face folder, {name}"] = Target(home / "hf", name, read_hf)
    made["Hugging Face index"] = Target(home / "sharded", "model.safetensors.index.json", read_hf)
    made[".pt"] = Target(home / "pt", "model.pt", lambda folder: read_torch(folder / "model.pt"))
    return made


def rows_in(name: str, folder: Path) -> object:
    """All rows of a file of a folder."""
    return list(read_rows(folder / name))


def sign_data(folder: Path) -> None:
    """Makes the manifest agree with the damage, and gives it a checksum."""
    sign(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"format_version": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"checksum": checksum(manifest)}), encoding="utf-8")


def sign_step(folder: Path) -> None:
    """Makes state.json agree with the damage."""
    step = folder / "step_000030"
    state = json.loads((step / "state.json").read_text(encoding="utf-8"))
    state["files"] = {name: sha256_hex(step / name) for name in state["files"]}
    state["tokenizer_sha256"] = state["files"]["tokenizer.json"]
    (step / "state.json").write_text(json.dumps(state), encoding="utf-8")
    sign_state(step)


def damage(content: bytes, draw: random.Random) -> bytes:
    """Damaged bytes: as JSON where it is any, else by bits, bytes, slices and well-known troublemakers."""
    if content[:1] in (b"{", b"[") and draw.random() < 0.6:
        try:
            lines = content.split(b"\n") if content.count(b"\n{") else [content]
            number = draw.randrange(len(lines))
            lines[number] = json.dumps(damage_value(json.loads(lines[number]), draw)).encode()
            return b"\n".join(lines)
        except ValueError:
            pass
    raw = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        here = draw.randrange(min(len(raw), 200) if draw.random() < 0.5 and raw else len(raw) + 1) if raw else 0
        there = min(len(raw), here + draw.choice((1, 2, 8, 100, 5000)))
        kind = draw.randrange(8)
        if kind == 0 and raw:
            raw[here % len(raw)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del raw[here:]
        elif kind == 2:
            del raw[here:there]
        elif kind == 3:
            raw[here:here] = draw.choice(TEXTS)
        elif kind == 4:
            raw[here:there] = draw.choice(TEXTS)
        elif kind == 5:
            raw[here:here] = raw[here:there] * draw.choice((1, 3, 50))
        elif kind == 6:
            raw[here:there] = draw.randbytes(there - here)
        else:
            raw[here:there] = bytes(there - here)
    return bytes(raw)


def damage_value(value: Any, draw: random.Random) -> Any:
    """A JSON value in which something, anywhere in it, is another, is missing, or is there under another name."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        return draw.choice(JUNK)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    kind = draw.randrange(8)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[draw.choice(("", "x" * 1000, "format_version", "h.999999.ln_1.bias", str(key)[1:]))] = value.pop(key)
    elif kind == 2 and isinstance(value, list):
        value.extend(value[:1] * draw.choice((1, 1000)))
    else:
        value[key] = damage_value(value[key], draw)
    return value


def attempt(target: Target, folder: Path, seed: int) -> tuple[str, float]:
    """Damages a copy in `folder` and reads it: what came of it ("read", "refused" or what must not be), and the seconds."""
    draw = random.Random(seed)
    shutil.copytree(target.folder, folder)
    path = folder / target.file
    path.write_bytes(damage(path.read_bytes(), draw))
    if target.sign and draw.random() < 0.5:
        with suppress(ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):  # too damaged to be signed
            target.sign(folder)
    begin = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        target.read(folder)
        outcome = "read"
    except InputError as error:
        outcome = "refused" if 0 < len(str(error)) < 2000 else f"a message of {len(str(error))} characters"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        shutil.rmtree(folder)
    return outcome, time.perf_counter() - begin


def too_long(_number: int, _frame: object) -> None:
    """Signal handler of the clock."""
    raise TimeoutError(f"longer than {LONGEST_S} s")


def fuzz(home: Path, inputs: int) -> dict[str, Any]:
    """The figures of `inputs` damaged files, spread evenly over all readers."""
    home.mkdir(exist_ok=True)
    readers = targets(home)
    signal.signal(signal.SIGALRM, too_long)
    counts: Counter[str] = Counter()
    wrong, longest = [], 0.0
    names = sorted(readers)
    for target in readers.values():  # the whole ones are read: the negative control, and what reading takes anyway
        target.read(target.folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(inputs):
        name = names[seed % len(names)]
        outcome, seconds = attempt(readers[name], home / "damaged", seed)
        counts[outcome if outcome in ("read", "refused") else "wrong"] += 1
        longest = max(longest, seconds)
        if outcome not in ("read", "refused"):
            wrong.append(f"seed {seed}, {name}: {outcome}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    grown_mib = round(grown / (2**20 if sys.platform == "darwin" else 2**10), 1)
    return {"inputs": inputs, "readers": len(names), **counts, "longest_s": round(longest, 3), "grown_mib": grown_mib} | (
        {"failures": wrong} if wrong else {}
    )


def main() -> None:
    """Prints the figures as one JSON object; exit code 1 if something went wrong."""
    parser = argparse.ArgumentParser(description="Damaged files for every reader.")
    parser.add_argument("--inputs", type=int, default=2000, metavar="N")
    inputs = parser.parse_args().inputs
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    with TemporaryDirectory() as temporary:
        figures = fuzz(Path(temporary), inputs)
    print(json.dumps(figures))
    sys.exit(1 if figures.get("wrong") else 0)


if __name__ == "__main__":
    main()
