"""What stands in a vLLM worker: it binds the routers, follows the steps, and owns the recorder."""

from __future__ import annotations

import atexit
import logging
import os
from pathlib import Path
from typing import Any

from routestats.counts import why_no_cuda
from routestats.engines._assembler import StepRows, domain_of
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.description import (
    engine_of,
    is_eager,
    model_of,
    require_eager,
)
from routestats.engines.vllm.lookahead import Lookahead, layout_of
from routestats.engines.vllm.routers import MoELayer, RouterBinding, find_layers, shape_of
from routestats.engines.vllm.stages import modules_of
from routestats.engines.vllm.steps import note_sampled, read_rows, refuse_layout, requests_of
from routestats.engines.vllm.taps import DeviceTap, HostTap, StagedTap, Tap
from routestats.engines.vllm.timing import StepTimer, TimingRequest
from routestats.errors import CaptureError, RouteStatsError
from routestats.shape import RouteShape
from routestats.trace.timings import TimingInfo

RUN_VARIABLE = "ROUTESTATS_RUN"
"""Folder of the run that a server process captures into, with nobody's code touching it."""


class Agent:
    """Capture in one worker process.

    Parameters
    ----------
    worker : vLLM worker
        After ``init_device``, so that it has a model runner.
    late : bool
        The model is already loaded: hooks were not bound before the engine was set up.
    """

    def __init__(self, worker: Any, *, late: bool) -> None:
        self._worker = worker
        self._runner = worker.model_runner
        self._config = worker.vllm_config
        self._layers: list[MoELayer] = []
        self._shape: RouteShape | None = None
        self._binding: RouterBinding | None = None
        self._tap: Tap | None = None
        self._recorder: Recorder | None = None
        self._step: StepRows | None = None  # the last one handed over
        self._failed: Recorder | None = None
        self._timer: StepTimer | None = None
        self._lookahead: Lookahead | None = None
        self._alarm: Path | None = None
        self._refusal: str | None = None
        self._compiled = not is_eager(self._config)
        if late and self._compiled:
            self._refusal = (
                "the engine was compiled without routestats' hooks: call routestats.enable() "
                "before the engine is created, or create it with enforce_eager=True"
            )
        self._follow_runner()
        if late:
            self._find_layers()
        else:
            self._follow_load()
        _close_with_process(self)

    @property
    def writes(self) -> bool:
        """Whether this worker is the one that writes: all ranks route alike."""
        return int(self._config.parallel_config.rank) == 0

    # --- control, called through the plugin's RPC methods ---

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin a capture, or push a domain onto the one under way."""
        if self._refusal is not None:
            raise CaptureError(self._refusal)
        if not self.writes:
            return {"writes": False}
        run_dir = Path(request["run_dir"])
        if self._failed is not None:
            raise CaptureError(f"the capture under way has failed: {self._failed.error}")
        if self._timer is not None:
            raise CaptureError("a timing is under way in this engine: capture before or after it")
        if self._recorder is None:
            options = RecorderOptions(**request.get("options", {}))
            lookahead = self._new_lookahead(options.lookahead)
            self.bind()
            self._alarm = Path(request["alarm"])
            self._recorder = self._new_recorder(
                run_dir, options, hold_records=True, lookahead=lookahead
            )
            if lookahead is not None:
                lookahead.bind()
                self._lookahead = lookahead
        elif self._recorder.run_dir != run_dir:
            raise CaptureError(
                f"a capture into {self._recorder.run_dir} is under way in this engine; "
                f"expected the same folder, got {run_dir}"
            )
        self._recorder.domains.append(request["domain"])
        return {"writes": True, "depth": len(self._recorder.domains)}

    def stop(self, outcomes: list[list[Any]], reason: str | None) -> dict[str, Any]:
        """End the innermost capture; the last one closes the run and returns its totals.

        With a `reason` the run was cut short, and says so.
        """
        if not self.writes:
            return {"writes": False}
        recorder = self._recorder or self._failed
        if recorder is None:
            raise CaptureError("no capture is under way in this engine")
        recorder.add_outcomes({(key, sample): known for key, sample, known in outcomes})
        recorder.domains.pop()
        if recorder.domains:
            return {"writes": True, "depth": len(recorder.domains), **recorder.progress()}
        self._recorder = self._failed = None
        self._end_lookahead()
        if reason is not None:
            recorder.fail(reason)
        return {"writes": True, "depth": 0, **recorder.close()}

    def progress(self) -> dict[str, Any]:
        """Rows and drops so far."""
        if self._recorder is None:
            return {"writes": False}
        return {"writes": True, **self._recorder.progress()}

    def start_timing(self, request: dict[str, Any]) -> dict[str, Any]:
        """Put clocks on the stages of every layer."""
        if not self.writes:
            return {"writes": False}
        require_eager(self._config, "timing", "whose stages are separate calls")
        if not self._layers:
            raise CaptureError(self._refusal or "timing: the model has no MoE layers")
        if self._recorder is not None or self._timer is not None:
            busy = "capture" if self._recorder is not None else "timing"
            raise CaptureError(
                f"timing: a {busy} is under way in this engine; time in a pass of its own"
            )
        self.unbind()
        self._timer = StepTimer(
            self._runner,
            self._layers,
            self._worker.device.type,
            self._timing_info,
            TimingRequest(**request),
        )
        return {"writes": True}

    def stop_timing(self, keep: bool) -> dict[str, Any]:
        """Take the clocks off; write what they showed, if it is to be kept."""
        if not self.writes:
            return {"writes": False}
        timer, self._timer = self._timer, None
        if timer is None:
            raise CaptureError("no timing is under way in this engine")
        return {"writes": True, **timer.stop(keep=keep)}

    def _timing_info(self, source: str, clock: str, call_ns: float) -> TimingInfo:
        layers = tuple(layer.layer_id for layer in self._layers)
        model = model_of(self._config)["name"]
        engine = engine_of(self._config, self._worker.device)
        return TimingInfo(source, layers, clock, model, engine, call_ns)

    def bind(self) -> None:
        """Wrap the routers, if they are not."""
        if self._binding is None and self._tap is not None:
            self._binding = RouterBinding(self._layers, self._tap.observe)

    def unbind(self) -> None:
        """Take the wrappers off the routers of an eager engine; the next capture binds again."""
        if self._compiled:
            raise CaptureError("unbind: the hooks are compiled in; expected an eager engine")
        if self._recorder is not None:
            raise CaptureError("unbind: a capture is under way")
        if self._binding is not None:
            self._binding.release()
            self._binding = None

    def close(self) -> None:
        """Finish whatever is under way; the process is about to end."""
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            recorder.close()

    # --- the model and its routers ---

    def _follow_load(self) -> None:
        load_model = self._runner.load_model

        def load_and_bind(*args: Any, **kwargs: Any) -> Any:
            result = load_model(*args, **kwargs)
            self._find_layers()
            run_dir = os.environ.get(RUN_VARIABLE)
            if self._refusal is None and self.writes:
                self.bind()
                if run_dir:
                    self._recorder = self._new_recorder(
                        Path(run_dir), RecorderOptions(), hold_records=False
                    )
            elif self._refusal is not None and run_dir:
                # Nobody will ask later, so the engine must not start as if it were captured.
                raise CaptureError(f"{RUN_VARIABLE} is set, but {self._refusal}")
            return result

        self._runner.load_model = load_and_bind

    def _find_layers(self) -> None:
        try:
            refuse_layout(self._config)
            model_config = self._config.model_config
            self._layers = find_layers(self._runner.get_model(), model_config.get_num_experts())
            self._shape = shape_of(self._layers)
            self._tap = self._new_tap(self._shape)
        except RouteStatsError as error:
            self._refusal = self._refusal or str(error)

    def _new_tap(self, shape: RouteShape) -> Tap:
        device = self._worker.device
        if device is None or device.type == "cpu":
            return HostTap()
        largest_step = int(self._config.scheduler_config.max_num_batched_tokens)
        if device.type == "cuda" and why_no_cuda() is None:
            # Graphs keep the ring's addresses, so it is made before any capture says how large.
            return DeviceTap(shape, max(RecorderOptions().ring_rows, 2 * largest_step), device)
        return StagedTap(shape, largest_step, device)

    def _new_lookahead(self, hops: tuple[int, ...]) -> Lookahead | None:
        if not hops:
            return None
        require_eager(self._config, "lookahead", "whose gates can be called by themselves")
        assert self._shape is not None
        modules = modules_of(self._runner.get_model(), self._layers)
        layout = layout_of(modules, hops, self._shape)
        largest_step = self._config.scheduler_config.max_num_batched_tokens
        return Lookahead(modules, layout, self._shape, largest_step, self._worker.device)

    def _end_lookahead(self) -> None:
        lookahead, self._lookahead = self._lookahead, None
        if lookahead is not None:
            lookahead.release()

    def _new_recorder(
        self,
        run_dir: Path,
        options: RecorderOptions,
        *,
        hold_records: bool,
        lookahead: Lookahead | None = None,
    ) -> Recorder:
        assert self._shape is not None
        assert self._tap is not None
        config = self._config
        largest_step = config.scheduler_config.max_num_batched_tokens
        if options.ring_rows < largest_step:
            raise CaptureError(
                f"ring_rows: expected at least max_num_batched_tokens = {largest_step}, "
                f"got {options.ring_rows}"
            )
        return Recorder(
            run_dir,
            self._shape,
            [layer.layer_id for layer in self._layers],
            model=model_of(config),
            engine=engine_of(config, self._worker.device),
            settings={
                "weights": options.weights,
                "policy": options.policy,
                "ring_rows": options.ring_rows,
                "tap": type(self._tap).__name__,
                "order": "gate weight as applied, descending; ties to the lowest id",
                "router": type(self._layers[0].router).__name__,
            },
            options=options,
            hold_records=hold_records,
            lookahead=None if lookahead is None else lookahead.layout,
            ring=self._tap.new_ring(options),
            tokenizer=str(config.model_config.tokenizer),
            # Kept rows are counted in the ring, beside the engine's own work.
            count_device="cuda" if isinstance(self._tap, DeviceTap) else "cpu",
        )

    # --- the steps ---

    def _follow_runner(self) -> None:
        execute_model = self._runner.execute_model
        sample_tokens = getattr(self._runner, "sample_tokens", None)

        def execute_and_record(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            if self._recorder is None or kwargs.get("dummy_run"):
                return execute_model(scheduler_output, *args, **kwargs)
            return self._record(
                self._recorder,
                scheduler_output,
                lambda: execute_model(scheduler_output, *args, **kwargs),
            )

        self._runner.execute_model = execute_and_record
        if sample_tokens is not None:

            def sample_and_note(*args: Any, **kwargs: Any) -> Any:
                output = sample_tokens(*args, **kwargs)
                step, self._step = self._step, None
                if step is not None:
                    note_sampled(step, output)
                return output

            self._runner.sample_tokens = sample_and_note

    def _record(self, recorder: Recorder, scheduler_output: Any, execute: Any) -> Any:
        assert self._tap is not None
        rows = int(scheduler_output.total_num_scheduled_tokens)
        try:
            step = requests_of(
                scheduler_output,
                lambda request_id: domain_of(request_id, recorder.domain),
                int(self._config.model_config.max_model_len),
            )
            recording = rows > 0 and recorder.begin(rows)
        except CaptureError as error:
            self._fail(recorder, error)
            return execute()
        if not recording:
            recorder.note(step)
            return execute()
        self._tap.open(recorder.ring)
        if self._lookahead is not None:
            self._lookahead.open()
        try:
            output = execute()
        except BaseException:
            self._tap.abandon()
            recorder.ring.abandon_step()
            raise
        try:
            self._tap.close(rows)
            self._tap.take_inputs(step, *read_rows(step, self._runner, scheduler_output))
            if self._lookahead is not None:
                step.fetch_lookahead = self._lookahead.close(rows)
            recorder.commit(step)
            self._step = step
        except CaptureError as error:
            self._fail(recorder, error)
        return output

    def _fail(self, recorder: Recorder, error: CaptureError) -> None:
        """End the run as incomplete. The engine goes on; the run's owner is told at once."""
        recorder.fail(str(error))
        recorder.ring.abandon_step()
        self._recorder, self._failed = None, recorder
        self._end_lookahead()
        recorder.close()
        logging.getLogger("vllm.routestats").error(
            "capture into %s stopped: %s", recorder.run_dir, recorder.error
        )
        if self._alarm is not None:
            self._alarm.write_text(f"{recorder.error}\n")


def _close_with_process(agent: Agent) -> None:
    """Close the run when the worker is shut down, however that comes about."""
    shutdown = agent._worker.shutdown

    def close_and_shutdown(*args: Any, **kwargs: Any) -> Any:
        agent.close()
        return shutdown(*args, **kwargs)

    agent._worker.shutdown = close_and_shutdown
    atexit.register(agent.close)
