"""Whatever is wrong with a checkpoint is refused by name, never loaded and never a traceback."""

import shutil

import numpy as np
import pytest
from helpers import edit_json, flip, make_tokenizer, sha256_hex, sign_state
from safetensors.numpy import save_file

from gpt_core import checkpoint
from gpt_core.checkpoint import load, read_arrays
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.init import initial_weights

MODEL = GPTConfig(vocab_size=11, block_size=5, n_layer=1, n_head=3, n_embd=6)
FILES = ("model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json", "state.json")
POSITIONS = np.random.default_rng(2024).random(6)  # of a file's length; the same at every run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint to copy."""
    run = tmp_path_factory.mktemp("run")
    make_tokenizer(vocab_size=270).save(str(run / "tokenizer.json"))
    weights = initial_weights(MODEL, 1)
    moments = {f"{name}.{moment}": value for name, value in weights.items() for moment in "mv"}
    return checkpoint.save(
        run, MODEL, TrainConfig(), 500, 9, weights, moments, run / "tokenizer.json", "ab" * 32, {"torch": "2"}
    )


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "step_000500")


def sign(folder):
    """Makes state.json agree with the files as they are now, and with itself."""
    edit_json(folder / "state.json", lambda state: state.update(files={name: sha256_hex(folder / name) for name in FILES[:4]}))
    sign_state(folder)


def test_the_copy_is_whole(folder):
    """Negative control of everything below."""
    assert load(folder).step == 500
    sign(folder)
    assert load(folder).step == 500


@pytest.mark.parametrize("mask", [1, 128])
@pytest.mark.parametrize("position", [0.0, *POSITIONS, 1.0])
@pytest.mark.parametrize("name", FILES[:4])
def test_one_flipped_bit_is_refused(folder, name, position, mask):
    size = (folder / name).stat().st_size
    flip(folder / name, min(int(position * size), size - 1), mask)
    with pytest.raises(InputError, match=name):
        load(folder)


@pytest.mark.parametrize("text", ['"step": 500', '"tokens": 9', '"torch": "2', 'manifest_sha256": "a', 'tokenizer_sha256": "'])
def test_one_flipped_bit_in_the_state_is_refused(folder, text):
    path = folder / "state.json"
    position = path.read_bytes().index(text.encode()) + len(text) - 1
    flip(path, position + 1 if text.endswith('"') else position)
    with pytest.raises(InputError, match=r"state\.json"):
        load(folder)


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_a_flipped_bit_in_the_structure_of_the_state_is_refused(folder, position):
    """The first bytes: brace, line end, indentation. 128 makes them no UTF-8."""
    flip(folder / "state.json", position, 128)
    with pytest.raises(InputError, match=r"state\.json"):
        load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        load(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 7, 100])
def test_a_truncated_file_is_named(folder, name, size):
    (folder / name).write_bytes((folder / name).read_bytes()[:size])
    with pytest.raises(InputError, match=name):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("step"),
        lambda s: s.update(step="500"),
        lambda s: s.update(step=-1),
        lambda s: s.update(step=1.5),
        lambda s: s.update(format_version=2),
        lambda s: s.pop("files"),
        lambda s: s["files"].pop("config.json"),
        lambda s: s["files"].update(more="x"),
        lambda s: s.update(files=3),
        lambda s: s.update(manifest_sha256=None),
        lambda s: s.pop("tokenizer_sha256"),
        lambda s: s.update(tokenizer_sha256="ab" * 32),  # not that of files["tokenizer.json"]
        lambda s: s["files"].update({"config.json": 5}),
        pytest.param(lambda s: s.update(files=list(s["files"]))),
    ],
)
def test_a_state_with_a_wrong_field(folder, change):
    """Signed: it is the field that is refused, not the checksum."""
    edit_json(folder / "state.json", change)
    sign_state(folder)
    with pytest.raises(InputError, match=r"state\.json is not the state|config\.json does not have the SHA-256"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(step=501),
        lambda s: s.update(manifest_sha256="cd" * 32),
        lambda s: s["versions"].update(torch="3"),
        lambda s: s.update(more=1),
        lambda s: s.pop("tokens"),
        lambda s: s.pop("checksum"),
        lambda s: s.update(checksum=None),
        lambda s: s.update(checksum="ab" * 32),
    ],
)
def test_a_state_that_lost_its_checksum(folder, change):
    edit_json(folder / "state.json", change)
    with pytest.raises(InputError, match=r"state\.json does not have its own checksum"):
        load(folder)
    sign_state(folder)
    load(folder)  # negative control: nothing else is wrong with it


@pytest.mark.parametrize("content", ["[]", "null", "{", "[" * 100_000])
@pytest.mark.parametrize("name", ["state.json", "config.json"])
def test_json_that_is_no_object(folder, name, content):
    (folder / name).write_text(content)
    if name == "config.json":
        sign(folder)
    with pytest.raises(InputError, match=name):
        load(folder)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda c: c["model"].update(n_layer=2), "h.1.ln_1.weight"),
        (lambda c: c["model"].update(n_embd=9), "wte.weight as F32 [11, 6], expected F32 [11, 9]"),
        (lambda c: c["model"].update(block_size=6), "wpe.weight as F32 [5, 6], expected F32 [6, 6]"),
        (lambda c: c["model"].update(n_head=4), "--n-head 4"),
        (lambda c: c["model"].pop("n_embd"), "n_embd"),
        (lambda c: c["train"].update(smoothing=0.1), "smoothing"),
        (lambda c: c.update(more={}), "more"),
    ],
)
def test_a_config_that_the_weights_do_not_fit(folder, change, part):
    edit_json(folder / "config.json", change)
    sign(folder)
    with pytest.raises(InputError) as error:
        load(folder)
    assert part in str(error.value)


SHAPES = {"a.weight": (2, 3), "b.bias": (4,)}
GOOD = {"a.weight": np.ones((2, 3), np.float32), "b.bias": np.ones(4, np.float32)}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"b.bias": None}, ["missing ['b.bias']", "unknown none"]),
        ({"c": np.ones(1, np.float32)}, ["missing none", "unknown ['c']"]),
        ({"b.bias": None, "B.bias": GOOD["b.bias"]}, ["missing ['b.bias']", "unknown ['B.bias']"]),
        ({"a.weight": GOOD["a.weight"].T.copy()}, ["a.weight as F32 [3, 2], expected F32 [2, 3]"]),
        ({"a.weight": np.ones((1, 2, 3), np.float32)}, ["a.weight as F32 [1, 2, 3]"]),
        ({"b.bias": np.ones(4, np.float16)}, ["b.bias as F16 [4], expected F32 [4]"]),
        ({"b.bias": np.ones(4, np.float64)}, ["b.bias as F64"]),
        ({"b.bias": np.ones(4, np.int32)}, ["b.bias as I32"]),
    ],
)
def test_tensors_that_differ_are_listed_by_name(tmp_path, change, parts):
    path = tmp_path / "m.safetensors"
    save_file({name: value for name, value in (GOOD | change).items() if value is not None}, path)
    with pytest.raises(InputError, match=r"m\.safetensors") as error:
        read_arrays(path, SHAPES)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_tensors_that_fit_are_read(tmp_path):
    save_file(GOOD, tmp_path / "m.safetensors")
    found = read_arrays(tmp_path / "m.safetensors", SHAPES)
    assert all((found[name] == GOOD[name]).all() for name in SHAPES)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"\xff" * 64, b"\3" + bytes(7) + b"{}x", b"{}"])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_arrays(tmp_path / "m.safetensors", SHAPES)
