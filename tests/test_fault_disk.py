"""Full disks and failed writes: one line that names the file and the last good checkpoint, exit code 2, nothing half-written.

The system's limit on the size of a file stands for the full disk, since it makes the same calls fail. The full-disk mode of
fault_points.py lets every write of every command fail, `python tests/fault_points.py --full`; docs/faults.md has its figures.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import call, train_flags
from helpers import ROWS
from twins import TWINS
from weights_samples import write_run

from gpt_core import checkpoint, run
from gpt_core.files import naming, new_folder
from gpt_core.metrics import append, read_metrics

SCRIPT = Path(__file__).parent / "fault_points.py"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes.

    Nor does Python compile what is imported meanwhile: it would leave half a file, which every later process fails to load.
    """
    compiles = not sys.dont_write_bytecode
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = not compiles


def one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "File too large" in said or "written; is the disk full?" in said, said
    assert all(part in said for part in parts), said


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".old") or "spool" in path.name]


# Sizes on disk: config 700, a record 260, plots 30,000, model 90,000, moments 180,000 bytes.
@pytest.mark.parametrize(
    ("size", "file"),
    [
        (500, "config.json"),
        (7000, "metrics.jsonl"),
        (15_000, "loss.png"),
        (60_000, "model.safetensors"),
        (150_000, "optimizer"),
    ],
)
@pytest.mark.parametrize("name", TWINS)
def test_training_on_a_full_disk(
    name: str,
    size: int,
    file: str,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    flags = train_flags(small_dataset, folder, "--schedule", "constant", "--checkpoint-every", 30, "--keep-last", 1)
    assert call(monkeypatch, f"{name}_gpt.train", *flags, "--steps", 4) == 0
    capsys.readouterr()
    monkeypatch.setattr(run, "SECONDS_BETWEEN_PLOTS", -1.0 if file == "loss.png" else 1e9)
    with files_up_to(size):
        assert call(monkeypatch, f"{name}_gpt.train", *flags, "--steps", 60) == 2
    one_line(capsys, file, f"last good checkpoint: {folder / 'step_000004'}\n")
    assert checkpoint.load(checkpoint.find(folder, "--run")).step == 4 and not unfinished(folder)
    steps = [record["step"] for record in read_metrics(folder / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
    assert (folder / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert call(monkeypatch, f"{name}_gpt.train", *flags, "--steps", 6) == 0


def test_a_run_without_a_checkpoint_says_so(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with files_up_to(60_000):
        assert call(monkeypatch, "torch_gpt.train", *train_flags(small_dataset, tmp_path / "run", "--steps", 2)) == 2
    one_line(capsys, "model.safetensors", "last good checkpoint: none")


@pytest.mark.parametrize(("size", "file"), [(300, ".made.tmp"), (9000, "tokenizer.json")])
@pytest.mark.parametrize("old", [False, True])
def test_data_prep_on_a_full_disk(
    size: int, file: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    words = ["--source", tmp_path / "rows.txt", "--out", tmp_path / "made", "--vocab-size", 400, "--shards", 3]
    words += ["--val-fraction", 0.3, "--test-fraction", 0, "--overwrite"]
    if old:
        assert call(monkeypatch, "data_prep.command", *words) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    with files_up_to(size):
        assert call(monkeypatch, "data_prep.command", *words) == 2
    one_line(capsys, file)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before and not unfinished(
        tmp_path
    )


@pytest.mark.parametrize(("to", "file"), [("twin", "model.safetensors"), ("hf", "made"), ("gguf", "made.gguf")])
def test_conversion_on_a_full_disk(
    to: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_run(tmp_path / "source")
    with files_up_to(60_000):
        assert (
            call(monkeypatch, "weights.convert", source, tmp_path / ("made.gguf" if to == "gguf" else "made"), "--to", to) == 2
        )
    one_line(capsys, file)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_record_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    """A disk that fills up takes the first bytes of a line."""
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1})
    with files_up_to(path.stat().st_size + 5), pytest.raises(OSError, match=r"File too large.*metrics\.jsonl"):
        append(path, {"step": 2})
    assert path.read_text() == '{"step": 1}\n'


def test_errors_of_rust_libraries_get_their_number_and_the_file(tmp_path: Path) -> None:
    class RustError(Exception):
        pass

    with pytest.raises(OSError, match=r"No space left on device: 'a\.bin'"), naming(Path("a.bin")):
        raise RustError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(RustError), naming(Path("a.bin")):  # control: what is no error of the system stays what it is
        raise RustError("a tensor is not contiguous")


def test_two_data_preps_for_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--source", "sample", "--out", tmp_path / "made", "--vocab-size", 400]
    with new_folder(tmp_path / "made"):
        assert call(monkeypatch, "data_prep.command", *words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "is being written by another process" in said


@pytest.mark.skipif(sys.platform != "linux", reason="forks, after which the libraries of macOS may not be used")
def test_every_write_of_every_command_may_fail() -> None:
    found = subprocess.run([sys.executable, SCRIPT, "--full", "--stride", "9"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["in all"] > 200 // 9
