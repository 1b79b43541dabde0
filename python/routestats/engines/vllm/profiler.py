"""The stages of a forward pass as ``torch.profiler`` measures them."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from routestats.engines.vllm.chrome_trace import RANGE, stages_of_chrome_trace
from routestats.engines.vllm.clocks import Measured, Method, Places
from routestats.trace.timings import STAGES

# The public record_function is an operator call from Python at either end, which takes longer than
# the smallest stages. This one is what torch's own compiled code opens ranges with.
_open_range: Callable[[str], Any] = getattr(
    torch._C._profiler, "_RecordFunctionFast", torch.profiler.record_function
)


class ProfilerClock:
    """Ranges that ``torch.profiler`` measures; its Chrome trace is kept.

    On CUDA the durations are those on the device, from a range's first kernel to the end of its
    last one, as the trace gives them.
    On the CPU the profiler makes every operator slower, by nearly as much as the operators of the
    small stages take; what it costs one is measured, and taken off.

    Parameters
    ----------
    layers : int
    chrome_trace : Path
        Where the trace goes; its name ends in ``.gz``.
    max_steps : int
        Steps after which it stops listening: a trace takes half a megabyte per step.
    """

    name = "torch.profiler"
    call_ns = 0.0

    def __init__(self, layers: int, chrome_trace: Path, max_steps: int) -> None:
        self._layers = layers
        self._path = chrome_trace
        self._left = max_steps
        activities = [torch.profiler.ProfilerActivity.CPU]
        self._on_device = torch.cuda.is_available()
        self.measure = (
            "from a range's first kernel on the GPU to its last one, gaps between them included"
            if self._on_device
            else "ranges on the host, less what the profiler takes for each operator"
        )
        if self._on_device:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities)
        self._listening = False
        self._steps = 0

    @property
    def full(self) -> bool:
        """Whether it has heard enough."""
        return self._left == 0

    def wrap(self, places: Places, function: Method) -> Method:
        names = {key: f"{RANGE}{stage}/{layer}" for key, (layer, stage) in places.items()}

        def ranged(owner: Any, *args: Any, **kwargs: Any) -> Any:
            name = names.get(id(owner))
            if name is None or not self._listening:
                return function(owner, *args, **kwargs)
            with _open_range(name):
                return function(owner, *args, **kwargs)

        return ranged

    def begin(self) -> None:
        if self._steps == 0:
            self._profile.start()
        self._listening = True
        self._range = _open_range(f"{RANGE}step")
        self._range.__enter__()
        self._began = time.perf_counter_ns()

    def end(self) -> int:
        if self._on_device:
            torch.cuda.synchronize()
        took = time.perf_counter_ns() - self._began
        self._range.__exit__(None, None, None)
        self._listening = False
        self._steps += 1
        self._left -= 1
        if self.full:
            self._profile.stop()
        return took

    def finish(self) -> Measured:
        if self._steps == 0:
            none = np.zeros((0, self._layers, len(STAGES)), np.int64)
            return Measured(none, none)
        if not self.full:
            self._profile.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._path))
        op_ns = 0.0 if self._on_device else profiled_op_ns()
        return Measured(*stages_of_chrome_trace(self._path, self._layers, self._steps, op_ns))


@cache
def profiled_op_ns() -> float:
    """Nanoseconds that the profiler takes to put down an operator on the CPU."""
    calls, rounds = 1000, 7
    timer = timeit.Timer("x.neg()", globals={"x": torch.zeros(1)})
    costs = []
    for _ in range(rounds):
        bare = timer.timeit(calls)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
            costs.append(timer.timeit(calls) - bare)
    return max(statistics.median(costs), 0.0) / calls * 1e9
