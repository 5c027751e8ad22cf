"""python tests/forked_ranks.py TWIN < orders > outcomes: runs the training command on several ranks, order after order.

A launcher starts interpreters that each import a framework for seconds; here one process imports it once and forks.
An order is a line of JSON: {"ranks": 2, "flags": [...]}, with "FOLDER" in a flag standing for a folder of each rank's
own, and maybe "mistake" (a name below) or "send": [signal number, rank, after how many records]. An outcome is a line
of JSON: {"codes": [...], "out": [...], "err": [...], "seconds": s}, one entry for each rank.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from launches import free_ports

from gpt_core import cli
from gpt_core.ranks import Ranks

LIMIT_S = 60
IMPORTS = {
    "mlx": ("mlx_gpt.train",),
    "torch": ("torch_gpt.train", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor"),
}
"""Imported once, before forking; what torch would import later by itself, too."""


def forget_to_sum(twin: str) -> None:
    """Each rank trains on its own gradients."""
    step: Any = importlib.import_module(f"{twin}_gpt.step")
    alone = importlib.import_module("gpt_core.ranks").ALONE
    sum_gradients = step.sum_gradients
    step.sum_gradients = lambda *arguments: sum_gradients(*arguments[:-1], alone)


def read_the_same_part(twin: str) -> None:
    """Every rank reads the part of rank 0."""
    part = Ranks.part
    Ranks.part = lambda self, batch: part(Ranks(0, self.size), batch)  # type: ignore[method-assign]


def have_other_data(twin: str) -> None:
    """The last rank's manifest is not that of rank 0."""
    plan: Any = importlib.import_module("gpt_core.plan")
    opened = plan.open_dataset

    def other(folder: Path) -> Any:
        found = opened(folder)
        return type(found)(**(vars(found) | {"manifest_sha256": "0" * 64})) if os.environ[RANK[twin]] != "0" else found

    plan.open_dataset = other


RANK = {"torch": "RANK", "mlx": "MLX_RANK"}
MISTAKES = {function.__name__: function for function in (forget_to_sum, read_the_same_part, have_other_data)}


def environment(twin: str, ranks: int, folder: Path) -> dict[str, str]:
    """What the launcher would set, less the rank."""
    port = free_ports(ranks)
    if twin == "torch":
        return {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    hosts = [[f"127.0.0.1:{port + rank}"] for rank in range(ranks)] if ranks > 1 else []
    (folder / "hosts.json").write_text(json.dumps(hosts) if hosts else "")
    return {"MLX_HOSTFILE": str(folder / "hosts.json")}


def be_rank(twin: str, rank: int, order: dict[str, Any], folder: Path) -> NoReturn:
    """The child: output into files, then the command."""
    for name, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), stream)
    os.environ[RANK[twin]] = str(rank)
    flags = [str(flag).replace("FOLDER", f"rank{rank}") for flag in order["flags"]]
    sys.argv = [f"{twin}_gpt.train", *flags]
    if "mistake" in order:
        MISTAKES[order["mistake"]](twin)
    code = 1
    try:
        cli.run(importlib.import_module(f"{twin}_gpt.train").main)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def obey(twin: str, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Carries one order out."""
    os.environ.update(environment(twin, order["ranks"], folder))
    begin = time.monotonic()
    children = []
    for rank in range(order["ranks"]):
        child = os.fork()
        if not child:
            be_rank(twin, rank, order, folder)
        children.append(child)
    codes: dict[int, int] = {}
    waits = order.get("send")
    metrics = Path(order["flags"][order["flags"].index("--run") + 1].replace("FOLDER", "rank0")) / "metrics.jsonl"
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
        if waits and metrics.is_file() and metrics.read_bytes().count(b"\n") >= waits[2]:
            os.kill(children[waits[1]], waits[0])
            waits = None
        if time.monotonic() - begin > LIMIT_S:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    texts = {name: [(folder / f"{rank}.{name}").read_text() for rank in range(order["ranks"])] for name in ("out", "err")}
    return {"codes": [codes[child] for child in children], "seconds": time.monotonic() - begin, **texts}


if __name__ == "__main__":
    name = sys.argv[1]
    for module in IMPORTS[name]:
        importlib.import_module(module)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(obey(name, json.loads(line), Path(scratch))), flush=True)
