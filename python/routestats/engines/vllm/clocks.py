"""Clocks around the stages of a forward pass.

`HostClock` reads the monotonic clock, which is right where a call returns when its work is done, as
on the CPU. `EventClock` records CUDA events into the stream and reads them after the step.
`ProfilerClock` opens ranges that ``torch.profiler`` measures, for an independent check.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from routestats.errors import CaptureError
from routestats.trace.timings import STAGES

_RANGE = "routestats/"

Nanoseconds = npt.NDArray[np.int64]


class Clock(Protocol):
    """Measures calls of the functions it has wrapped, step by step."""

    name: str

    def wrap(self, layer: int, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose calls count for `stage` of `layer`; several calls add up."""

    def begin(self) -> None:
        """A step begins."""

    def end(self) -> None:
        """It has ended."""

    def finish(self) -> Nanoseconds:
        """Nanoseconds ``[steps, L, stages]`` of all steps since the clock was made."""


class HostClock:
    """The monotonic clock of the host."""

    name = "time.perf_counter_ns"

    def __init__(self, layers: int) -> None:
        self._layers = layers
        # Plain Python integers: to add to one costs a third of what a NumPy element costs.
        self._ns = [0] * (layers * len(STAGES))
        self._zero = list(self._ns)
        self._steps: list[list[int]] = []

    def wrap(self, layer: int, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        ns, slot, now = self._ns, layer * len(STAGES) + STAGES.index(stage), time.perf_counter_ns

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = now()
            result = function(*args, **kwargs)
            ns[slot] += now() - begin
            return result

        return timed

    def begin(self) -> None:
        self._ns[:] = self._zero

    def end(self) -> None:
        self._steps.append(list(self._ns))

    def finish(self) -> Nanoseconds:
        return np.array(self._steps, np.int64).reshape(-1, self._layers, len(STAGES))


class EventClock:
    """CUDA events around each call, read after the step; for eager steps.

    The forward pass is not synchronised within a step. `event` makes an event with ``record()``,
    ``synchronize()`` and ``elapsed_time(later)`` in milliseconds, as ``torch.cuda.Event`` is.
    """

    name = "torch.cuda.Event"

    def __init__(self, layers: int, event: Callable[[], Any] | None = None) -> None:
        self._layers = layers
        self._event = event or (lambda: torch.cuda.Event(enable_timing=True))
        self._open: list[tuple[int, int, Any, Any]] = []
        self._steps: list[Nanoseconds] = []

    def wrap(self, layer: int, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        column = STAGES.index(stage)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin, end = self._event(), self._event()
            begin.record()
            result = function(*args, **kwargs)
            end.record()
            self._open.append((layer, column, begin, end))
            return result

        return timed

    def begin(self) -> None:
        self._open = []

    def end(self) -> None:
        ns = np.zeros((self._layers, len(STAGES)), np.int64)
        for layer, column, begin, end in self._open:
            end.synchronize()
            ns[layer, column] += round(begin.elapsed_time(end) * 1e6)
        self._open = []
        self._steps.append(ns)

    def finish(self) -> Nanoseconds:
        return np.array(self._steps, np.int64).reshape(-1, self._layers, len(STAGES))


# The public record_function is an operator call from Python at either end, which takes longer than
# the smallest stages. This one is what torch's own compiled code opens ranges with.
_open_range: Callable[[str], Any] = getattr(
    torch._C._profiler, "_RecordFunctionFast", torch.profiler.record_function
)


class ProfilerClock:
    """Ranges that ``torch.profiler`` measures; its Chrome trace is kept.

    On CUDA the durations are those of the ranges' kernels on the device, as the trace gives them.

    Parameters
    ----------
    layers : int
    chrome_trace : Path
        Where the trace goes; its name ends in ``.gz``.
    max_steps : int
        Steps after which it stops listening: a trace takes half a megabyte per step.
    """

    name = "torch.profiler"

    def __init__(self, layers: int, chrome_trace: Path, max_steps: int) -> None:
        self._layers = layers
        self._path = chrome_trace
        self._left = max_steps
        activities = [torch.profiler.ProfilerActivity.CPU]
        self._on_device = torch.cuda.is_available()
        if self._on_device:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities)
        self._listening = False
        self._steps = 0

    @property
    def full(self) -> bool:
        """Whether it has heard enough."""
        return self._left == 0

    def wrap(self, layer: int, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{_RANGE}{stage}/{layer}"

        def ranged(*args: Any, **kwargs: Any) -> Any:
            if not self._listening:
                return function(*args, **kwargs)
            with _open_range(name):
                return function(*args, **kwargs)

        return ranged

    def begin(self) -> None:
        if self._steps == 0:
            self._profile.start()
        self._listening = True
        self._range = _open_range(f"{_RANGE}step")
        self._range.__enter__()

    def end(self) -> None:
        if self._on_device:
            torch.cuda.synchronize()
        self._range.__exit__(None, None, None)
        self._listening = False
        self._steps += 1
        self._left -= 1
        if self.full:
            self._profile.stop()

    def finish(self) -> Nanoseconds:
        if self._steps == 0:
            return np.zeros((0, self._layers, len(STAGES)), np.int64)
        if not self.full:
            self._profile.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._path))
        return stages_of_chrome_trace(self._path, self._layers, self._steps)


def stages_of_chrome_trace(path: Path, layers: int, steps: int) -> Nanoseconds:
    """Nanoseconds ``[steps, L, stages]`` of the ranges in a Chrome trace that `ProfilerClock` made.

    Where the trace has ranges of the device, those count. A range belongs to the step whose own
    range it begins in.

    Raises
    ------
    CaptureError
        If the trace has not the steps that it should have.
    """
    with gzip.open(path, "rt") as file:
        events = json.load(file)["traceEvents"]
    ours = [e for e in events if e.get("ph") == "X" and str(e.get("name")).startswith(_RANGE)]
    on_device = [e for e in ours if e.get("cat") == "gpu_user_annotation"]
    ours = on_device or ours
    bounds = np.sort([e["ts"] for e in ours if e["name"] == f"{_RANGE}step"])
    if len(bounds) != steps:
        raise CaptureError(f"{path}: expected {steps} steps in the profile, got {len(bounds)}")
    ns = np.zeros((steps, layers, len(STAGES)), np.int64)
    for event in ours:
        _, stage, *layer = event["name"].split("/")
        if stage in STAGES:
            step = int(np.searchsorted(bounds, event["ts"], side="right")) - 1
            ns[step, int(layer[0]), STAGES.index(stage)] += round(event["dur"] * 1000)
    return ns
