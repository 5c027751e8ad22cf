"""Where the figures come from: versions, machine, time."""

import os
import platform
import sys
import time

import numpy as np

from compare.sides import Twins


def facts(twins: Twins) -> dict[str, str]:
    """What to write under a table of figures, in order."""
    system = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else platform.system()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "system": f"{system}, {platform.machine()}, {os.cpu_count()} cores",
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        **twins.torch.versions(),
        **twins.mlx.versions(),
    }
