"""The agent in a vLLM worker: it answers the plugin's methods."""

from __future__ import annotations

import atexit
import logging
import os
from pathlib import Path
from typing import Any

from routestats.engines.vllm.attachment import Attachment
from routestats.engines.vllm.plugin import RUN_VARIABLE
from routestats.engines.vllm.step_timer import WorkerTiming
from routestats.engines.vllm.worker_capture import WorkerCapture
from routestats.errors import CaptureError


class Agent:
    """Capture and timing in one worker process, never both at once.

    Parameters
    ----------
    worker : vLLM worker
        After ``init_device``, so that it has a model runner.
    late : bool
        The model is already loaded: hooks were not bound before the engine was set up.
    """

    def __init__(self, worker: Any, *, late: bool) -> None:
        self._attachment = Attachment(worker, late=late)
        self._capture = WorkerCapture(self._attachment)
        self._timing = WorkerTiming(self._attachment)
        self._told_refusal = False
        # All ranks route alike, so one of them writes.
        self._writes = int(worker.vllm_config.parallel_config.rank) == 0
        self._server_run: Path | None = None  # to be opened when the engine is warm
        if not late:
            self._speak()
            self._attachment.follow_load(self._loaded)
        self._follow_warm_up(worker)
        self._close_with(worker)

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin a capture, or push a domain onto the one under way."""
        self._attachment.require()
        if not self._writes:
            return {"writes": False}
        if self._timing.under_way:
            raise CaptureError("a timing is under way in this engine: capture before or after it")
        return {"writes": True, **self._capture.start(request)}

    def stop(self, outcomes: list[list[Any]], reason: str | None) -> dict[str, Any]:
        """End the innermost capture; the last one closes the run and returns its totals."""
        if not self._writes:
            return {"writes": False}
        return {"writes": True, **self._capture.stop(outcomes, reason)}

    def progress(self) -> dict[str, Any]:
        """Rows and drops so far."""
        return {"writes": self._capture.under_way, **self._capture.progress()}

    def start_timing(self, request: dict[str, Any]) -> dict[str, Any]:
        """Put clocks on the stages of every layer."""
        if not self._writes:
            return {"writes": False}
        busy = "capture" if self._capture.under_way else "timing"
        if self._capture.under_way or self._timing.under_way:
            raise CaptureError(
                f"timing: a {busy} is under way in this engine; time in a pass of its own"
            )
        self._timing.start(request)
        return {"writes": True}

    def stop_timing(self, keep: bool) -> dict[str, Any]:
        """Take the clocks off; write what they showed, if it is to be kept."""
        if not self._writes:
            return {"writes": False}
        return {"writes": True, **self._timing.stop(keep)}

    def unbind(self) -> None:
        """Take the wrappers off the routers of an eager engine; the next capture binds again."""
        if self._capture.under_way:
            raise CaptureError("unbind: a capture is under way")
        self._attachment.unbind()

    def about(self) -> dict[str, Any]:
        """What takes the routing off the device, and why it is not the fastest that there is."""
        choice = self._attachment.tap_choice
        warning = None if choice is None else choice.warning()
        return {"writes": self._writes, "refusal": self._attachment.refusal, "warning": warning}

    def _loaded(self) -> None:
        run_dir, attached = os.environ.get(RUN_VARIABLE), self._attachment
        if attached.refusal is None and self._writes:
            try:
                attached.bind()
            except Exception as error:  # the engine starts without us
                attached.refusal = f"routestats failed: {type(error).__name__}: {error}"
        self._speak()
        if run_dir and attached.refusal is None and self._writes:
            # What would fail after minutes of warming up fails here.
            self._capture.check_server(Path(run_dir))
            self._server_run = Path(run_dir)

    def _speak(self) -> None:
        """Say what the engine's start should not hide; a server has no later step to refuse at."""
        if self._attachment.refusal is not None and os.environ.get(RUN_VARIABLE):
            raise CaptureError(f"{RUN_VARIABLE} is set, but {self._attachment.refusal}")
        if not self._told_refusal:
            self._attachment.tell(writes=self._writes)
        self._told_refusal = self._attachment.refusal is not None

    def _follow_warm_up(self, worker: Any) -> None:
        """Begin a server's capture when the worker is warm, and let none see a warm-up.

        A worker warms up through its own ``execute_model``, with requests that it makes up, and
        captures graphs. While it does, no other thread may call the device's runtime: there is no
        recorder, and so none of its thread.
        """
        warm_up = worker.compile_or_warm_up_model

        def warm_up_and_record(*args: Any, **kwargs: Any) -> Any:
            self._capture.interrupt("the engine warmed up anew, and captured its graphs again")
            result = warm_up(*args, **kwargs)
            run_dir, self._server_run = self._server_run, None
            if run_dir is not None:
                self._capture.start_server(run_dir)
            return result

        worker.compile_or_warm_up_model = warm_up_and_record

    def _close_with(self, worker: Any) -> None:
        """Close the run when the worker is shut down or its process ends."""
        shutdown = worker.shutdown

        def close_and_shutdown(*args: Any, **kwargs: Any) -> Any:
            self._close()
            return shutdown(*args, **kwargs)

        worker.shutdown = close_and_shutdown
        atexit.register(self._close)

    def _close(self) -> None:
        self._server_run = None
        try:
            self._capture.close()
        except Exception as error:  # the engine goes on shutting down
            logging.getLogger("vllm.routestats").error("capture cannot be closed: %s", error)
