"""Capture in one worker process: it follows the engine's steps and owns the recorder."""

from __future__ import annotations

import logging
from collections.abc import Callable
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
from routestats.engines.vllm.runner_rows import note_sampled, read_rows, requests_of
from routestats.engines.vllm.stages import modules_of
from routestats.engines.vllm.taps import DeviceTap
from routestats.errors import CaptureError


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

    def start_server(self, run_dir: str) -> None:
        """Begin a capture that lasts as long as the process."""
        self._begin(Path(run_dir), RecorderOptions(), hold_records=False)

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
                    "order": "gate weight as applied, descending; ties to the lowest id",
                    "router": type(attached.layers[0].router).__name__,
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

    def _follow_runner(self) -> None:
        runner = self._attachment.runner
        execute_model = runner.execute_model
        sample_tokens = getattr(runner, "sample_tokens", None)

        def execute_and_record(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            if self._recorder is None or kwargs.get("dummy_run"):
                return execute_model(scheduler_output, *args, **kwargs)
            return self._record(
                self._recorder,
                scheduler_output,
                lambda: execute_model(scheduler_output, *args, **kwargs),
            )

        runner.execute_model = execute_and_record
        if sample_tokens is not None:

            def sample_and_note(*args: Any, **kwargs: Any) -> Any:
                output = sample_tokens(*args, **kwargs)
                step, self._step = self._step, None
                if step is not None and self._recorder is not None:
                    try:
                        note_sampled(step, output)
                    except Exception as error:  # as in _record
                        self._fail(self._recorder, error)
                return output

            runner.sample_tokens = sample_and_note

    def _record(self, recorder: Recorder, scheduler_output: Any, execute: Callable[[], Any]) -> Any:
        attached, tap = self._attachment, self._attachment.tap
        rows = int(scheduler_output.total_num_scheduled_tokens)
        max_model_len = int(attached.config.model_config.max_model_len)
        try:
            step = requests_of(scheduler_output, recorder.domain, max_model_len)
            recording = rows > 0 and recorder.begin(rows)
        except Exception as error:  # the engine goes on whatever happens to the capture
            self._fail(recorder, error)
            return execute()
        if not recording:
            recorder.note(step)
            return execute()
        tap.open()
        if self._lookahead is not None:
            self._lookahead.open()
        try:
            output = execute()
        except BaseException:
            tap.abandon()
            recorder.ring.abandon_step()
            raise
        try:
            tap.close(rows)
            step, positions, token_ids = read_rows(step, attached.runner, scheduler_output)
            if (inputs := tap.take_inputs(rows, positions, token_ids)) is not None:
                step = replace(step, positions=inputs[0], token_ids=inputs[1])
            if self._lookahead is not None:
                step = replace(step, lookahead=self._lookahead.close(rows))
            recorder.commit(step)
            self._step = step
        except Exception as error:  # the engine goes on whatever happens to the capture
            self._fail(recorder, error)
        return output

    def _fail(self, recorder: Recorder, error: Exception) -> None:
        """End the run as incomplete, and tell its owner at once."""
        recorder.fail(reason_of(error))
        recorder.ring.abandon_step()
        self._failed = recorder
        self._let_go()
        recorder.close()
        logging.getLogger("vllm.routestats").error(
            "capture into %s stopped: %s", recorder.run_dir, recorder.error
        )
        if self._alarm is not None:
            with suppress(OSError):  # then its owner learns of it at the end
                self._alarm.write_text(f"{recorder.error}\n")
