"""Checkpoints: exact, whole or absent, and refused with a reason when anything in them is wrong."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import flip, make_tokenizer, sha256_hex, sign_state

from gpt_core import checkpoint, files
from gpt_core.checkpoint import find, load, step_folder, step_folders
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.errors import InputError
from gpt_core.names import parameters

MODEL = GPTConfig(vocab_size=11, block_size=5, n_layer=1, n_head=3, n_embd=6)
TRAIN = TrainConfig(steps=9, lr=0.1, keep_last=2)
SHAPES = {p.name: p.shape for p in parameters(MODEL)}
FILES = ("model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json", "state.json")


def arrays(seed: int, suffixes: tuple[str, ...] = ("",)) -> checkpoint.Arrays:
    """Random values for the whole table; subnormal, infinite and signed-zero ones are among them."""
    generator = np.random.default_rng(seed)
    found = {n + s: generator.standard_normal(shape, dtype=np.float32) for n, shape in SHAPES.items() for s in suffixes}
    found["wte.weight" + suffixes[0]][0, :4] = np.array([-0.0, 1e-42, np.inf, 3.4e38], dtype=np.float32)
    return found


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    make_tokenizer(vocab_size=270).save(str(path))
    return path


@pytest.fixture
def save(tmp_path, tokenizer_file):
    """Saves a checkpoint of a step into tmp_path."""

    def call(step: int, train: TrainConfig = TRAIN, weights: checkpoint.Arrays | None = None) -> Path:
        weights, moments = weights or arrays(step), arrays(step + 1, (".m", ".v"))
        return checkpoint.save(
            tmp_path, MODEL, train, step, 10 * step, weights, moments, tokenizer_file, "ab" * 32, {"framework": "none"}
        )

    return call


def test_round_trip_is_bitwise(save):
    folder = save(7)
    found = load(folder)
    assert (found.folder, found.model, found.train, found.step) == (folder, MODEL, TRAIN, 7)
    assert (found.manifest_sha256, found.tokenizer_sha256) == ("ab" * 32, sha256_hex(folder / "tokenizer.json"))
    for given, got in ((arrays(7), found.weights), (arrays(8, (".m", ".v")), found.moments)):
        assert given.keys() == got.keys()
        assert all(got[n].dtype == np.float32 and got[n].tobytes() == given[n].tobytes() for n in given)


def test_arrays_in_another_memory_order_are_saved_as_they_read(save):
    weights = arrays(3)
    transposed = {name: np.asfortranarray(value) for name, value in weights.items()}
    assert transposed["wte.weight"].strides != weights["wte.weight"].strides
    found = load(save(3, weights=transposed)).weights
    assert all(found[name].tobytes() == weights[name].tobytes() for name in weights)


def test_files_are_those_of_the_contract(save, tmp_path, tokenizer_file):
    folder = save(1_234)
    assert folder == tmp_path / "step_001234" and sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert (folder / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()
    state = json.loads((folder / "state.json").read_text())
    assert (state["format_version"], state["step"], state["tokens"]) == (1, 1_234, 12_340)
    assert state["files"] == {name: sha256_hex(folder / name) for name in FILES[:4]}
    assert set(state["versions"]) == {"python", "numpy", "framework"} and state["manifest_sha256"] == "ab" * 32
    assert state["tokenizer_sha256"] == sha256_hex(tokenizer_file)
    sign_state(folder)
    assert json.loads((folder / "state.json").read_text()) == state and len(state["checksum"]) == 64


def test_safetensors_header_by_its_own_format(save):
    """Eight bytes of length, then JSON: metadata {"format": "pt"}, float32, contract names. No pickle anywhere."""
    folder = save(2)
    for name, suffixes in (("model.safetensors", ("",)), ("optimizer.safetensors", (".m", ".v"))):
        data = (folder / name).read_bytes()
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        assert header.pop("__metadata__") == {"format": "pt"}
        assert {n: tuple(entry["shape"]) for n, entry in header.items()} == {
            n + s: v for n, v in SHAPES.items() for s in suffixes
        }
        assert {entry["dtype"] for entry in header.values()} == {"F32"}
    for path in folder.iterdir():
        assert path.suffix in (".json", ".safetensors") and path.read_bytes()[:1] != b"\x80"  # pickle's first byte
    assert not any("pickle" in line for line in Path(checkpoint.__file__).read_text().splitlines() if "import" in line)


def test_latest_moves_and_the_oldest_go(save, tmp_path):
    for step in (5, 10, 15, 200):
        folder = save(step)
        assert (tmp_path / "latest").read_text().strip() == folder.name and find(tmp_path, "--run") == folder
    assert [path.name for path in step_folders(tmp_path)] == ["step_000015", "step_000200"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_000015", "step_000200"]


def test_saving_the_same_step_again_replaces_it(save, tmp_path):
    save(5)
    save(5, weights=arrays(99))
    assert load(find(tmp_path, "--run")).weights["wpe.weight"].tobytes() == arrays(99)["wpe.weight"].tobytes()


def test_a_million_steps(save, tmp_path):
    one = TrainConfig(keep_last=1)
    save(999_999, one)
    folder = save(1_000_000, one)
    assert step_folders(tmp_path) == [folder]


def test_the_checkpoint_just_written_is_never_removed(save, tmp_path):
    """Going on from an older checkpoint: those after it, of the run that was set back, do not push it out."""
    for step in (10, 20, 30):
        save(step, TrainConfig(keep_last=3))
    for keep, step, kept in ((2, 12, {12, 10}), (2, 14, {14, 12}), (1, 5, {5}), (1, 40, {40})):
        folder = save(step, TrainConfig(keep_last=keep))
        assert (find(tmp_path, "--run"), load(folder).step) == (folder, step)
        assert {int(path.name[5:]) for path in step_folders(tmp_path) if int(path.name[5:]) <= step} == kept


@pytest.mark.parametrize("step", [5, 6])
def test_a_crash_while_writing_leaves_the_last_checkpoint(save, tmp_path, monkeypatch, step):
    save(5)
    real = checkpoint.save_file
    written: list[str] = []

    def fails(tensors, path, metadata):
        written.append(Path(path).name)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", fails)
    with pytest.raises(OSError, match="No space"):
        save(step, weights=arrays(77))
    assert written == ["model.safetensors", "optimizer.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_000005"]
    assert load(find(tmp_path, "--run")).weights["wpe.weight"].tobytes() == arrays(5)["wpe.weight"].tobytes()


def test_a_crash_before_the_rename_leaves_the_last_checkpoint(save, tmp_path, monkeypatch):
    save(5)
    monkeypatch.setattr(files, "flush_to_disk", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_000005"]
    assert load(find(tmp_path, "--run")).step == 5


def test_a_crash_before_latest_is_written(save, tmp_path):
    folder = save(5)
    (tmp_path / "latest").unlink()
    assert find(tmp_path, "--run") == folder


def test_a_checkpoint_without_its_moments(save):
    """Neither read nor checked: the file may be damaged or gone. Everything else is checked as ever."""
    folder = save(5)
    whole = load(folder)
    for damage in (lambda path: path.write_bytes(b"\0"), Path.unlink):
        damage(folder / "optimizer.safetensors")
        found = load(folder, moments=False)
        assert found.moments == {} and found.weights.keys() == whole.weights.keys()
        assert all(found.weights[name].tobytes() == whole.weights[name].tobytes() for name in whole.weights)
        with pytest.raises(InputError, match=r"optimizer\.safetensors"):
            load(folder)
    flip(folder / "model.safetensors", -1)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load(folder, moments=False)


def test_find_takes_a_run_or_one_of_its_checkpoints(save, tmp_path):
    first, second = save(5), save(10)
    assert (find(tmp_path, "--checkpoint"), find(first, "--checkpoint")) == (second, first)
    (tmp_path / "empty").mkdir()
    for path, part in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "empty", "no step_NNNNNN folders")):
        with pytest.raises(InputError, match=f"--checkpoint .*{part}"):
            find(path, "--checkpoint")
    for name in ("step_000099", "../step_000005", "", "step_5\n"):
        (tmp_path / "latest").write_text(name)
        with pytest.raises(InputError, match="step_000005, step_000010"):
            find(tmp_path, "--checkpoint")


def test_step_folder_names_sort():
    assert [step_folder(Path("r"), step).name for step in (0, 500, 1_234_567)] == ["step_000000", "step_000500", "step_1234567"]
    assert step_folders(Path("/nowhere")) == []
