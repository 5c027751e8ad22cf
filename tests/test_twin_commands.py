"""What a user gets for a mistake: one line on stderr, exit code 2, and nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import SMALL, call, train_flags
from helpers import make_dataset, sign_state
from twins import TWINS

import torch_gpt.device
from gpt_core.config import DType, presets
from gpt_core.errors import InputError
from gpt_core.files import sha256
from gpt_core.shards import read_shard, write_shard

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def run(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 4 steps. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert call(monkeypatch, "torch_gpt.train", *train_flags(small_dataset, folder, "--steps", 4)) == 0
    return folder


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str, *arguments: object, says: tuple[str, ...]
) -> None:
    """The command must end with code 2 and one line that holds every string of `says`."""
    capsys.readouterr()
    assert call(monkeypatch, module, *arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and err.startswith("error: "), err
    assert "Traceback" not in err and out == ""
    for part in says:
        assert part in err


def first_shard(data: Path) -> Path:
    return next(data.glob("*train_000.bin"))


def truncate(data: Path) -> None:
    shard = first_shard(data)
    shard.write_bytes(shard.read_bytes()[:-10])


def alien_token(data: Path) -> None:
    """A token beyond the vocabulary, in a shard whose hash the manifest agrees with."""
    shard = first_shard(data)
    tokens = read_shard(shard).copy()
    tokens[7] = 5000
    write_shard(shard, tokens)
    manifest = json.loads((data / "manifest.json").read_text())
    for entry in manifest["shards"]:
        entry["sha256"] = sha256(data / entry["file"])
    (data / "manifest.json").write_text(json.dumps(manifest))


def other_hash(data: Path) -> None:
    shard = first_shard(data)
    tokens = read_shard(shard).copy()
    tokens[7] = 1 if tokens[7] != 1 else 2
    write_shard(shard, tokens)


def broken_tokenizer(data: Path) -> None:
    (data / "tokenizer.json").write_text("{}")


def no_manifest(data: Path) -> None:
    (data / "manifest.json").unlink()


def empty(data: Path) -> None:
    for file in data.iterdir():
        file.unlink()


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, ("train_000.bin", "truncated", "data_prep")),
        (alien_token, ("train_000.bin", "5000", "vocabulary")),
        (other_hash, ("train_000.bin", "SHA-256", "manifest")),
        (broken_tokenizer, ("tokenizer.json", "data_prep")),
        (no_manifest, ("manifest.json", "data_prep")),
        (empty, ("manifest.json", "data_prep")),
        (shutil.rmtree, ("does not exist", "python -m data_prep")),
    ],
)
def test_bad_data(
    name: str,
    damage: Break,
    says: tuple[str, ...],
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = shutil.copytree(small_dataset, tmp_path / "data")
    damage(data)
    refused(monkeypatch, capsys, f"{name}_gpt.train", *train_flags(data, tmp_path / "run"), says=says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--n-head", 5), ("--n-embd 24", "--n-head 5")),
        (("--block-size", 4000), ("--block-size 4000", "validation tokens")),
        (("--micro-batch-size", 4000), ("--micro-batch-size 4000", "training tokens")),
        (("--micro-batch-size", 0), ("--micro-batch-size 0", "above 0")),
        (("--vocab-size", 300), ("--vocab-size 300",)),
        (("--lr", "nan"), ("--lr nan",)),
        (("--beta2", 1.0), ("--beta2 1.0",)),
        (("--min-lr", 1), ("--min-lr 1", "--lr")),
        (("--steps", "many"), ("--steps", "many")),
        (("--device", "tpu"), ("--device", "tpu")),
        (("--learning-rate", 1), ("--learning-rate",)),
        (("--preset", "huge"), ("--preset", "huge", "seed")),
        (("--dtype", "int8"), ("--dtype", "int8")),
        (("--peak-tflops", -1), ("--peak-tflops -1",)),
        (("--resume", "required"), ("--resume required", "no checkpoint")),
        (("--seed", -1), ("--seed -1",)),
    ],
)
def test_bad_flags(
    name: str,
    flags: tuple[object, ...],
    says: tuple[str, ...],
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = train_flags(small_dataset, tmp_path / "run", *flags)
    refused(monkeypatch, capsys, f"{name}_gpt.train", *arguments, says=says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "absent"), [("mlx", "gpu"), ("torch", "mps"), ("torch", "cuda")])
def test_a_device_that_is_not_there(
    name: str,
    absent: str,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlx.core
    import torch

    there = {
        "gpu": mlx.core.is_available(mlx.core.gpu),
        "mps": torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available(),
    }
    if there[absent]:
        pytest.skip(f"this machine has {absent}")
    flags = [*train_flags(small_dataset, tmp_path / "run"), "--device", absent]
    refused(monkeypatch, capsys, f"{name}_gpt.train", *flags, says=(f"--device {absent}", "cpu"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("version", "dtype", "reason"),
    [
        ("2.5.1", "float32", "#118115"),
        ("2.8.0", "float32", "#162730"),
        ("2.12.0", "bfloat16", "#195910"),
        ("2.12.0", "float32", None),
        ("2.13.0+cpu", "float16", None),
    ],
)
def test_known_bad_torch_versions_are_refused_on_mps(version: str, dtype: DType, reason: str | None) -> None:
    if reason is None:
        torch_gpt.device.refuse_known_bad(version, dtype)
        return
    with pytest.raises(InputError, match=f"{version}.*{reason}"):
        torch_gpt.device.refuse_known_bad(version, dtype)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("place", ["in a file", "a file"])
def test_a_run_folder_that_cannot_be_made(
    name: str,
    place: str,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / "file" / "run" if place == "in a file" else tmp_path / "file"
    refused(monkeypatch, capsys, f"{name}_gpt.train", *train_flags(small_dataset, folder), says=("--run", "file"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", TWINS)
def test_another_recipe_in_the_same_folder(
    name: str,
    run: Path,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for flags, says in (
        (("--lr", 0.1, "--steps", 4), ("--lr 0.1", "0.001")),
        (("--n-layer", 3, "--steps", 4), ("--n-layer 3", "2")),
        (("--steps", 9), ("--steps 9", "4")),  # with a decaying schedule, other steps are another run
        (("--steps", 4, "--resume", "never"), ("--resume never",)),
    ):
        refused(monkeypatch, capsys, f"{name}_gpt.train", *train_flags(small_dataset, folder, *flags), says=says)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", TWINS)
def test_other_data_in_the_same_run(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_dataset(tmp_path / "other", ["كلام آخر ما فيهش بزاف", "هدرة خلاف على الطقس"] * 300)
    flags = train_flags(other, run, "--steps", 4)
    refused(monkeypatch, capsys, f"{name}_gpt.train", *flags, says=("tokenizer", "step_000004"))
    evaluate = ("--checkpoint", run, "--data", other)
    refused(monkeypatch, capsys, f"{name}_gpt.evaluate", *evaluate, says=("tokenizer", "--text"))


def flip_weight(folder: Path) -> None:
    flip(folder / "model.safetensors", -5)


def flip_state(folder: Path) -> None:
    flip(folder / "state.json", 3)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def foreign(folder: Path) -> None:
    """Somebody else's safetensors in place of ours, with a state that vouches for it."""
    from safetensors.numpy import save_file

    save_file({"lm_head.weight": np.zeros((3, 4), np.float32)}, folder / "model.safetensors")
    state = json.loads((folder / "state.json").read_text())
    state["files"]["model.safetensors"] = sha256(folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    sign_state(folder)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_weight, ("model.safetensors", "corrupt")),
        (flip_state, ("state.json",)),
        (foreign, ("model.safetensors", "lm_head.weight", "wte.weight")),
        (remove_weights, ("model.safetensors", "missing")),
        (shutil.rmtree, ("step_000004",)),
    ],
)
def test_a_bad_checkpoint(
    name: str,
    damage: Break,
    says: tuple[str, ...],
    run: Path,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    damage(folder / "step_000004")
    prompt = ("--checkpoint", folder, "--prompt", "واش")
    refused(monkeypatch, capsys, f"{name}_gpt.generate", *prompt, says=says)
    refused(monkeypatch, capsys, f"{name}_gpt.evaluate", "--checkpoint", folder, "--data", small_dataset, says=says)
    if damage is not shutil.rmtree:  # with no checkpoint left, training starts anew
        refused(monkeypatch, capsys, f"{name}_gpt.train", *train_flags(small_dataset, folder, "--steps", 4), says=says)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--checkpoint", "nowhere", "--prompt", "x"), ("--checkpoint nowhere",)),
        (("--checkpoint", "RUN", "--prompt", "x", "--temperature", -1), ("--temperature -1",)),
        (("--checkpoint", "RUN", "--prompt", "x", "--top-k", 0), ("--top-k 0",)),
        (("--checkpoint", "RUN", "--prompt", "x", "--top-p", 1.5), ("--top-p 1.5",)),
        (("--checkpoint", "RUN", "--prompt", "x", "--max-tokens", 0), ("--max-tokens 0",)),
        (("--checkpoint", "RUN", "--prompt", "x", "--seed", -3), ("--seed -3",)),
        (("--checkpoint", "RUN", "--prompt", "\udcff"), ("--prompt",)),
        (("--checkpoint", "RUN"), ("--prompt",)),
    ],
)
def test_bad_generate_flags(
    name: str,
    flags: tuple[object, ...],
    says: tuple[str, ...],
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [run if value == "RUN" else value for value in flags]
    refused(monkeypatch, capsys, f"{name}_gpt.generate", *given, says=says)


@pytest.mark.parametrize("name", TWINS)
def test_bad_text_to_evaluate(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, content, says in (
        ("missing.txt", None, "does not exist"),
        ("empty.txt", b"", "empty"),
        ("latin1.txt", "café".encode("latin-1"), "UTF-8"),
        ("binary.txt", b"\x00\x01\x02", "NUL"),
    ):
        if content is not None:
            (tmp_path / file).write_bytes(content)
        flags = ("--checkpoint", run, "--text", tmp_path / file)
        refused(monkeypatch, capsys, f"{name}_gpt.evaluate", *flags, says=(file, says))


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("preset", sorted(presets()))
def test_dry_run_of_every_preset_writes_nothing(
    name: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where there is no data yet."""
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, f"{name}_gpt.train", "--preset", preset, "--dry-run") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["parameters"] == {"seed": 93_313_536, "tiny": 2_112_256, "fast": 2_104_064, "best": 7_442_432}[preset]
    assert facts["tokens_per_step"] == (512 if preset == "tiny" else 2048)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_counts_the_steps_of_the_data(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--data", small_dataset, "--dry-run", *SMALL, "--epochs", 3)
    assert call(monkeypatch, "torch_gpt.train", "--preset", "tiny", *flags) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    tokens = sum(
        s["tokens"] for s in json.loads((small_dataset / "manifest.json").read_text())["shards"] if s["split"] == "train"
    )
    assert facts["steps"] == 3 * ((tokens - 1) // 16 // 6) > 0
