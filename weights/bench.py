"""python -m weights.bench: seconds and memory of every conversion at full size, and how far the tools are apart."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from gpt_core import checkpoint, cli
from gpt_core.checkpoint import Arrays
from gpt_core.cli import Parser
from gpt_core.config import GPTConfig, presets
from gpt_core.init import initial_weights
from gpt_core.names import parameter_count, parameters
from gpt_core.tokens import load_tokenizer
from weights.check import answers
from weights.compare import difference
from weights.engines import ENGINES
from weights.prompts import PROMPTS

GAIN, POSITION_GAIN, FIRST_GAIN, NORM_SPREAD, BIAS_STD = 2.0, 4.0, 0.1, 0.2, 0.1
ROUTES = (("run", "hf"), ("hf", "twin"), ("run", "model.gguf"))


def lively_weights(model: GPTConfig, used: int, seed: int) -> Arrays:
    """Untrained weights in which every parameter shows: no zero bias, no norm of ones, and positions that matter.

    The rows of <|endoftext|> and of the padding are zero, so that greedy text goes on and stays in the vocabulary; without
    learned positions that of <|endoftext|> is only small, or a text's first token would be zeros in every layer.
    """
    generator, weights = np.random.default_rng(seed), initial_weights(model, seed)
    for parameter in parameters(model):
        noise = generator.standard_normal(parameter.shape, dtype=np.float32)
        if parameter.decays:
            gain = GAIN * math.sqrt(768 / model.n_embd) * (POSITION_GAIN if parameter.name == "wpe.weight" else 1)
            weights[parameter.name] *= np.float32(gain)
        else:
            weights[parameter.name] += noise * np.float32(NORM_SPREAD if parameter.init is None else BIAS_STD)
    weights["wte.weight"][0] *= np.float32(0 if model.positions == "learned" else FIRST_GAIN)
    weights["wte.weight"][used:] = 0
    return weights


def make_checkpoint(folder: Path, model: GPTConfig, tokenizer: Path, seed: int = 1) -> None:
    """A checkpoint of lively weights with moments, as a trainer would leave it."""
    folder.mkdir(exist_ok=True)
    weights = lively_weights(model, load_tokenizer(tokenizer).get_vocab_size(), seed)
    moments = {f"{name}.{moment}": np.abs(value) for name, value in weights.items() for moment in ("m", "v")}
    train = dataclasses.replace(presets()["seed"][1], keep_last=1)
    checkpoint.save(folder, model, train, 100, 204_800, weights, moments, tokenizer, "0" * 64, {"framework": "none"})


def measure(source: Path, destination: Path, to: str) -> dict[str, float]:
    """Wall seconds and peak resident MiB of one conversion in a process of its own, start of Python included."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "weights.convert", str(source), str(destination), "--to", to], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"conversion to {to} ended with exit code {process.returncode}")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": round(time.perf_counter() - begin, 2), "peak_mib": round(usage.ru_maxrss / per_mib)}


def main() -> None:
    """The command."""
    parser = Parser(prog="python -m weights.bench", description="Times the conversions; the last line is JSON.")
    parser.add_argument("--preset", choices=sorted(presets()), default="seed", help="size of the model")
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="FILE", help="a tokenizer.json made by data_prep")
    args = parser.parse_args()
    model = presets()[args.preset][0]
    model_mib = parameter_count(model) * 4 / 2**20
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # in a process of its own: Linux counts a parent's memory as its child's peak
        maker = get_context("spawn").Process(target=make_checkpoint, args=(folder / "run", model, args.tokenizer))
        maker.start()
        maker.join()
        conversions = {}
        for source, made in ROUTES:
            to = made.rpartition(".")[2]
            conversions[to] = measure(folder / source, folder / made, to)
            line = f"{source} -> {to}: {conversions[to]['seconds']} s, {conversions[to]['peak_mib'] / model_mib:.2f} x the size"
            print(line, flush=True)
        shutil.rmtree(folder / "twin")
        apart = {}
        expected = None
        for made, kind in (("run", "twin"), ("hf", "hf"), ("model.gguf", "gguf")):
            for package, engine in ENGINES[kind].items():
                found = answers(engine(folder / made), PROMPTS, [], model.block_size)
                expected = expected or found
                apart[f"{kind}: {package}"] = difference(expected, found)
                print(f"{kind}: {package}: {apart[f'{kind}: {package}']}", flush=True)
    result = {"preset": args.preset, "model_mib": round(model_mib, 1), "conversions": conversions}
    print(json.dumps(result | {"apart_from_torch": {name: dataclasses.asdict(value) for name, value in apart.items()}}))


if __name__ == "__main__":
    cli.run(main)
