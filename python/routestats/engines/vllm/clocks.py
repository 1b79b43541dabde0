"""Clocks around the stages of a forward pass.

`HostClock` reads the monotonic clock, which is right where a call returns when its work is done, as
on the CPU. `EventClock` records CUDA events into the stream and reads them after the step.
`ProfilerClock`, in a module of its own, has ``torch.profiler`` measure, for an independent check.

Calls that are clocked lie inside one another. Each clock reading ends one stretch of time and
begins the next, and a stretch belongs to the innermost call that is open: see `own_times`.

Methods are wrapped once for a class and look their object up: wrappers on every object would each
have to come through the caches again, behind the experts' weights, and a class whose objects have
attributes of their own is slower to call.
"""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from routestats.trace.timings import STAGES

Nanoseconds = npt.NDArray[np.int64]
Method = Callable[..., Any]
"""A function whose first argument is the object that it is called on."""
Places = Mapping[int, tuple[int, str]]
"""Layer and stage of each object, by its `id`."""


def clocked(clock: Clock, layer: int, stage: str, function: Callable[..., Any]) -> Any:
    """`function`, which is no method of a class, under a clock."""
    owner = object()

    def method(owner: object, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return partial(clock.wrap({id(owner): (layer, stage)}, method), owner)


class CallCost(NamedTuple):
    """Nanoseconds that clocking one call takes: within what it measures, and outside of that."""

    inside: float
    outside: float


FREE = CallCost(0.0, 0.0)


class Clock(Protocol):
    """Measures calls of the functions it has wrapped, step by step."""

    name: str

    def wrap(self, places: Places, function: Method) -> Method:
        """`function`, whose own time counts where `places` says; several calls add up.

        Calls on objects that `places` does not hold go by without a clock.
        """

    def begin(self) -> None:
        """A step begins."""

    def end(self) -> None:
        """It has ended."""

    def finish(self) -> Nanoseconds:
        """Nanoseconds ``[steps, L, stages]`` of all steps since the clock was made."""

    @property
    def call_ns(self) -> float:
        """What a clocked call costs on average, which has been taken off; 0 where unknown."""


def own_times(
    marks: Iterable[tuple[int, float]],
    layers: int,
    cost_of: Callable[[int], CallCost] = lambda code: FREE,
) -> Nanoseconds:
    """What each stage took by itself, without the stages inside it.

    Parameters
    ----------
    marks : iterable of (int, float)
        In the order of time: what was entered (a number from 0 whose remainder by
        ``layers * stages`` is ``layer * stages + stage``) or left (its bitwise complement), and
        when, in nanoseconds.
    layers : int
    cost_of : function
        What clocking each of them costs. It is taken off: the inner part from the stage itself, the
        outer from the one around it.

    Returns
    -------
    ndarray of int64, shape [L, stages]
    """
    places = layers * len(STAGES)
    own = [0.0] * places
    open_places: list[int] = []
    last = 0.0
    for code, now in marks:
        if open_places:
            own[open_places[-1]] += now - last
        if code >= 0:
            open_places.append(code % places)
        else:
            cost = cost_of(~code)
            own[open_places.pop()] -= cost.inside
            if open_places:
                own[open_places[-1]] -= cost.outside
        last = now
    whole: npt.NDArray[np.int64] = np.rint(np.array(own)).astype(np.int64)
    return whole.reshape(layers, len(STAGES))


class HostClock:
    """The monotonic clock of the host; what it costs a call is measured, and taken off.

    Parameters
    ----------
    layers : int
    cost : function, optional
        `CallCost` of a call with so many positional and keyword arguments.
    """

    name = "time.perf_counter_ns"

    def __init__(self, layers: int, cost: Callable[[int, int], CallCost] | None = None) -> None:
        self._layers = layers
        # Flat: a code (-1 for the end of what is open) and a time for each reading.
        self._marks: list[int] = []
        self._steps: list[list[int]] = []
        self._arguments: list[tuple[int, int] | None] = []  # of each wrapped function
        self._cost = host_call_cost if cost is None else cost

    def wrap(self, places: Places, function: Method) -> Method:
        mark, now = self._marks.append, time.perf_counter_ns
        # Functions differ in how they are called, and so in their numbers.
        number, size = len(self._arguments), self._layers * len(STAGES)
        arguments = self._arguments
        arguments.append(None)
        codes = {
            key: number * size + layer * len(STAGES) + STAGES.index(stage)
            for key, (layer, stage) in places.items()
        }
        code_of = codes.get

        def timed(owner: Any, *args: Any, **kwargs: Any) -> Any:
            code = code_of(id(owner))
            if code is None:
                return function(owner, *args, **kwargs)
            if arguments[number] is None:
                arguments[number] = len(args), len(kwargs)
            mark(code)
            mark(now())
            result = function(owner, *args, **kwargs)
            at = now()
            mark(-1)
            mark(at)
            return result

        return timed

    def begin(self) -> None:
        self._marks.clear()

    def end(self) -> None:
        # No more than this between two steps: what the clock costs a run should be the readings.
        self._steps.append(self._marks.copy())
        self._marks.clear()

    def finish(self) -> Nanoseconds:
        steps = [
            own_times(marks_of(step[::2], step[1::2]), self._layers, self._cost_of)
            for step in self._steps
        ]
        return _stacked(steps, self._layers)

    @property
    def call_ns(self) -> float:
        costs = [sum(self._cost(*counts)) for counts in self._arguments if counts]
        return statistics.fmean(costs) if costs else 0.0

    def _cost_of(self, code: int) -> CallCost:
        counts = self._arguments[code // (self._layers * len(STAGES))]
        return FREE if counts is None else self._cost(*counts)


def marks_of(codes: Iterable[int], times: Iterable[int]) -> list[tuple[int, float]]:
    """Marks as `own_times` takes them; of the codes, -1 is the end of what is open."""
    found: list[tuple[int, float]] = []
    open_codes: list[int] = []
    for code, at in zip(codes, times, strict=True):
        if code < 0:
            found.append((~open_codes.pop(), at))
        else:
            open_codes.append(code)
            found.append((code, at))
    return found


@cache
def host_call_cost(positional: int, keywords: int) -> CallCost:
    """What `HostClock` costs a call with so many arguments, by one of a function without work.

    The least of several medians: what else runs on the machine can only add to one, and for longer
    than a few rounds.
    """
    calls, rounds, medians = 1000, 15, 5
    clock = HostClock(1, lambda _, __: FREE)
    names = [f"argument_{i}" for i in range(positional + keywords)]
    given = [f"{name}=0" if i >= positional else "0" for i, name in enumerate(names)]
    setup = f"""
class Owner:
    def nothing({", ".join(["self", *names])}): return None
owner = Owner()
Owner.nothing = wrap(owner, Owner.nothing)"""

    def timer(wrap: Callable[..., Any]) -> timeit.Timer:
        return timeit.Timer(f"owner.nothing({', '.join(given)})", setup, globals={"wrap": wrap})

    empty, bare = timeit.Timer(), timer(lambda _, function: function)
    under_clock = timer(lambda owner, f: clock.wrap({id(owner): (0, STAGES[0])}, f))

    def per_call(what: timeit.Timer) -> float:
        return what.timeit(calls) / calls * 1e9

    def one_round() -> tuple[float, float]:
        loop, one = per_call(empty), per_call(bare)
        clock.begin()
        whole = per_call(under_clock)
        clock.end()
        within = float(clock.finish()[-1].sum())
        clock._steps.clear()
        return whole - one, within / calls - (one - loop)

    found = []
    for _ in range(medians):
        total, inside = zip(*(one_round() for _ in range(rounds)), strict=True)
        found.append((statistics.median(total), statistics.median(inside)))
    whole, inside_ns = min(found)
    each = max(inside_ns, 0.0)
    return CallCost(each, max(whole - each, 0.0))


class EventClock:
    """CUDA events around each call, read after the step; for eager steps.

    The forward pass is not synchronised within a step. `event` makes an event with ``record()``,
    ``synchronize()`` and ``elapsed_time(later)`` in milliseconds, as ``torch.cuda.Event`` is.
    """

    name = "torch.cuda.Event"
    call_ns = 0.0

    def __init__(self, layers: int, event: Callable[[], Any] | None = None) -> None:
        self._layers = layers
        self._event = event or (lambda: torch.cuda.Event(enable_timing=True))
        self._marks: list[tuple[int, Any]] = []
        self._steps: list[Nanoseconds] = []

    def wrap(self, places: Places, function: Method) -> Method:
        codes = {
            key: layer * len(STAGES) + STAGES.index(stage) for key, (layer, stage) in places.items()
        }

        def timed(owner: Any, *args: Any, **kwargs: Any) -> Any:
            code = codes.get(id(owner))
            if code is None:
                return function(owner, *args, **kwargs)
            self._mark(code)
            result = function(owner, *args, **kwargs)
            self._mark(~code)
            return result

        return timed

    def _mark(self, code: int) -> None:
        event = self._event()
        event.record()
        self._marks.append((code, event))

    def begin(self) -> None:
        self._marks = []

    def end(self) -> None:
        marks, self._marks = self._marks, []
        at, before, timed = 0.0, None, []
        if marks:
            marks[-1][1].synchronize()
        for code, event in marks:
            # From one event to the next: a single precision number of milliseconds stays exact.
            at += 0.0 if before is None else before.elapsed_time(event) * 1e6
            before = event
            timed.append((code, at))
        self._steps.append(own_times(timed, self._layers))

    def finish(self) -> Nanoseconds:
        return _stacked(self._steps, self._layers)


def _stacked(steps: list[Nanoseconds], layers: int) -> Nanoseconds:
    return np.array(steps, np.int64).reshape(-1, layers, len(STAGES))
