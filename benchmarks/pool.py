"""Workers as the parent process sees them: started, asked one thing at a time, ended."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.spec import Spec
from gpt_core.errors import InputError

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "benchmarks.worker")


class Worker:
    """One engine in a process of its own."""

    def __init__(self, spec: Spec, process: "subprocess.Popen[str]", log: IO[str]):
        self.spec, self._process, self._log = spec, process, log
        self._write(spec.to_json())
        self.facts = self._read()
        """What it computes on: chip, versions, parts."""

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends one request and waits for its answer. Raises InputError where the worker cannot go on."""
        self._write(json.dumps({"do": do, **arguments}))
        return self._read()

    def _write(self, line: str) -> None:
        assert self._process.stdin
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._fail()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise InputError(f"{self.spec.label}: {found['error']}")
        return found

    def _fail(self) -> None:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            raise InputError(
                f"{self.spec.label} was ended by SIGKILL, as the system does where memory runs out: measure fewer engines and "
                "dtypes at once, or a smaller model or batch"
            )
        self._log.seek(0)
        last = (self._log.read().strip().splitlines() or ["it said nothing"])[-1]
        how = f"code {code}" if code >= 0 else signal.Signals(-code).name
        raise InputError(f"{self.spec.label} ended with {how}: {last[:300]}")


class Turns:
    """Asks workers in turns: one that fails is told of once and asked no more, so that the others' trials are not lost."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self.failed: dict[str, str] = {}
        """Label of each that failed -> why."""

    def ask(self, worker: Worker, do: str, **arguments: Any) -> dict[str, Any] | None:
        """The worker's answer, or None if it has failed."""
        if worker.spec.label in self.failed:
            return None
        try:
            return worker.ask(do, **arguments)
        except InputError as error:
            self.failed[worker.spec.label] = str(error)
            self._say(f"left out: {error}")
            return None


@contextmanager
def workers(specs: Sequence[Spec], command: Sequence[str] = COMMAND) -> Iterator[list[Worker]]:
    """All workers, each ready; they end with the block."""
    with ExitStack() as stack:
        started = []
        for spec in specs:
            log = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            process = subprocess.Popen(
                [*command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
            )
            stack.callback(_end, process)
            started.append(Worker(spec, process, log))
        yield started


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()  # it holds nothing that would have to be saved
    process.communicate()
