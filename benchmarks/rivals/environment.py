"""The machine and the versions that a report names."""

import os
import platform
from pathlib import Path

from rivals import install
from rivals.rival import Rival


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if "model name" in line]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "processor": models[0].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory) * 1024 / 1e9),
        "kernel": platform.release(),
        "system": platform.system(),
        "load_average_before": os.getloadavg()[0],
    }


def versions(rival: Rival) -> dict[str, object]:
    """What was measured: package, Python and the settings, which a later version of the harness may change."""
    state = install.read_state(rival)
    return {
        "package": f"{rival.package} {install.installed_version(rival)}".strip(),
        "settings": list(rival.settings),
        "python": platform.python_version() if rival.own_interpreter else (state.python if state else ""),
    }
