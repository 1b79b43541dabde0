"""What ``torch.profiler`` measured of the stages, read from the Chrome trace that it left."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.errors import CaptureError
from routestats.trace.timings import STAGES

RANGE = "routestats/"
"""What the names of our ranges begin with: ``routestats/<stage>/<layer>``."""


def stages_of_chrome_trace(
    path: Path, layers: int, steps: int, op_ns: float = 0.0
) -> npt.NDArray[np.int64]:
    """Nanoseconds ``[steps, L, stages]`` of the ranges in a Chrome trace that `ProfilerClock` made.

    A range counts without the ranges inside it, and less `op_ns` for each operator directly in it,
    which is what the profiler takes to put one down. Where the trace has ranges of the device,
    those count, as they are. A range belongs to the step whose own range it begins in.

    Raises
    ------
    CaptureError
        If the trace has not the steps that it should have.
    """
    with gzip.open(path, "rt") as file:
        events = [e for e in json.load(file)["traceEvents"] if e.get("ph") == "X"]
    ours = [e for e in events if str(e.get("name")).startswith(RANGE)]
    on_device = [e for e in ours if e.get("cat") == "gpu_user_annotation"]
    if on_device:
        events = ours = on_device
    bounds = np.sort([e["ts"] for e in ours if e["name"] == f"{RANGE}step"])
    if len(bounds) != steps:
        raise CaptureError(f"{path}: expected {steps} steps in the profile, got {len(bounds)}")
    us = np.zeros((steps, layers, len(STAGES)))
    around: list[tuple[float, tuple[int, int, int]]] = []  # open ranges: end, and where they count
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        while around and around[-1][0] <= event["ts"]:
            around.pop()
        kind, _, rest = str(event["name"]).partition("/")
        stage, _, layer = rest.partition("/")
        if f"{kind}/" == RANGE and stage in STAGES:
            step = int(np.searchsorted(bounds, event["ts"], side="right")) - 1
            place = step, int(layer), STAGES.index(stage)
            if around:
                us[around[-1][1]] -= event["dur"]
            us[place] += event["dur"]
            around.append((_end(event), place))
        elif around and event.get("cat") == "cpu_op":
            us[around[-1][1]] -= op_ns / 1000
    return np.rint(us * 1000).astype(np.int64)


def _end(event: dict[str, Any]) -> float:
    return float(event["ts"]) + float(event["dur"])
