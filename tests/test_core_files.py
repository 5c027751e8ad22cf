"""Hashes, and writes that are either complete or absent."""

import os
from pathlib import Path

import pytest

from gpt_core.errors import InputError
from gpt_core.files import (
    MAX_JSON_BYTES,
    make_parents,
    new_folder,
    read_json,
    recover_folders,
    refuse_existing,
    sha256,
    write_text,
)


def fill(folder: Path, text: str, *files: str) -> None:
    for name in files:
        (folder / name).write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize(("text", "says"), [("[1]", "JSON list"), ("{", "JSONDecodeError"), ("[" * 100_000, "RecursionError")])
def test_what_is_not_a_json_object_is_refused_with_the_remedy(text, says, tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1]}')
    assert read_json(path) == {"a": [1]}
    path.write_text(text)
    with pytest.raises(InputError, match=rf"a\.json .*{says}.*: use another"):
        read_json(path, "use another")


def test_a_json_file_of_more_than_100_mb_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    os.truncate(path, MAX_JSON_BYTES + 1)  # a hole: no disk, and read, it would be no JSON
    with pytest.raises(InputError, match=r"100000001 bytes.*: restore the file"):
        read_json(path)


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_new_folder_appears_only_when_the_block_is_done(tmp_path):
    with new_folder(tmp_path / "x") as beside:
        fill(beside, "new", "a", "b")
        assert not (tmp_path / "x").exists() and beside.parent == tmp_path
    assert content(tmp_path / "x") == {"a": "new", "b": "new"} and names(tmp_path) == ["x"]


def test_new_folder_replaces_the_whole_old_one(tmp_path):
    (tmp_path / "x").mkdir()
    fill(tmp_path / "x", "old", "a", "gone")
    with new_folder(tmp_path / "x") as beside:
        fill(beside, "new", "a")
        assert content(tmp_path / "x") == {"a": "old", "gone": "old"}
    assert content(tmp_path / "x") == {"a": "new"} and names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_a_failure_keeps_the_old_folder_and_leaves_nothing_else(tmp_path, error):
    (tmp_path / "x").mkdir()
    fill(tmp_path / "x", "old", "a")
    with pytest.raises(error), new_folder(tmp_path / "x") as beside:
        fill(beside, "new", "a")
        raise error
    assert content(tmp_path / "x") == {"a": "old"} and names(tmp_path) == ["x"]


def test_remains_of_a_killed_process_are_swept_up(tmp_path):
    (tmp_path / ".x.tmp").mkdir()
    fill(tmp_path / ".x.tmp", "stale", "a", "stale")
    with new_folder(tmp_path / "x") as beside:
        assert content(beside) == {}
        fill(beside, "new", "a")
    assert content(tmp_path / "x") == {"a": "new"} and names(tmp_path) == ["x"]


@pytest.mark.parametrize("there", [["x", ".x.old"], [".x.old"], ["x", ".x.old", ".x.tmp"], [".x.old", ".x.tmp"]])
def test_an_old_folder_left_by_a_killed_process_does_not_block_the_next_one(tmp_path, there):
    """Killed after the second rename, or between the two; before or after the removal of what was beside."""
    for name in there:
        (tmp_path / name).mkdir()
        fill(tmp_path / name, name, "a")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "x"):
        raise RuntimeError
    assert content(tmp_path / "x") == {"a": "x" if "x" in there else ".x.old"} and names(tmp_path) == ["x"]
    with new_folder(tmp_path / "x") as beside:
        fill(beside, "new", "a")
    assert content(tmp_path / "x") == {"a": "new"} and names(tmp_path) == ["x"]


def test_what_kills_left_of_any_folder_is_recovered(tmp_path):
    """Half a folder of another name goes too: nobody may ever write that name again."""
    for name in ("whole", ".half.tmp", ".moved.old", ".both.old", "both", ".other"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, name, "a")
    for name in (".file.tmp", ".file.old"):
        (tmp_path / name).write_text("a file")  # only the first is ours
    recover_folders(tmp_path)
    assert names(tmp_path) == [".file.old", ".other", "both", "moved", "whole"]
    assert content(tmp_path / "moved") == {"a": ".moved.old"} and content(tmp_path / "both") == {"a": "both"}


@pytest.mark.parametrize("left", [".x.old", "x"])
def test_a_left_over_does_not_block_a_replacement(tmp_path, left):
    """Without a failure in between, which would have cleared it away."""
    for name in {left, ".x.old"}:
        (tmp_path / name).mkdir()
        fill(tmp_path / name, name, "a", "gone")
    with new_folder(tmp_path / "x") as beside:
        fill(beside, "new", "a")
    assert content(tmp_path / "x") == {"a": "new"} and names(tmp_path) == ["x"]


def test_a_failed_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    fill(tmp_path / "x", "old", "a")
    replace = os.replace

    def fails(source, target):
        if Path(target).name == "x" and Path(source).name == ".x.tmp":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="Input/output"), new_folder(tmp_path / "x") as beside:
        fill(beside, "new", "a")
    assert content(tmp_path / "x") == {"a": "old"} and names(tmp_path) == ["x"]


def test_everything_is_on_disk_before_the_rename(tmp_path, monkeypatch):
    """Order of the system calls: fsync of each file and of the folder, rename, fsync of the parent."""
    calls: list[str] = []
    replace, fsync = os.replace, os.fsync

    def noted_fsync(descriptor: int) -> None:
        calls.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        calls.append(f"-> {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see which file is flushed")
    with new_folder(tmp_path / "x") as beside:
        fill(beside, "new", "b", "a")
    assert calls == [f"{beside}/a", f"{beside}/b", str(beside), "-> x", str(tmp_path)]


def test_write_text_replaces_and_a_failure_keeps_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "latest"
    write_text(path, "واش\n")
    write_text(path, "راك\n")
    assert path.read_bytes() == "راك\n".encode() and names(tmp_path) == ["latest"]

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "lost")
    assert path.read_bytes() == "راك\n".encode()


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    """A pipe stands for /dev/null, which root may rename over."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is there and is no regular file"):
        write_text(tmp_path / "pipe", "text")
    assert (tmp_path / "pipe").is_fifo() and names(tmp_path) == ["pipe"]


def test_refuse_existing(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    with pytest.raises(InputError, match=r"--out .*folder exists: .*--overwrite"):
        refuse_existing(folder, "--out", overwrite=False)
    refuse_existing(folder, "--out", overwrite=True)
    for path, overwrite in ((file, True), (file, False)):
        with pytest.raises(InputError, match=r"--out .*file"):
            refuse_existing(path, "--out", overwrite)
    refuse_existing(tmp_path / "a" / "b" / "new", "--out", overwrite=False)
    assert (tmp_path / "a" / "b").is_dir() and not (tmp_path / "a" / "b" / "new").exists()


def test_parents_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--run .* cannot be made"):
        make_parents(tmp_path / "file" / "below" / "run", "--run")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for a user who is not root
    with pytest.raises(InputError, match=r"--run .* no permission"):
        make_parents(tmp_path / "run", "--run")
