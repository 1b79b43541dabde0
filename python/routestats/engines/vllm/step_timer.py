"""Timing in one worker process: clocks on the stages of every layer, for as long as it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.engines.timing import TimingRequest
from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.clocks import Clock, EventClock, HostClock, clocked
from routestats.engines.vllm.description import require_eager
from routestats.engines.vllm.profiler import ProfilerClock
from routestats.engines.vllm.routers import MoELayer
from routestats.engines.vllm.stages import (
    Wrapping,
    modules_of,
    outline_functions,
    stage_functions,
)
from routestats.errors import CaptureError
from routestats.trace.timings import (
    STAGES,
    StepFigures,
    TimingInfo,
    chrome_trace_path,
    write_timings,
)


class WorkerTiming:
    """The timings of one worker, one at a time."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._timer: StepTimer | None = None

    @property
    def under_way(self) -> bool:
        """Whether steps are clocked."""
        return self._timer is not None

    def start(self, request: dict[str, Any]) -> None:
        """Put clocks on the stages of every layer."""
        attached = self._attachment
        require_eager(attached.config, "timing", "whose stages are separate calls")
        if not attached.layers:
            raise CaptureError(attached.refusal or "timing: the model has no MoE layers")
        attached.unbind()
        self._timer = StepTimer(
            attached.runner,
            attached.layers,
            attached.worker.device.type,
            self._info,
            TimingRequest(**request),
        )

    def stop(self, keep: bool) -> dict[str, Any]:
        """Take the clocks off; write what they showed, if it is to be kept."""
        timer, self._timer = self._timer, None
        if timer is None:
            raise CaptureError("no timing is under way in this engine")
        return timer.stop(keep=keep)

    def _info(self, source: str, clock: Clock) -> TimingInfo:
        attached = self._attachment
        layers = tuple(layer.layer_id for layer in attached.layers)
        name = attached.model["name"]
        return TimingInfo(
            source, layers, clock.name, name, attached.engine, clock.call_ns, clock.measure
        )


class StepTimer:
    """Clocks every step of a model runner from `start` to `stop`.

    Parameters
    ----------
    runner : vLLM model runner
    layers : list of MoELayer
    device : str
        ``cpu``, or the kind of accelerator.
    info : function
        Makes the `TimingInfo` of a source and a clock.
    """

    def __init__(
        self,
        runner: Any,
        layers: list[MoELayer],
        device: str,
        info: Callable[[str, Clock], TimingInfo],
        request: TimingRequest,
    ) -> None:
        self._request = request
        self._info = info
        self._wrapping = Wrapping()
        self._prompts = _Prompts()
        self._steps: list[StepFigures] = []
        self._step_ns: list[int] = []
        self._seen = 0
        functions = outline_functions if request.source == "outline" else stage_functions
        places = [
            (index, place)
            for index, modules in enumerate(modules_of(runner.get_model(), layers))
            for place in functions(modules)
        ]
        self._stages = {stage for _, (_, _, stage) in places}
        self._objects = [target for _, (target, _, _) in places]  # kept, for they go by their id
        self._clock = _clock_for(request, len(layers), device)
        of_class: dict[tuple[type, str], dict[int, tuple[int, str]]] = {}
        for index, (target, method, stage) in places:
            if method in vars(target):  # the object has its own, and the class is not asked
                self._wrapping.wrap(target, method, partial(clocked, self._clock, index, stage))
            else:
                of_class.setdefault((type(target), method), {})[id(target)] = index, stage
        for (owner, method), found in of_class.items():
            self._wrapping.wrap_class(owner, method, partial(self._clock.wrap, found))
        self._wrapping.wrap(runner, "execute_model", self._timed_step)

    def _timed_step(self, execute_model: Callable[..., Any]) -> Callable[..., Any]:
        def execute_and_time(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            rows = int(scheduler_output.total_num_scheduled_tokens)
            prefill_rows = self._prompts.prefill_rows(scheduler_output)
            if rows == 0 or kwargs.get("dummy_run") or getattr(self._clock, "full", False):
                return execute_model(scheduler_output, *args, **kwargs)
            warm_up = self._seen < self._request.warm_up
            self._seen += 1
            if warm_up and isinstance(self._clock, ProfilerClock):
                return execute_model(scheduler_output, *args, **kwargs)
            self._clock.begin()
            output = execute_model(scheduler_output, *args, **kwargs)
            self._step_ns.append(self._clock.end())
            self._steps.append(
                StepFigures(
                    domain=self._request.domain,
                    rows=rows,
                    prefill_rows=prefill_rows,
                    requests=len(scheduler_output.num_scheduled_tokens),
                    warm_up=warm_up,
                )
            )
            return output

        return execute_and_time

    def stop(self, *, keep: bool) -> dict[str, Any]:
        """Take the clocks off, and write what they showed if it is to be kept."""
        self._wrapping.release()
        if not keep:
            return {"steps": 0}
        stage_ns, calls = self._clock.finish()
        if len(self._steps) == 0:
            raise CaptureError("timing: no step was run; generate something inside")
        info = self._info(self._request.source, self._clock)
        _check_all_fired(calls, info.layer_ids, self._stages)
        path = write_timings(
            self._request.run_dir,
            info,
            self._steps,
            np.array(self._step_ns, np.int64),
            stage_ns,
        )
        return {"steps": len(self._steps), "file": str(path)}


def _check_all_fired(
    calls: npt.NDArray[np.int64], layer_ids: tuple[int, ...], clocked: set[str]
) -> None:
    """A stage without a call in a step is not one of nothing: it lies elsewhere, or in a graph."""
    wanted = np.array([stage in clocked for stage in STAGES])
    never = np.argwhere((calls == 0) & wanted)
    if len(never):
        step, layer, stage = never[0]
        raise CaptureError(
            f"timing: step {step} of {len(calls)}, layer {layer_ids[layer]}: its stage "
            f"{STAGES[stage]} did not run where it was looked for, so that the stages cannot be "
            "told apart"
        )


def _clock_for(request: TimingRequest, layers: int, device: str) -> Clock:
    if request.source == "profiler":
        return ProfilerClock(layers, chrome_trace_path(request.run_dir), request.max_steps)
    clocks: dict[str, Callable[[int], Clock]] = {"cpu": HostClock, "cuda": EventClock}
    if device not in clocks:
        raise CaptureError(f"timing: expected an engine on cpu or cuda, got {device}")
    return clocks[device](layers)


@dataclass(slots=True)
class _Prompts:
    """Prompt lengths of the requests under way, to tell prompt rows from decoded ones."""

    lengths: dict[str, int] = field(default_factory=dict)

    def prefill_rows(self, scheduler_output: Any) -> int:
        """Prompt tokens among those that a step runs."""
        for request_id in scheduler_output.finished_req_ids:
            self.lengths.pop(request_id, None)
        done: dict[str, int] = {}
        for request in scheduler_output.scheduled_new_reqs:
            self.lengths[request.req_id] = len(request.prompt_token_ids or ())
            done[request.req_id] = request.num_computed_tokens
        cached = scheduler_output.scheduled_cached_reqs
        done.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        return sum(
            min(count, max(self.lengths.get(request_id, 0) - done.get(request_id, 0), 0))
            for request_id, count in scheduler_output.num_scheduled_tokens.items()
        )
