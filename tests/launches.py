"""Training on several ranks, as a user launches it."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from commands import ROOT

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MLX_DISABLE_COMPILE": "1"}


def free_ports(count: int) -> int:
    """The first of `count` free ports in a row, below those that systems hand out by themselves."""
    for _ in range(200):
        first = random.SystemRandom().randrange(20_000, 32_000)
        try:
            with ExitStack() as held:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def launcher(twin: str, ranks: int) -> list[str]:
    """A command line up to the name of a module. After `--`, torchrun does not take --run for a flag of its own."""
    bin = Path(sys.executable).parent
    if twin == "torch":
        return [str(bin / "torchrun"), "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(ranks), "-m", "--"]
    return [str(bin / "mlx.launch"), "-n", str(ranks), "-p", str(free_ports(ranks)), "--", sys.executable, "-m"]


@contextmanager
def launched(twin: str, ranks: int, *flags: object) -> Iterator[subprocess.Popen[str]]:
    """Training under its launcher, ended with the block. stdin stays open: mlx.launch turns in a circle on one that ended."""
    command = [*launcher(twin, ranks), f"{twin}_gpt.train", *map(str, flags)]
    stdin, held = os.pipe()
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=pipe, stderr=pipe, text=True, env=os.environ | ONE_THREAD)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        os.close(stdin)
        os.close(held)


def train_on(twin: str, ranks: int, *flags: object) -> tuple[int, str, str]:
    """Trains to the end: exit code, stdout, stderr."""
    with launched(twin, ranks, *flags) as process:
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


def members(launcher: int) -> list[int]:
    """Process ids of the ranks, in the order of their start."""
    found = subprocess.run(["ps", "-A", "-o", "pid=", "-o", "ppid="], capture_output=True, text=True, check=True)
    pairs = (map(int, line.split()) for line in found.stdout.splitlines())
    return sorted(pid for pid, parent in pairs if parent == launcher)
