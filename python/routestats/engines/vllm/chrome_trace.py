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
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Nanoseconds and number of the ranges in a Chrome trace that `ProfilerClock` made.

    Both are ``[steps, L, stages]``. Ranges are counted on the host: one that puts no work on the
    device has none there.

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
    calls = np.zeros((steps, layers, len(STAGES)), np.int64)
    on_host = [e for e in ours if e.get("cat") != "gpu_user_annotation"]
    bounds = _bounds(path, on_host, steps)
    for event in on_host:
        if (place := _place(event, bounds)) is not None:
            calls[place] += 1
    if on_device:
        events, bounds = on_device, _bounds(path, on_device, steps)
    us = np.zeros((steps, layers, len(STAGES)))
    around: list[tuple[float, tuple[int, int, int]]] = []  # open ranges: end, and where they count
    for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        while around and around[-1][0] <= event["ts"]:
            around.pop()
        if (place := _place(event, bounds)) is not None:
            if around:
                us[around[-1][1]] -= event["dur"]
            us[place] += event["dur"]
            around.append((_end(event), place))
        elif around and event.get("cat") == "cpu_op":
            us[around[-1][1]] -= op_ns / 1000
    return np.rint(us * 1000).astype(np.int64), calls


def _bounds(path: Path, events: list[dict[str, Any]], steps: int) -> Any:
    """Where each step begins."""
    bounds = np.sort([e["ts"] for e in events if e["name"] == f"{RANGE}step"])
    if len(bounds) != steps:
        raise CaptureError(f"{path}: expected {steps} steps in the profile, got {len(bounds)}")
    return bounds


def _place(event: dict[str, Any], bounds: Any) -> tuple[int, int, int] | None:
    """Step, layer and stage of a range; None of what is no stage of ours."""
    kind, _, rest = str(event.get("name")).partition("/")
    stage, _, layer = rest.partition("/")
    if f"{kind}/" != RANGE or stage not in STAGES:
        return None
    step = int(np.searchsorted(bounds, event["ts"], side="right")) - 1
    return step, int(layer), STAGES.index(stage)


def _end(event: dict[str, Any]) -> float:
    return float(event["ts"]) + float(event["dur"])
