"""What the tests of `weights` share: a tokenizer, a small checkpoint in which every parameter shows, and a command runner."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from gpt_core import checkpoint, cli
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.files import sha256
from weights.architectures import GPT_NEOX, QWEN3
from weights.bench import lively_weights
from weights.convert import convert

ROOT = Path(__file__).parents[1]
MODEL = GPTConfig(vocab_size=640, block_size=96, n_layer=2, n_head=2, n_embd=64)
QWEN = GPTConfig(vocab_size=640, block_size=96, n_layer=3, n_head=5, n_embd=80, **QWEN3.options)
"""C = 80, D = 16, F = 256: no two sizes are the same."""
NEOX = dataclasses.replace(QWEN, **GPT_NEOX.options)
"""The same sizes, but F = 320."""
SIZES = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")
TRAIN = TrainConfig(micro_batch_size=2, accumulation=1, steps=40, checkpoint_every=10, val_every=10, val_batches=1)
SENTENCES = (
    "اليوم الجو مليح بزاف ورانا رايحين للبحر مع الدراري",
    "كي نوصل للدار نعيطلك ونهدرو على الخدمة الجديدة",
    "الخبز سخون والقهوة واجدة، أيا نفطرو مع بعض",
    "شحال راه الكيلو تاع البطاطا ليوم؟ غلات بزاف",
    "خويا الصغير يقرا مليح ويحب الحساب والرسم",
    "الطريق معمرة بالطوموبيلات، نروحو في الترامواي خير",
    "يما طيبت الكسكسي بالخضرة واللحم نهار الجمعة",
    "ما عجبنيش الفيلم، كان طويل وما فيه والو",
)


def write_tokenizer(path, vocab_size=600, end_last=False):
    """A byte-level BPE tokenizer.json as data_prep makes it, with <|endoftext|> as id 0, or as OpenAI's last id."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    end = AddedToken("<|endoftext|>", special=True, normalized=False)
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[] if end_last else [end],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer=trainer)
    tokenizer.add_special_tokens([end])
    tokenizer.save(str(path))
    return path


def write_run(run, model=MODEL, step=30, train=TRAIN, manifest="", seed=0, end_last=False):
    """A run folder with one checkpoint of lively weights, moments and a tokenizer; returns the checkpoint."""
    run.mkdir(parents=True)
    tokenizer = write_tokenizer(run / "tokenizer.json", end_last=end_last)
    used = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    weights = lively_weights(model, used, seed)
    moments = {f"{name}.{moment}": np.abs(value) + 1 for name, value in weights.items() for moment in ("m", "v")}
    folder = checkpoint.save(run, model, train, step, step * 192, weights, moments, tokenizer, manifest or "0" * 64, {})
    tokenizer.unlink()
    return folder


def write_exported(folder, model, seed=0):
    """A run in `folder`/run and its Hugging Face folder in `folder`/hf; returns `folder`."""
    write_run(folder / "run", model, seed=seed)
    convert(folder / "run", folder / "hf", "hf")
    return folder


def write_dataset(folder, tokenizer, rows=60):
    """A dataset folder encoded with a given tokenizer, as data_prep lays it out."""
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    encoder = Tokenizer.from_file(str(tokenizer))
    shards = []
    for split, count in (("train", rows), ("val", 20)):
        tokens = [t for i in range(count) for t in (0, *encoder.encode(SENTENCES[i % len(SENTENCES)]).ids)]
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, len(tokens)
        path = folder / f"darija_{split}_000.bin"
        path.write_bytes(header.tobytes() + np.array(tokens, dtype="<u2").tobytes())
        shards.append({"file": path.name, "split": split, "tokens": len(tokens), "sha256": sha256(path)})
    counts = dict.fromkeys(("rows", "words", "bytes", "characters", "tokens"), rows)
    manifest = {
        "format_version": 1,
        "source": {"name": "sample", "files": [{"file": "a.txt", "sha256": "ab" * 32, "bytes": 9}]},
        "options": {"latin": "keep"},
        "splits": {"train": counts, "val": counts},
        "dropped": {"empty": 2},
        "tokenizer": {"sha256": sha256(tokenizer)},
        "shards": shards,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def run_command(*arguments, blocked=(), **environment):
    """`python -m ARGUMENTS...` in the repository root; packages in `blocked` cannot be imported there."""
    code = "import runpy, sys; [sys.modules.__setitem__(name, None) for name in sys.argv[1].split(',') if name]; "
    code += "sys.argv = sys.argv[2:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    return subprocess.run(
        [sys.executable, "-c", code, ",".join(blocked), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def command(monkeypatch, capfd, action, *arguments):
    """What a command's main does with these arguments: its exit code, and what it printed."""
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.run(action)
    return end.value.code, capfd.readouterr()


def changed_config(folder, changes):
    """Changes keys of a folder's config.json; "absent" takes one out."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}), encoding="utf-8")


def size_flags(model):
    """The trainers' flags for a model with GPT-2's options."""
    return [f"--{name.replace('_', '-')}={getattr(model, name)}" for name in SIZES]


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def with_weights(folder, weights, target):
    """A copy of a checkpoint with other weights."""
    loaded = checkpoint.load(folder)
    target.mkdir(parents=True)
    tokenizer = folder / "tokenizer.json"
    return checkpoint.save(
        target,
        loaded.model,
        dataclasses.replace(TRAIN, keep_last=1),
        loaded.step,
        0,
        weights,
        loaded.moments,
        tokenizer,
        "",
        {},
    )
