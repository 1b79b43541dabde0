"""Clocks on the stages of a forward pass."""

from __future__ import annotations

import gc
import gzip
import inspect
import json
import sys
import time
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from routestats import _core
from routestats.trace.timings import STAGES

pytest.importorskip("torch", reason="the clocks are in a module that imports torch")


class Layer:
    """Stages that take a known time."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def gate(self) -> str:
        time.sleep(0.004)
        return "gate"

    def experts(self) -> str:
        time.sleep(0.012)
        return "experts"


def run_steps(clock: Any, steps: int) -> Any:
    from routestats.engines.vllm.clocks import clocked

    layer, other = Layer(), Layer()
    made_of = {id(layer): (1, "gate")}
    gate = partial(clock.wrap(made_of, Layer.gate), layer)
    unclocked = partial(clock.wrap(made_of, Layer.gate), other)
    experts = clocked(clock, 1, "experts", layer.experts)

    def in_turn() -> tuple[str, ...]:
        time.sleep(0.002)
        return gate(), experts(), experts()

    whole = clocked(clock, 1, "block", in_turn)
    whole()  # outside a step
    for _ in range(steps):
        clock.begin()
        assert whole() == ("gate", "experts", "experts")
        assert unclocked() == "gate"
        assert clock.end() >= 34e6  # all of it, what no clock is on included
    return clock.finish()


def test_the_host_clock_and_the_profiler_measure_the_same(tmp_path: Path) -> None:
    from routestats.engines.vllm.clocks import HostClock
    from routestats.engines.vllm.profiler import ProfilerClock

    trace = tmp_path / "timing" / "chrome-trace-000000.json.gz"
    for ns, calls in (run_steps(HostClock(2), 3), run_steps(ProfilerClock(2, trace, 8), 3)):
        assert calls.sum() == 3 * 4
        assert (calls[:, 1, STAGES.index("experts")] == 2).all()
        assert ns.shape == (3, 2, len(STAGES))
        assert (ns[:, 0] == 0).all()
        names = ("gate", "experts", "block")
        gate, experts, block = (ns[:, 1, STAGES.index(name)] / 1e6 for name in names)
        # The least of the steps at the upper end: what else runs on the machine can only add.
        assert 3.9 <= gate.min() < 12
        assert 23.9 <= experts.min() < 60
        assert 1.9 <= block.min() < 12  # without what is inside it
    assert trace.is_file()


def test_the_profiler_stops_listening(tmp_path: Path) -> None:
    from routestats.engines.vllm.clocks import clocked
    from routestats.engines.vllm.profiler import ProfilerClock

    clock = ProfilerClock(2, tmp_path / "trace.json.gz", 2)
    gate = clocked(clock, 0, "gate", lambda: None)
    for _ in range(2):
        assert not clock.full
        clock.begin()
        gate()
        clock.end()
    assert clock.full
    gate()
    assert clock.finish().ns.shape == (2, 2, len(STAGES))


def test_a_chrome_trace_gives_the_device_its_say(tmp_path: Path) -> None:
    from routestats.engines.vllm.chrome_trace import stages_of_chrome_trace
    from routestats.errors import CaptureError

    def event(name: str, cat: str, ts: float, dur: float) -> dict[str, object]:
        return {"ph": "X", "name": f"routestats/{name}", "cat": cat, "ts": ts, "dur": dur}

    events = [
        event("step", "user_annotation", 0.0, 100.0),
        event("gate/0", "user_annotation", 1.0, 9.0),
        event("combine/0", "user_annotation", 11.0, 9.0),
        event("step", "gpu_user_annotation", 50.0, 30.0),
        event("block/0", "gpu_user_annotation", 51.0, 7.0),
        event("gate/0", "gpu_user_annotation", 51.0, 2.5),
        event("gate/0", "gpu_user_annotation", 55.0, 1.5),
        event("rest/0", "gpu_user_annotation", 60.0, 1.0),
        {"ph": "X", "name": "gemm", "cat": "kernel", "ts": 51.0, "dur": 2.0},
    ]
    path = tmp_path / "trace.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    ns, calls = stages_of_chrome_trace(path, 1, 1)
    assert calls[0, 0, STAGES.index("gate")] == 1
    assert calls[0, 0, STAGES.index("combine")] == 1  # it ran, and put nothing on the device
    assert calls[0, 0, STAGES.index("topk")] == 0
    assert ns[0, 0, STAGES.index("combine")] == 0
    assert ns[0, 0, STAGES.index("gate")] == 4000
    assert ns[0, 0, STAGES.index("block")] == 3000
    assert ns[0, 0, STAGES.index("rest")] == 1000
    # On the CPU every operator pays for being put down, and does so where it stands.
    events = [
        event("step", "cpu_op", 0.0, 100.0),
        event("block/0", "cpu_op", 1.0, 20.0),
        event("gate/0", "cpu_op", 2.0, 8.0),
        {"ph": "X", "name": "aten::linear", "cat": "cpu_op", "ts": 3.0, "dur": 4.0},
        {"ph": "X", "name": "aten::mm", "cat": "cpu_op", "ts": 4.0, "dur": 2.0},
        {"ph": "X", "name": "aten::empty", "cat": "cpu_op", "ts": 12.0, "dur": 2.0},
        {"ph": "X", "name": "aten::add", "cat": "cpu_op", "ts": 50.0, "dur": 2.0},
    ]
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": events}, file)
    ns, _ = stages_of_chrome_trace(path, 1, 1, op_ns=500.0)
    assert ns[0, 0, STAGES.index("gate")] == 8000 - 2 * 500
    assert ns[0, 0, STAGES.index("block")] == 12000 - 500
    assert ns.sum() == 20_000 - 3 * 500
    with pytest.raises(CaptureError, match="expected 2 steps in the profile, got 1"):
        stages_of_chrome_trace(path, 1, 2)


class Stream:
    """A GPU's stream: it works off what the host enqueues, one thing after the other."""

    def __init__(self) -> None:
        self.host = 0.0  # milliseconds
        self.device = 0.0

    def launch(self, ms: float, enqueue: float = 0.001) -> str:
        self.host += enqueue
        self.device = max(self.device, self.host) + ms
        return "done"

    def event(self) -> SimpleNamespace:
        made = SimpleNamespace()
        made.record = lambda: setattr(made, "at", max(self.device, self.host))
        made.synchronize = lambda: setattr(self, "host", max(self.host, made.at))
        made.elapsed_time = lambda later: later.at - made.at
        return made


def test_events_are_read_after_the_step() -> None:
    from routestats.engines.vllm.clocks import EventClock, clocked

    stream = Stream()
    clock = EventClock(1, stream.event)
    gate = clocked(clock, 0, "gate", lambda: stream.launch(2.0))
    block = clocked(clock, 0, "block", lambda: (stream.launch(1.0), gate(), stream.launch(3.0))[1])
    clock.begin()
    assert block() == "done"
    gate()
    stream.launch(4.0)  # after the last clocked call, and still of the step
    assert stream.host == pytest.approx(0.005)  # all is enqueued, and hardly any of it has run
    assert clock.end() == pytest.approx(12e6, rel=1e-3)
    assert stream.host == pytest.approx(12, rel=1e-3)
    clock.begin()
    clock.end()
    ns, calls = clock.finish()
    at, around = STAGES.index("gate"), STAGES.index("block")
    assert ns[0, 0, at] == pytest.approx(4e6, rel=1e-3)  # two calls
    assert ns[0, 0, around] == pytest.approx(4e6, rel=1e-3)  # without the call inside it
    assert calls[0, 0, [at, around]].tolist() == [2, 1]
    assert (ns[1] == 0).all()
    assert (calls[1] == 0).all()


def test_a_starved_gpu_shows_launches() -> None:
    """What the measure of `EventClock` says: gaps between launches are in it."""
    from routestats.engines.vllm.clocks import EventClock, clocked

    stream = Stream()
    clock = EventClock(1, stream.event)
    gate = clocked(clock, 0, "gate", lambda: stream.launch(0.002, enqueue=0.1))
    clock.begin()
    gate()
    clock.end()
    assert clock.finish().ns[0, 0, STAGES.index("gate")] == pytest.approx(0.102e6)
    assert clock.measure == "between events on the GPU's stream, launch gaps included"


def test_a_stretch_of_time_belongs_to_the_innermost_call() -> None:
    from routestats.engines.vllm.clocks import CallCost, own_times

    gate, block, rest = (STAGES.index(name) for name in ("gate", "block", "rest"))
    other = len(STAGES) + gate
    marks = [
        (rest, 0), (block, 100), (gate, 150), (~gate, 170), (gate, 200), (~gate, 210),
        (~block, 260), (~rest, 300), (other, 1000), (~other, 1007),
    ]  # fmt: skip
    own = own_times(marks, 2)
    assert own[0, [gate, block, rest]].tolist() == [30, 130, 140]
    assert own[1, gate] == 7
    assert own.sum() == 307
    own = own_times(marks, 2, CallCost(2.0, 3.0))
    assert own[0, [gate, block, rest]].tolist() == [30 - 4, 130 - 6 - 2, 140 - 3 - 2]
    assert own[1, gate] == 5


def test_what_the_host_clock_costs_is_taken_off() -> None:
    from routestats.engines.vllm.clocks import FREE, HostClock, host_call_cost

    class Thing:
        def inner(self, a: int, b: int, *, c: int, d: int) -> None:
            return None

        def outer(self) -> None:
            for _ in range(1000):
                self.inner(1, 2, c=3, d=4)

    plain: list[int] = []
    measured: dict[bool, list[Any]] = {False: [], True: []}
    kind: Any = Thing
    thing, inner, outer = Thing(), Thing.inner, Thing.outer
    for _ in range(60):
        begin = time.perf_counter_ns()
        thing.outer()
        plain.append(time.perf_counter_ns() - begin)
        for calibrated in measured:
            clock = HostClock(1, host_call_cost() if calibrated else FREE)
            kind.inner = clock.wrap({id(thing): (0, "gate")}, inner)
            kind.outer = clock.wrap({id(thing): (0, "block")}, outer)
            clock.begin()
            thing.outer()
            clock.end()
            measured[calibrated].append(clock.finish().ns.sum())
            assert clock.call_ns > 0 or not calibrated
        kind.inner, kind.outer = inner, outer
    # The least of each: what else runs on the machine can only add.
    bare, raw, corrected = (np.min(x) for x in (plain, measured[False], measured[True]))
    assert raw > 1.5 * bare  # the clock costs as much as what it measures here
    assert abs(corrected - bare) < 0.5 * (raw - bare)


def test_a_clocked_function_is_called_as_the_function_is() -> None:
    from routestats.engines.vllm.clocks import FREE, HostClock

    class Thing:
        def method(self, a: int, /, b: int, *rest: int, c: int = 3, **more: int) -> object:
            """What it does."""
            if a < 0:
                raise ValueError("negative")
            return self, a, b, rest, c, more

    thing, other = Thing(), Thing()
    expected = inspect.signature(Thing.method)
    clock = HostClock(1, FREE)
    function = Thing.method
    kind: Any = Thing
    kind.method = clock.wrap({id(thing): (0, "gate")}, function)
    clock.begin()
    assert thing.method(1, 2, 7, 8, c=4, d=5) == (thing, 1, 2, (7, 8), 4, {"d": 5})
    assert thing.method(*(1,), **{"b": 2}) == (thing, 1, 2, (), 3, {})
    assert Thing.method(thing, 1, 2) == (thing, 1, 2, (), 3, {})
    bound = thing.method
    assert bound(1, 2) == (thing, 1, 2, (), 3, {})
    assert other.method(1, 2) == (other, 1, 2, (), 3, {})  # goes by
    with pytest.raises(ValueError, match="negative"):
        thing.method(-1, 2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"):
        thing.method(1)  # type: ignore[call-arg]
    clock.end()
    assert inspect.signature(Thing.method) == expected
    method: Any = Thing.method
    assert (method.__name__, method.__doc__) == ("method", "What it does.")
    assert method.__qualname__ == function.__qualname__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = method.nothing
    gone = weakref.ref(method)
    assert gone() is method
    del method
    (marks,) = clock._clock.take()
    assert [code >= 0 for code in marks[:, 0]] == [True, False] * 6  # what raises ends, too
    assert (np.diff(marks[:, 1]) >= 0).all()
    assert clock._clock.take() == []
    watched, kept = weakref.ref(thing), sys.getrefcount(function)
    del thing, bound, Thing.method
    gc.collect()
    assert watched() is None
    assert gone() is None
    assert sys.getrefcount(function) == kept - 1


def test_codes_that_are_none_are_refused() -> None:
    clock = _core.CallClock()
    with pytest.raises(ValueError, match="codes: expected them not to be negative"):
        clock.wrap({1: -1}, print)
    with pytest.raises(TypeError):
        clock.wrap({"one": 1}, print)  # type: ignore[dict-item]
