"""C++ is built once, kept, and done without where it cannot be."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_core import native

if sys.platform != "linux" or shutil.which("g++") is None:
    pytest.skip("C++ is built on Linux, with g++", allow_module_level=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A library with one function, which returns 7."""
    made = tmp_path / "seven.cpp"
    made.write_text('extern "C" int seven() { return 7; }')
    return made


def kept(source: Path) -> list[Path]:
    return sorted((source.parent / "__pycache__").glob("*"))


def test_it_is_built_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = native.load(source, ["-O1"])
    assert first and first.seven() == 7
    assert [path.suffix for path in kept(source)] == [".so"]
    monkeypatch.setattr(subprocess, "run", None)
    again = native.load(source, ["-O1"])
    assert again and again.seven() == 7, "nothing to build"
    for flags, machine in ((["-O2"], None), (["-O1"], "another")):
        with pytest.raises(TypeError):
            native.load(source, flags, machine)
    source.write_text('extern "C" int seven() { return 8; }')
    with pytest.raises(TypeError):
        native.load(source, ["-O1"])  # a file that has changed


def test_where_it_cannot_be_built(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.load(source, ["--no-such-flag"]) is None
    monkeypatch.setenv("PATH", "")
    assert native.load(source, []) is None
    assert kept(source) == []


def test_where_it_cannot_be_kept(source: Path) -> None:
    (source.parent / "__pycache__").write_text("a file where the folder should be: nobody may write there")
    found = native.load(source, [])
    assert found and found.seven() == 7


def test_where_it_cannot_be_loaded(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a file system that is mounted with noexec."""

    def refuse(name: str, mode: int) -> None:
        raise OSError(f"{name}: failed to map segment from shared object")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    for _ in range(2):  # built anew, and kept
        assert native.load(source, []) is None
    assert len(kept(source)) == 1


def test_a_library_for_all_is_found_by_others(source: Path) -> None:
    """What MKL finds its answer by; by default a library keeps its names to itself."""
    assert native.load(source, []) and not hasattr(ctypes.CDLL(None), "seven")
    assert native.load(source, [], mode=ctypes.RTLD_GLOBAL) and hasattr(ctypes.CDLL(None), "seven")
