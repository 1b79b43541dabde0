"""What the GPU benchmarks share: the machine, timing by events, and one file of results per device.

None of them has run on a GPU yet.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def require_gpu(name: str) -> Any:
    """torch, if there is a GPU for it and for our kernels; else exit with one line."""
    from routestats.counts.device.choice import why_no_cuda

    if (reason := why_no_cuda()) is not None:
        sys.exit(f"{name}: needs a GPU: {reason}")
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"{name}: needs a GPU: torch finds none")
    return torch


def machine(torch: Any) -> dict[str, Any]:
    from routestats import _core, _cuda

    properties = _cuda.device_properties()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return {
        "device": properties["name"],
        "compute_capability": ".".join(map(str, properties["compute_capability"])),
        "multiprocessors": properties["multiprocessors"],
        "memory_bytes": properties["memory_bytes"],
        "driver": _output(query).partition("\n")[0] or "unknown",
        "cuda_runtime": _cuda.versions()["runtime"],
        "torch": torch.__version__,
        "routestats": _core.build_info()["version"],
        "commit": _output(["git", "rev-parse", "HEAD"]) or "unknown",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def save(torch: Any, section: str, result: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Put `result` under `section` into the device's file, beside the others' sections."""
    facts = machine(torch)
    slug = re.sub(r"[^a-z0-9]+", "_", facts["device"].lower()).strip("_")
    path = (folder or RESULTS) / f"{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(path.read_text()) if path.exists() else {}
    document[section] = {"machine": facts, **result}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def milliseconds(torch: Any, action: Callable[[], object], repeats: int = 1) -> float:
    """Device time of one `action`, averaged over `repeats` in a row."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        action()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / repeats


def alternate(
    torch: Any, actions: Mapping[str, Callable[[], object]], *, rounds: int, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of every action in every round, after one run of each to warm up."""
    for action in actions.values():
        action()
    torch.cuda.synchronize()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(milliseconds(torch, action, repeats))
    return times


def ratio(times: list[float], baseline: list[float]) -> dict[str, float]:
    """Median and quartiles of the rounds' own ratios; of one round, that."""
    ratios = [t / b for t, b in zip(times, baseline, strict=True)]
    low, median, high = statistics.quantiles(ratios * 2 if len(ratios) == 1 else ratios, n=4)
    return {"median": round(median, 5), "low": round(low, 5), "high": round(high, 5)}


def copy_bandwidth(torch: Any) -> float:
    """Bytes read and written per second by a large copy on the device."""
    source = torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = alternate(torch, {"copy": lambda: target.copy_(source)}, rounds=7, repeats=5)
    return float(2 * source.numel()) / (statistics.median(times["copy"]) / 1e3)
