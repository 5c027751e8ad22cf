"""Nobody imports a framework that it does not use, and the twins have the same outline and the same flags."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_core.plan import default_run

ROOT = Path(__file__).parents[1]
TWINS = {"mlx_gpt": ("torch",), "torch_gpt": ("mlx", "mlx.core", "mlx.nn")}
COMMANDS = ("train", "generate", "evaluate")
CORE = sorted(f"gpt_core.{path.stem}" for path in (ROOT / "gpt_core").glob("*.py") if path.stem != "__init__")
DATA = sorted(f"data_prep.{path.stem}" for path in (ROOT / "data_prep").glob("*.py") if not path.stem.startswith("__"))

BLOCK = """
import contextlib, importlib, io, json, sys
for name in {blocked!r}:
    sys.modules[name] = None
modules = [importlib.import_module(name) for name in {modules!r}]
"""
REPORT = """
helps = {}
for module in modules:
    sys.argv = ["x", "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        module.main()
    helps[module.__name__.split(".")[1]] = out.getvalue()
"""
LOADED = "loaded = [name for name, module in sys.modules.items() if module and name.split('.')[0] in ('torch', 'mlx')]\n"


def python(script: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, env={"COLUMNS": "1000"}
    )


@pytest.fixture(scope="module")
def outlines():
    """For each twin, its --help texts and the framework modules it loads while the other framework cannot be imported."""
    found = {}
    for twin, blocked in TWINS.items():
        modules = [f"{twin}.{command}" for command in COMMANDS]
        script = BLOCK.format(blocked=blocked, modules=modules) + LOADED + REPORT + "print(json.dumps([helps, loaded]))"
        done = python(script)
        assert done.returncode == 0, done.stderr
        found[twin] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("twin", "own", "other"), [("mlx_gpt", "mlx", "torch"), ("torch_gpt", "torch", "mlx")])
def test_a_twin_never_imports_the_other_framework(outlines, twin, own, other):
    loaded = {name.split(".")[0] for name in outlines[twin][1]}
    assert own in loaded, "the check sees the twin's own framework"
    assert other not in loaded


def test_core_and_data_import_no_framework():
    """All of their modules, with both frameworks blocked."""
    blocked = [name for names in TWINS.values() for name in names]
    done = python(BLOCK.format(blocked=blocked, modules=CORE + DATA) + LOADED + "print(len(modules), loaded)")
    assert (done.returncode, done.stdout) == (0, f"{len(CORE + DATA)} []\n"), done.stderr
    assert len(CORE) > 15 and len(DATA) > 5


@pytest.mark.parametrize(("twin", "own"), [("mlx_gpt", ("mlx", "mlx.core")), ("torch_gpt", ("torch",))])
def test_the_block_blocks(twin, own):
    """Negative control: with its own framework blocked a twin cannot be imported."""
    done = python(BLOCK.format(blocked=own, modules=[f"{twin}.train"]))
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr


def flags(text: str) -> dict[str, str]:
    """Flag -> its line of a --help text."""
    return {found[1]: found[0] for found in re.finditer(r"^ +(--[\w-]+).*$", text, re.MULTILINE)}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_twins_have_the_same_flags(outlines, command):
    """Same order, same help, same defaults; --device alone has other choices, --run another default."""
    first, second = (flags(outlines[twin][0][command]) for twin in TWINS)
    assert list(first) == list(second) and "--device" in first and len(first) >= 4
    differing = {flag for flag in first if first[flag] != second[flag].replace("torch", "mlx")}
    assert differing == {"--device"}


CONTRACT = {
    "train": "preset data run device dtype steps epochs checkpoint-every keep-last val-every val-batches resume dry-run "
    "n-layer n-head n-embd block-size vocab-size micro-batch-size accumulation lr schedule grad-clip seed",
    "generate": "checkpoint prompt max-tokens temperature top-k top-p seed device",
    "evaluate": "checkpoint data text device",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_the_contract_are_there(outlines, command):
    """DESIGN.md, section 5; more are allowed."""
    assert {f"--{name}" for name in CONTRACT[command].split(" ")} <= set(flags(outlines["mlx_gpt"][0][command]))


@pytest.mark.parametrize(("twin", "folder"), [("mlx_gpt", "runs/PRESET-mlx"), ("torch_gpt", "runs/PRESET-torch")])
def test_help_names_the_run_folder_that_is_made(outlines, twin, folder):
    """make_plan is called with the name by which `default_run` makes the folder that --help shows."""
    called = re.search(r"make_plan\(args, \"(\w+)\"", (ROOT / twin / "train.py").read_text(encoding="utf-8"))
    assert called and str(default_run("PRESET", called[1])) == folder
    assert re.search(rf"{folder}(?![\w-])", flags(outlines[twin][0]["train"])["--run"])


# What only one twin has, on purpose.
ONLY = {
    "mlx_gpt": {
        "model.Linear",
        "model.Linear.__call__",
        "functional.cross_entropy",
        "loss._head_loss",
        "loss._head_loss_vjp",
        "muon.Muon.init_single",
        "muon.Muon.apply_single",
        "state.flat",
        "ranks.PIECE",
    },
    "torch_gpt": {
        "device.MPS_MICRO_BATCH_TOKENS",
        "device.refuse_known_bad",
        "device.refuse_large_micro_batch",
        "device.onednn_says",
        "device.synchronize",
        "device.compiled",
        "device.norms",
        "device.zero_gradients",
        "device.multiplies_bfloat16",
        "device.takes_kernels",
        "device.half_precision",
        "loss.HeadLoss",
        "loss.HeadLoss.__call__",
        "loss.HeadLoss.backward",
        "muon.Muon.step",
        "optim.MultiOptimizer",
        "optim.MultiOptimizer.zero_grad",
        "optim.MultiOptimizer.step",
        "ranks.place",
        "ranks.shard",
        "state.KEYS",
        "state._owned",
        "state.is_sharded",
        "state.whole",
        "state.like",
    },
}
OWN_FILES = {"__init__", "blas", "cpu_kernels", "one_token", "rounded"}
"""Files of what one framework lacks on a CPU, not alike: a BLAS, kernels, a graph a token, fast bfloat16."""


def outline(path: Path) -> list[str]:
    """Names of a file in their order: constants, functions, classes and their methods; `forward` is torch's `__call__`."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef) and item.name != "__init__"]
            names += [f"{node.name}.{'__call__' if method == 'forward' else method}" for method in methods]
    return names


def files(twin: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / twin).glob("*.py") if path.stem not in OWN_FILES)


def test_the_twins_have_the_same_files():
    assert files("mlx_gpt") == files("torch_gpt") and len(files("mlx_gpt")) >= 8


@pytest.mark.parametrize("name", files("mlx_gpt"))
def test_the_twins_define_the_same_names_in_the_same_order(name):
    first, second = (
        [found for found in outline(ROOT / twin / f"{name}.py") if f"{name}.{found}" not in ONLY[twin]] for twin in TWINS
    )
    assert first == second and first


def test_every_exception_is_there_and_in_one_twin_only():
    """Negative control: an exception that no longer holds must leave the list."""
    for twin, other in (("mlx_gpt", "torch_gpt"), ("torch_gpt", "mlx_gpt")):
        for entry in ONLY[twin]:
            file, name = entry.split(".", 1)
            assert name in outline(ROOT / twin / f"{file}.py"), entry
            assert name not in outline(ROOT / other / f"{file}.py"), entry
