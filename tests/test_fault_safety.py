"""What is never done: opening pickles, running code of a model, asking the network while training, serving the network."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import train_flags
from packaging.requirements import Requirement
from packaging.version import Version
from twins import TWINS

from compare import playground
from gpt_core.config import GPTConfig

ROOT = Path(__file__).parents[1]
PACKAGES = ("gpt_core", "data_prep", "mlx_gpt", "torch_gpt", "weights", "compare", "benchmarks")
CALLS = ("eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "os.system", "yaml.load", "joblib.load")
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""Calls that need an argument of this value."""


def dangers(source: str) -> Iterator[str]:
    """Calls in Python source that run what they read."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in CALLS or (name in SAFE and given.get(SAFE[name][0]) != str(SAFE[name][1])):
            yield name
        if "trust_remote_code" in given or given.get("shell", "False") != "False":
            yield f"{name}(trust_remote_code or shell)"


def test_nothing_that_is_read_is_run() -> None:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = [f"{path.relative_to(ROOT)}: {name}" for path in files for name in dangers(path.read_text(encoding="utf-8"))]
    assert len(files) > 80 and not found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("np.load(path)", 1),
        ("pickle.load(file)", 1),
        ("AutoModel.from_pretrained(path, trust_remote_code=True)", 1),
        ("subprocess.run(words, shell=True)", 1),
        ("re.compile(pattern), model.eval()", 0),
    ],
)
def test_the_search_sees_them(source: str, count: int) -> None:
    assert len(list(dangers(source))) == count


OFFLINE = """
import runpy, sys

def hook(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise AssertionError(f"network: {event} {arguments[1:]}")

sys.addaudithook(hook)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def offline(*words: object) -> subprocess.CompletedProcess:
    """`python -m WORDS` in a process in which Python's sockets raise."""
    command = [sys.executable, "-c", OFFLINE, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("name", TWINS)
def test_training_asks_nobody(name: str, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    found = offline(f"{name}_gpt.train", *train_flags(small_dataset, tmp_path / "run", "--steps", 6))
    assert found.returncode == 0 and not found.stderr, found.stderr
    assert (tmp_path / "run" / "step_000006").is_dir()


def test_asking_would_be_seen(tmp_path: Path) -> None:
    """The control."""
    (tmp_path / "asks.py").write_text("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')")
    command = [sys.executable, "-c", OFFLINE, "asks"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode != 0 and "network: socket." in found.stderr


def test_the_playground_is_for_this_machine_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has no flag to open it; whoever wants that has to forward the port."""
    launched: dict[str, Any] = {}

    class Page:
        local_url = "http://127.0.0.1"

        def launch(self, **options: Any) -> None:
            launched.update(options)
            raise OSError("taken")  # ends the command

    page = ModuleType("playground_page")
    vars(page).update(build=lambda duet, title: Page(), CSS="")
    monkeypatch.setitem(sys.modules, "compare.playground_page", page)
    monkeypatch.setattr("compare.playground_page", page, raising=False)
    loaded = type("Loaded", (), {"step": 1, "model": GPTConfig()})()
    for name, value in {"find": tmp_path, "load": loaded}.items():
        monkeypatch.setattr(playground.checkpoint, name, lambda *_a, _value=value, **_o: _value)
    for name in ("load_tokenizer", "load_twins", "Duet"):
        monkeypatch.setattr(playground, name, lambda *_arguments: None)
    monkeypatch.setattr(sys, "argv", ["playground", "--checkpoint", str(tmp_path)])
    with pytest.raises(Exception, match="taken"):
        playground.main()
    assert launched["server_name"] == "127.0.0.1" and launched["share"] is False
    flags = {flag for action in playground.parser()._actions for flag in action.option_strings}
    assert flags == {"-h", "--help", "--checkpoint", "--port", "--device"}


def locked() -> dict[str, list[tuple[Version, int]]]:
    """Package -> its pinned versions, each with the number of its hashes."""
    pins: dict[str, list[tuple[Version, int]]] = {}
    for entry in re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements-lock.txt").read_text()):
        pin = re.match(r"([a-z0-9-]+)==(\S+)", entry)
        if pin:
            pins.setdefault(pin[1], []).append((Version(pin[2]), len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry))))
    return pins


def test_the_lock_pins_all_requirements_with_hashes() -> None:
    pins = locked()
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    for requirement in map(Requirement, lines):
        versions = [version for version, _ in pins.get(requirement.name, [])]
        assert versions and all(version in requirement.specifier for version in versions), f"{requirement}: make lock"
    assert len(pins) > 40 and all(hashes for versions in pins.values() for _, hashes in versions)
    text = (ROOT / "requirements-lock.txt").read_text()
    assert "://" not in text and "mlx-metal==" in text and "mlx-cpu==" in text
