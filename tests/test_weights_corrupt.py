"""500 generated corruptions of a Hugging Face folder: each is one line on stderr and exit code 2, and nothing is written."""

import json
import random
import resource
import shutil
import sys
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from weights_samples import write_run

from gpt_core import cli
from weights.convert import convert, main

CORRUPTIONS = 500
GROWTH_LIMIT = 64  # MiB over all of them; measured: 9, for files of 0.7 MB
JUNK: tuple[Any, ...] = (None, "12", -1, 0, 1.5, True, [], {}, 10**30, "x" * 10_000, [1, 2], {"a": 1})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A whole folder with one weight file, and one with shards."""
    home = tmp_path_factory.mktemp("corrupt")
    convert(write_run(home / "run"), home / "single", "hf")
    shutil.copytree(home / "single", home / "sharded")
    tensors = load_file(home / "single" / "model.safetensors")
    (home / "sharded" / "model.safetensors").unlink()
    placed = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(sorted(tensors))}
    for shard in set(placed.values()):
        save_file({name: tensors[name] for name in tensors if placed[name] == shard}, home / "sharded" / shard)
    (home / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return home


def cut(path, draw):
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size - 2)])


def break_utf8(path, end, draw):
    raw = bytearray(path.read_bytes())
    raw[draw.randrange(8 if end else 0, end or len(raw))] = 0xFF
    path.write_bytes(raw)


def not_an_object(path, draw):
    path.write_text(draw.choice(["[]", "1", "null", '"text"', "", "{", "[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "NaN"]))


def rewrite(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def corrupt_json(path, draw, changes):
    """One of the changes to its object, or one of three that leave none."""
    kind = draw.randrange(len(changes) + 3)
    if kind == len(changes):
        cut(path, draw)
    elif kind == len(changes) + 1:
        break_utf8(path, 0, draw)
    elif kind == len(changes) + 2:
        not_an_object(path, draw)
    else:
        rewrite(path, changes[kind])


def header_length(path, raw, length, draw):
    claimed = draw.choice([0, 1, length - 1, length + 8, len(raw) - 7, 10**8, 2**40, 2**63, 2**64 - 1, draw.randrange(length)])
    path.write_bytes(claimed.to_bytes(8, "little") + raw[8:])


def header_entry(path, raw, length, draw):
    header = json.loads(raw[8 : 8 + length])
    name = draw.choice(sorted(set(header) - {"__metadata__"}))
    entry = header[name]
    size = entry["data_offsets"][1] - entry["data_offsets"][0]
    kind = draw.randrange(8)
    if kind == 0:
        del header[name]
    elif kind == 1:
        header[draw.choice(["", "h.9.attn.c_attn.bias", "h.999999.ln_1.bias", "x" * 1000])] = header.pop(name)
    elif kind == 2:
        header[name] = draw.choice(JUNK)
    elif kind == 3:
        entry["dtype"] = draw.choice(["F64", "I64", "f32", "", *JUNK])
    elif kind == 4:
        entry["shape"] = draw.choice(
            [[1, *entry["shape"]], entry["shape"] * 2, [-1], [0], [2**40], ["64"], [1.5], [1] * 100, *JUNK]
        )
    elif kind == 5:
        entry["data_offsets"] = draw.choice([[0, 0], [size, 0], [-size, 0], [0, 2**40], [1, size + 1], [0], ["0", "1"], *JUNK])
    elif kind == 6:
        entry |= {"shape": [2**38], "data_offsets": [0, 2**40]}  # a terabyte
    else:
        del entry[draw.choice(sorted(entry))]
    text = json.dumps(header)
    if draw.random() < 0.1:
        text = text[:-1] + "," + json.dumps(name) + ": " + json.dumps(entry) + "," + json.dumps(name) + ": {}}"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + raw[8 + length :])


def corrupt_weights(folder, draw):
    path = draw.choice(sorted(folder.glob("*.safetensors")))
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    kind = draw.randrange(6)
    if kind == 0:
        cut(path, draw)
    elif kind == 1:
        path.write_bytes(raw + bytes(draw.randrange(1, 100)))
    elif kind == 2:
        break_utf8(path, 8 + len(raw[8 : 8 + length].rstrip()), draw)
    elif kind == 3:
        header_length(path, raw, length, draw)
    else:
        header_entry(path, raw, length, draw)


def corrupt_config(folder, draw):
    path = folder / "config.json"
    fields = ("vocab_size", "n_positions", "n_layer", "n_head", "n_embd")
    fixed = (
        "activation_function",
        "layer_norm_epsilon",
        "scale_attn_by_inverse_layer_idx",
        "tie_word_embeddings",
        "model_type",
    )
    changes = [
        lambda config: config.pop(draw.choice([*fields, "model_type"])),
        lambda config: config.update({draw.choice(fields): draw.choice(JUNK)}),
        lambda config: config.update({(name := draw.choice(fields)): config[name] * 2 + 1}),
        lambda config: config.update({draw.choice(fixed): draw.choice(["gelu", 0.5, [], {}, None, "x" * 10_000])}),
        lambda config: config["darija_gpt"].update(
            {draw.choice(["step", "tokens", "train", "new"]): draw.choice(["1", -1, None, {}])}
        ),
        lambda config: config["darija_gpt"]["train"].update(
            {draw.choice(["lr", "seed", "dtype", "new"]): draw.choice(["1", None, -1])}
        ),
    ]
    corrupt_json(path, draw, changes)


def corrupt_tokenizer(folder, draw):
    path = folder / "tokenizer.json"

    def any_token(data):
        return draw.choice(sorted(data["model"]["vocab"]))

    changes = [
        lambda data: data.pop("model"),
        lambda data: data["model"].pop(draw.choice(["vocab", "merges"])),
        lambda data: data["model"].update(type=draw.choice(["WordPiece", "Nothing", 3, None])),
        lambda data: data["model"]["vocab"].update({any_token(data): draw.choice([-1, 2**31, 2**40, "a", None, 1.5, []])}),
        lambda data: data["model"]["vocab"].pop(any_token(data)),
        lambda data: data["model"].update(vocab=draw.choice([{}, [], None, 3])),
        lambda data: data["model"].update(merges=draw.choice([["zz qq"], [["a"]], [1], "ab", None, 3])),
        lambda data: data["added_tokens"][0].update(content=draw.choice(["<|start|>", 3, None])),
        lambda data: data.update(pre_tokenizer=draw.choice([{"type": "Nothing"}, 3, []])),
        lambda data: data.update(version=draw.choice(["9.0", 1, None])),
    ]
    corrupt_json(path, draw, changes)


def corrupt_index(folder, draw):
    path = folder / "model.safetensors.index.json"

    def place(index, shard):
        index["weight_map"][draw.choice(sorted(index["weight_map"]))] = shard

    elsewhere = [
        "../run/latest",
        "/etc/hostname",
        "model-9.safetensors",
        "",
        ".",
        "..",
        "a" * 300,
        "model-0.safetensors\0",
        "config.json",
    ]
    changes = [
        lambda index: index.pop("weight_map"),
        lambda index: index.update(weight_map=draw.choice(JUNK)),
        lambda index: place(index, draw.choice(JUNK)),
        lambda index: place(index, draw.choice(elsewhere)),
        lambda index: index["weight_map"].pop(draw.choice(sorted(index["weight_map"]))),
        lambda index: index["weight_map"].update({"h.7.ln_1.bias": "model-0.safetensors"}),
    ]
    corrupt_json(path, draw, changes)


def test_corruptions_are_refused(folders, tmp_path, capsys, monkeypatch):
    kinds = (corrupt_weights, corrupt_weights, corrupt_config, corrupt_tokenizer, corrupt_index)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = []
    for seed in range(CORRUPTIONS):
        draw, kind = random.Random(seed), kinds[seed % len(kinds)]
        base = "sharded" if kind is corrupt_index or draw.random() < 0.3 else "single"
        folder = shutil.copytree(folders / base, tmp_path / "source")
        kind(folder, draw)
        monkeypatch.setattr("sys.argv", ["convert", str(folder), str(tmp_path / "made"), "--to", draw.choice(["twin", "hf"])])
        try:
            cli.run(main)
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
        shown = capsys.readouterr()
        line = shown.err.startswith("error: ") and shown.err.count("\n") == 1 and len(shown.err) < 1000 and not shown.out
        left = sorted(path.name for path in tmp_path.iterdir())
        if code != 2 or not line or left != ["source"]:
            wrong.append((seed, kind.__name__, code, shown.err[:300], left))
        shutil.rmtree(folder)
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
    assert not wrong, f"{len(wrong)} of {CORRUPTIONS}: {wrong[:10]}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown / (2**20 if sys.platform == "darwin" else 2**10) < GROWTH_LIMIT


@pytest.mark.parametrize("name", ["single", "sharded"])
def test_the_whole_folders_are_read(folders, tmp_path, name):
    convert(folders / name, tmp_path / "made", "twin")
    assert (tmp_path / "made" / "state.json").is_file()


def test_a_terabyte_is_refused_by_size(folders, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(folders / "single", tmp_path / "source")
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes((10**12).to_bytes(8, "little") + raw[8:])
    monkeypatch.setattr("sys.argv", ["convert", str(folder), str(tmp_path / "made"), "--to", "twin"])
    with pytest.raises(SystemExit) as end:
        cli.run(main)
    assert end.value.code == 2
    assert "claims a header of 1000000000000 bytes" in capsys.readouterr().err
