"""Capture in one worker process: it follows the engine's steps and owns the recorder."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from routestats.engines._steps import StepRows
from routestats.engines.recorder import Recorder, reason_of
from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.description import require_eager
from routestats.engines.vllm.lookahead import Lookahead, layout_of
from routestats.engines.vllm.monolithic import settings_of
from routestats.engines.vllm.runner_rows import LeftOut, note_sampled, read_rows, requests_of
from routestats.engines.vllm.stages import modules_of
from routestats.engines.vllm.taps import DeviceTap
from routestats.errors import CaptureError
from routestats.trace import TraceWriter


class WorkerCapture:
    """The captures of one worker, one at a time, each with domains nested in it.

    Parameters
    ----------
    attachment : Attachment
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._recorder: Recorder | None = None
        self._failed: Recorder | None = None
        self._lookahead: Lookahead | None = None
        self._alarm: Path | None = None
        self._step: StepRows | None = None  # the last one handed over
        self._left_out = LeftOut()
        self._follow_runner()

    @property
    def under_way(self) -> bool:
        """Whether steps are recorded."""
        return self._recorder is not None

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin a capture, or push a domain onto the one under way."""
        run_dir = Path(request["run_dir"])
        if self._failed is not None:
            raise CaptureError(f"the capture under way has failed: {self._failed.error}")
        if self._recorder is None:
            options = RecorderOptions(**request.get("options", {}))
            lookahead = self._new_lookahead(options.lookahead)
            self._alarm = Path(request["alarm"])
            self._begin(run_dir, options, hold_records=True, lookahead=lookahead)
        elif self._recorder.run_dir != run_dir:
            raise CaptureError(
                f"a capture into {self._recorder.run_dir} is under way in this engine; "
                f"expected the same folder, got {run_dir}"
            )
        assert self._recorder is not None
        self._recorder.domains.append(request["domain"])
        return {"depth": len(self._recorder.domains)}

    def check_server(self, run_dir: Path) -> None:
        """Raise what `start_server` would raise; begin nothing and leave nothing behind."""
        attached, options = self._attachment, RecorderOptions()
        TraceWriter.check(
            run_dir,
            attached.shape,
            layer_ids=[layer.layer_id for layer in attached.layers],
            weights=options.weights,
            model=attached.model,
        )

    def start_server(self, run_dir: Path) -> None:
        """Begin a capture that lasts as long as the process."""
        self._begin(run_dir, RecorderOptions(), hold_records=False)

    def interrupt(self, reason: str) -> None:
        """Fail the capture under way, if one is; its thread has ended when this returns."""
        if self._recorder is not None:
            self._fail(self._recorder, CaptureError(reason))

    def stop(self, outcomes: list[list[Any]], reason: str | None) -> dict[str, Any]:
        """End the innermost capture; the last one closes the run and returns its totals.

        With a `reason` the run was cut short, and says so.
        """
        recorder = self._recorder or self._failed
        if recorder is None:
            raise CaptureError("no capture is under way in this engine")
        recorder.add_outcomes({(key, sample): known for key, sample, known in outcomes})
        recorder.domains.pop()
        if recorder.domains:
            return {"depth": len(recorder.domains), **recorder.progress()}
        self._failed = None
        self._let_go()
        if reason is not None:
            recorder.fail(reason)
        return {"depth": 0, **recorder.close()}

    def progress(self) -> dict[str, Any]:
        """Rows and drops so far; nothing where no capture is under way."""
        return {} if self._recorder is None else self._recorder.progress()

    def close(self) -> None:
        """Finish what is under way; the process is about to end."""
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            recorder.close()

    # --- the recorder ---

    def _begin(
        self,
        run_dir: Path,
        options: RecorderOptions,
        *,
        hold_records: bool,
        lookahead: Lookahead | None = None,
    ) -> None:
        attached = self._attachment
        self._left_out = LeftOut()
        options = replace(options, ring_rows=options.rows_of_ring(attached.largest_step))
        attached.bind()
        try:
            if lookahead is not None:
                self._lookahead = lookahead
                lookahead.bind()
            ring = attached.tap.begin(options)
            self._recorder = Recorder(
                run_dir,
                attached.shape,
                [layer.layer_id for layer in attached.layers],
                model=attached.model,
                engine=attached.engine,
                settings={
                    "weights": options.weights,
                    "policy": options.policy,
                    "ring_rows": options.ring_rows,
                    "ring_bytes": ring.memory_bytes,
                    "tap": type(attached.tap).__name__,
                    **attached.tap_reason,
                    "order": "gate weight as applied, descending; ties to the lowest id",
                    "router": type(attached.layers[0].router).__name__,
                    **settings_of([layer.module for layer in attached.layers]),
                },
                options=options,
                hold_records=hold_records,
                lookahead=None if lookahead is None else lookahead.layout,
                ring=ring,
                tokenizer=str(attached.config.model_config.tokenizer),
                # On a GPU, rows are counted where the ring holds them.
                count_device="cuda" if isinstance(attached.tap, DeviceTap) else "cpu",
            )
        except BaseException:
            self._let_go()
            raise

    def _new_lookahead(self, hops: tuple[int, ...]) -> Lookahead | None:
        if not hops:
            return None
        attached = self._attachment
        require_eager(attached.config, "lookahead", "whose gates can be called by themselves")
        modules = modules_of(attached.runner.get_model(), attached.layers)
        layout = layout_of(modules, hops, attached.shape)
        device = attached.worker.device
        return Lookahead(modules, layout, attached.shape, attached.largest_step, device)

    def _let_go(self) -> None:
        """Take out of the engine what the capture had put there."""
        self._recorder = self._step = None
        self._attachment.tap.end()
        lookahead, self._lookahead = self._lookahead, None
        if lookahead is not None:
            lookahead.release()

    # --- the steps ---

    # Whatever goes wrong here ends the capture; the engine's own step goes on as if it were not
    # captured.

    def _follow_runner(self) -> None:
        runner = self._attachment.runner
        execute_model = runner.execute_model
        sample_tokens = getattr(runner, "sample_tokens", None)

        def execute_and_record(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            recorder = self._recorder
            if recorder is None or kwargs.get("dummy_run"):
                return execute_model(scheduler_output, *args, **kwargs)
            step = self._open(recorder, scheduler_output)
            if step is None:
                return execute_model(scheduler_output, *args, **kwargs)
            try:
                output = execute_model(scheduler_output, *args, **kwargs)
            except BaseException:
                self._abandon(recorder)
                raise
            self._commit(recorder, step, scheduler_output)
            return output

        runner.execute_model = execute_and_record
        if sample_tokens is not None:

            def sample_and_note(*args: Any, **kwargs: Any) -> Any:
                output = sample_tokens(*args, **kwargs)
                self._note(output)
                return output

            runner.sample_tokens = sample_and_note

    def _open(self, recorder: Recorder, scheduler_output: Any) -> StepRows | None:
        """Open the step that is about to run; None if its rows are not recorded."""
        attached = self._attachment
        self._step = None
        try:
            rows = int(scheduler_output.total_num_scheduled_tokens)
            longest = int(attached.config.model_config.max_model_len)
            step = requests_of(scheduler_output, recorder.domain, longest, self._left_out)
            if rows == 0 or not recorder.begin(rows):
                recorder.note(step)
                return None
            attached.tap.open()
            if self._lookahead is not None:
                self._lookahead.open()
        except Exception as error:
            self._fail(recorder, error)
            return None
        return step

    def _commit(self, recorder: Recorder, step: StepRows, scheduler_output: Any) -> None:
        attached = self._attachment
        try:
            tap, rows = attached.tap, int(scheduler_output.total_num_scheduled_tokens)
            near_ties = tap.close(rows)
            step, positions, token_ids = read_rows(
                step, attached.runner, scheduler_output, self._left_out
            )
            step = replace(step, near_ties=near_ties)
            if (inputs := tap.take_inputs(rows, positions, token_ids)) is not None:
                step = replace(step, positions=inputs[0], token_ids=inputs[1])
            if self._lookahead is not None:
                step = replace(step, lookahead=self._lookahead.close(rows))
            recorder.commit(step)
            self._step = step
        except Exception as error:
            self._fail(recorder, error)

    def _note(self, output: Any) -> None:
        """What the sampler gave, or will give, the step that was recorded last."""
        recorder, step = self._recorder, self._step
        if output is None or recorder is None or step is None:
            return
        self._step = None
        try:
            # An engine may fetch its output on another thread, where no capture can be ended.
            note_sampled(step, output, lambda error: recorder.fail(reason_of(error)))
        except Exception as error:
            self._fail(recorder, error)

    def _abandon(self, recorder: Recorder) -> None:
        """The step that is open will not end: the engine's own error is on its way."""
        with suppress(Exception):
            self._attachment.tap.abandon()
        with suppress(Exception):
            recorder.ring.abandon_step()

    def _fail(self, recorder: Recorder, error: Exception) -> None:
        """End the run as incomplete, and tell its owner at once."""
        recorder.fail(reason_of(error))
        self._abandon(recorder)
        self._failed = recorder
        log = logging.getLogger("vllm.routestats")
        for act in (self._let_go, recorder.close):
            try:
                act()
            except Exception as further:
                log.error("capture into %s: %s", recorder.run_dir, reason_of(further))
        self._recorder = None
        log.error("capture into %s stopped: %s", recorder.run_dir, recorder.error)
        if self._alarm is not None:
            with suppress(OSError):  # then its owner learns of it at the end
                self._alarm.write_text(f"{recorder.error}\n")
