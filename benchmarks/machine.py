"""What the figures were measured on, as far as the system tells."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def facts() -> dict[str, object]:
    """System, processor, cores in use, load before the run, power mode; null where the system does not tell."""
    system = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else f"{platform.system()} {platform.release()}"
    return {
        "system": f"{system}, {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "load_1min": round(os.getloadavg()[0], 2),
        "power": power(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name: "Apple M1 Pro", "AMD EPYC"; the architecture where it has none."""
    if sys.platform == "darwin":
        return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return found[1].strip() if found else platform.machine()


def power() -> str | None:
    """macOS: low power mode and power source, by pmset; Linux: the governor; else None."""
    if sys.platform == "darwin":
        return mac_power(output("pmset", "-g"), output("pmset", "-g", "batt"))
    return GOVERNOR.read_text().strip() if GOVERNOR.is_file() else None


def mac_power(settings: str, battery: str) -> str | None:
    """The two outputs of pmset in a few words."""
    mode = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", settings, re.MULTILINE)
    source = re.search(r"drawing from '(.+?)'", battery)
    words = [f"power mode {mode[1]} (0 normal, 1 low, 2 high)"] if mode else []
    return ", ".join(words + ([source[1]] if source else [])) or None


def output(*command: str) -> str:
    """What a command prints, or nothing where it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def chip(computed_on: Sequence[str]) -> str:
    """The chip that a result is named by: an NVIDIA GPU that took part, else the processor, which names Apple's GPUs too."""
    return next((name for name in computed_on if name.startswith("NVIDIA")), processor())
