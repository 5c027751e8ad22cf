"""C++ of this project, built by g++ in about a second when it is first used, and kept in `__pycache__` beside its source."""

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from gpt_core.errors import InputError
from gpt_core.files import new_file


def load(source: Path, flags: Sequence[str], machine: object = None, mode: int = ctypes.DEFAULT_MODE) -> ctypes.CDLL | None:
    """The library that g++ makes of a file; None where it cannot be built or loaded.

    g++ alone: threads of another compiler's OpenMP would be in the way of torch's. `machine` is what the code is built for, if
    the flags leave that to the compiler: machines may share a folder.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        return None
    told = source.read_bytes(), flags, compiler, machine
    kept = source.parent / "__pycache__" / f"{source.stem}-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.so"
    try:
        if kept.exists():
            return ctypes.CDLL(str(kept), mode)
        with TemporaryDirectory() as folder:
            fresh = Path(folder) / kept.name
            build = [compiler, "-shared", "-fPIC", *flags, "-o", str(fresh), str(source)]
            done = subprocess.run(build, capture_output=True, check=False, start_new_session=True)  # Ctrl-C is not for it
            if done.returncode:
                return None
            try:
                kept.parent.mkdir(exist_ok=True)
                with new_file(kept) as beside:
                    shutil.copyfile(fresh, beside)
            except (OSError, InputError):  # nobody may write there, a full disk, or another process does the same
                pass
            return ctypes.CDLL(str(kept if kept.exists() else fresh), mode)
    except OSError:  # a file system from which nothing may be run, or no room for temporary files
        return None
