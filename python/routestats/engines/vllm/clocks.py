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

import time
import timeit
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from routestats import _core
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


class Measured(NamedTuple):
    """Steps that a clock has measured: int64 ``[steps, L, stages]``, both."""

    ns: Nanoseconds
    calls: Nanoseconds
    """How many calls each stage had. One without any has not run where it was looked for."""


class Clock(Protocol):
    """Measures calls of the functions it has wrapped, step by step."""

    name: str
    measure: str
    """What a time is, in words."""

    def wrap(self, places: Places, function: Method) -> Method:
        """`function`, whose own time counts where `places` says; several calls add up.

        Calls on objects that `places` does not hold go by without a clock.
        """

    def begin(self) -> None:
        """A step begins."""

    def end(self) -> int:
        """It has ended, and so has its work on the device. Returns the nanoseconds that it took."""

    def finish(self) -> Measured:
        """The steps that it has measured; to be called once.

        (`HostClock` may go on: it gives those since the last call.)
        """

    @property
    def call_ns(self) -> float:
        """What a clocked call costs on average, which has been taken off; 0 where unknown."""


def own_times(
    marks: Iterable[tuple[int, float]], layers: int, cost: CallCost = FREE
) -> Nanoseconds:
    """What each stage took by itself, without the stages inside it.

    Parameters
    ----------
    marks : iterable of (int, float)
        In the order of time: what was entered (``layer * stages + stage``) or left (its bitwise
        complement), and when, in nanoseconds.
    layers : int
    cost : CallCost
        What clocking each of them costs. It is taken off: the inner part from the stage itself, the
        outer from the one around it.

    Returns
    -------
    ndarray of int64, shape [L, stages]
    """
    own = [0.0] * (layers * len(STAGES))
    open_places: list[int] = []
    last = 0.0
    for code, now in marks:
        if open_places:
            own[open_places[-1]] += now - last
        if code >= 0:
            open_places.append(code)
        else:
            own[open_places.pop()] -= cost.inside
            if open_places:
                own[open_places[-1]] -= cost.outside
        last = now
    whole: npt.NDArray[np.int64] = np.rint(np.array(own)).astype(np.int64)
    return whole.reshape(layers, len(STAGES))


def calls_of(marks: Iterable[tuple[int, float]], layers: int) -> Nanoseconds:
    """How often each stage was entered, ``[L, stages]``, by marks as those of `own_times`."""
    entered = [int(code) for code, _ in marks if code >= 0]
    return np.bincount(entered, minlength=layers * len(STAGES)).reshape(layers, len(STAGES))


class HostClock:
    """The monotonic clock of the host, read in C++; what it costs a call is measured and taken off.

    In Python, reading it would cost a call 0.5 microseconds where everything lies in the caches and
    several times that inside an engine, where nothing does: more than the smallest stages take.

    Parameters
    ----------
    layers : int
    cost : CallCost, optional
        What a clocked call costs.
    """

    name = "std::chrono::steady_clock"
    measure = "between calls on the host, which return when their work is done"

    def __init__(self, layers: int, cost: CallCost | None = None) -> None:
        self._layers = layers
        self._clock = _core.CallClock()
        self._cost = host_call_cost() if cost is None else cost

    def wrap(self, places: Places, function: Method) -> Method:
        return self._clock.wrap(_codes_of(places), function)

    def begin(self) -> None:
        self._clock.begin()
        self._began = time.perf_counter_ns()

    def end(self) -> int:
        took = time.perf_counter_ns() - self._began
        self._clock.end()
        return took

    def finish(self) -> Measured:
        steps = [marks.tolist() for marks in self._clock.take()]
        own = [own_times(marks, self._layers, self._cost) for marks in steps]
        return _measured(own, [calls_of(marks, self._layers) for marks in steps], self._layers)

    @property
    def call_ns(self) -> float:
        return sum(self._cost)


@cache
def host_call_cost() -> CallCost:
    """What `HostClock` costs a call, by those of a function without work.

    From the least of many rounds of each: what else runs on the machine can only add to them.
    """
    calls, rounds = 2000, 40
    clock = HostClock(1, FREE)
    setup = """
class Owner:
    def nothing(self, a, b, *, c): return None
owner = Owner()
Owner.nothing = wrap(owner, Owner.nothing)"""

    def timer(wrap: Callable[..., Any]) -> timeit.Timer:
        return timeit.Timer("owner.nothing(0, 0, c=0)", setup, globals={"wrap": wrap})

    empty, bare = timeit.Timer(), timer(lambda _, function: function)
    under_clock = timer(lambda owner, f: clock.wrap({id(owner): (0, STAGES[0])}, f))
    found = []
    for _ in range(rounds):
        loop, one = empty.timeit(calls), bare.timeit(calls)
        clock.begin()
        whole = under_clock.timeit(calls)
        clock.end()
        found.append((loop, one, whole, float(clock.finish().ns.sum()) / 1e9))
    loop, one, whole, within = (min(times) / calls * 1e9 for times in zip(*found, strict=True))
    inside = max(within - (one - loop), 0.0)
    return CallCost(inside, max(whole - one - inside, 0.0))


class EventClock:
    """CUDA events around each call, read after the step; for eager steps.

    A time is that between two points of the stream, so the GPU's waiting for the host to launch
    is in it: where it runs out of work, as in an eager decode of few tokens, launches are what is
    measured. Work on other streams is not. The forward pass is not synchronised within a step.
    `event` makes an event with ``record()``, ``synchronize()`` and ``elapsed_time(later)`` in
    milliseconds, as ``torch.cuda.Event`` is.
    """

    name = "torch.cuda.Event"
    measure = "between events on the GPU's stream, launch gaps included"
    call_ns = 0.0

    def __init__(self, layers: int, event: Callable[[], Any] | None = None) -> None:
        self._layers = layers
        self._event = event or (lambda: torch.cuda.Event(enable_timing=True))
        self._marks: list[tuple[int, Any]] = []
        self._steps: list[Nanoseconds] = []
        self._calls: list[Nanoseconds] = []

    def wrap(self, places: Places, function: Method) -> Method:
        codes = _codes_of(places)

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
        self._marks.append((code, self._recorded()))

    def _recorded(self) -> Any:
        event = self._event()
        event.record()
        return event

    def begin(self) -> None:
        self._marks = []
        self._began = self._recorded()

    def end(self) -> int:
        ended = self._recorded()
        ended.synchronize()
        marks, self._marks = self._marks, []
        at, before, timed = 0.0, None, []
        for code, event in marks:
            # From one event to the next: a single precision number of milliseconds stays exact.
            at += 0.0 if before is None else before.elapsed_time(event) * 1e6
            before = event
            timed.append((code, at))
        self._steps.append(own_times(timed, self._layers))
        self._calls.append(calls_of(timed, self._layers))
        return round(float(self._began.elapsed_time(ended)) * 1e6)

    def finish(self) -> Measured:
        return _measured(self._steps, self._calls, self._layers)


def _codes_of(places: Places) -> dict[int, int]:
    """What `own_times` calls the layer and stage of each object."""
    return {
        key: layer * len(STAGES) + STAGES.index(stage) for key, (layer, stage) in places.items()
    }


def _measured(ns: list[Nanoseconds], calls: list[Nanoseconds], layers: int) -> Measured:
    shape = (-1, layers, len(STAGES))
    return Measured(*(np.array(steps, np.int64).reshape(shape) for steps in (ns, calls)))
