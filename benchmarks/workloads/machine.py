"""What the numbers are measured on, with what, and who else used it meanwhile."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

PACKAGES = ("cartograd", "numpy", "llvmlite", "torch", "jax", "jaxlib")


def describe() -> list[str]:
    """What the numbers were measured on and with: lines of text."""
    cpu, caches = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(
            line.split("\t:", 1)[:2]
            for line in info.read_text(encoding="utf-8").replace("\t\t", "\t").splitlines()
            if "\t:" in line
        )
        family, model = fields.get("cpu family", " ?").strip(), fields.get("model", " ?").strip()
        cpu = f"{fields.get('model name', cpu).strip()} (family {family}, model {model})"
        flags = fields.get("flags", "").split()
        caches = ", ".join(name for name in ("avx2", "fma", "avx512f") if name in flags)
    versions: list[str] = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [
        f"{cpu}, {os.cpu_count()} cores" + (f", {caches}" if caches else ""),
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}",
    ]


class Others:
    """How much of the processors others use from now on, where /proc tells."""

    def __init__(self) -> None:
        self._start = _seconds()

    def sentence(self) -> str:
        """Says it, since numbers taken beside other work mean little."""
        wall, busy, own = (b - a for a, b in zip(self._start, _seconds(), strict=True))
        if busy <= 0:
            return ""
        share = max(0.0, busy - own) / (wall * (os.cpu_count() or 1))
        return f"Others used {share:.0%} of the processors meanwhile."


def _seconds() -> tuple[float, float, float]:
    """Seconds passed, those that all processors were busy, those of this process's and children."""
    busy = 0.0
    if Path("/proc/stat").exists():
        fields = [int(x) for x in Path("/proc/stat").read_text("ascii").split("\n")[0].split()[1:9]]
        user, nice, system, _idle, _waiting, irq, soft, stolen = fields
        busy = (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, sum(os.times()[:4])
