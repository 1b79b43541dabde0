"""Capture around ``vllm.LLM``: the side that runs in the user's process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType
from typing import Any
from uuid import uuid4

from routestats.engines.recorder_options import Outcome, RecorderOptions, labels
from routestats.errors import CaptureError, InvalidTypeError


class VllmCapture:
    """Context manager that captures the routing of everything an engine generates inside it.

    Parameters
    ----------
    llm : vllm.LLM
    run_dir : Path
    domain : str
    options : RecorderOptions

    Attributes
    ----------
    run_dir : Path
    summary : dict
        The run's totals (rows, requests, drops, ...), once the outermost capture has ended.
    """

    def __init__(self, llm: Any, run_dir: Path, domain: str, options: RecorderOptions) -> None:
        self._llm = llm
        self.run_dir = run_dir.absolute()
        self._domain = domain
        self._options = options
        self._outcomes: dict[tuple[str, int], Outcome] = {}
        # The worker writes here why the capture failed; looking for a file costs a step nothing.
        self._alarm = Path(gettempdir()) / f"routestats-{uuid4().hex}"
        self.summary: dict[str, Any] = {}

    def __enter__(self) -> VllmCapture:
        self._call(
            "routestats_start",
            {
                "run_dir": str(self.run_dir),
                "domain": self._domain,
                "options": asdict(self._options),
                "alarm": str(self._alarm),
            },
        )
        engine = self._llm.llm_engine
        self._step = engine.step
        self._outer_step = vars(engine).get("step")  # that of an enclosing capture
        engine.step = self._step_and_note
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        engine = self._llm.llm_engine
        if self._outer_step is not None:
            engine.step = self._outer_step
        else:
            del engine.step  # a bound method left here would keep the engine alive
        del self._step, self._outer_step
        self._alarm.unlink(missing_ok=True)
        outcomes = [[key, sample, dict(known)] for (key, sample), known in self._outcomes.items()]
        reason = None
        if error is not None:
            reason = f"stopped by {type(error).__name__}: {_first_line(error)}".rstrip(": ")
            if not isinstance(error, _StoppedError):
                with suppress(Exception):  # the engine may be what has died
                    self._abort_requests()
        try:
            answer = self._call("routestats_stop", outcomes, reason)
        except CaptureError as failure:
            if error is None:
                raise
            if isinstance(error, Exception):
                # The engine died; what stopped the capture, if anything did, is in its log.
                raise CaptureError(
                    f"{self.run_dir}: the run is incomplete: the engine stopped with "
                    f"{type(error).__name__}: {_first_line(error) or _first_line(failure)}"
                ) from error
            return
        self.summary = {name: value for name, value in answer.items() if name != "writes"}
        if self.summary.get("error") and (error is None or isinstance(error, _StoppedError)):
            raise CaptureError(f"{self.run_dir}: {self.summary['error']}")

    def progress(self) -> dict[str, int]:
        """Rows so far: ``rows`` on their way to disk, ``dropped_rows``, ``requests`` seen."""
        answer = self._call("routestats_progress")
        return {name: answer.get(name, 0) for name in ("rows", "dropped_rows", "requests")}

    def label(
        self,
        outputs: Sequence[Any] | None = None,
        *,
        task_ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Say which item of a data set each output answers.

        Parameters
        ----------
        outputs : sequence of vllm.RequestOutput
            As ``llm.generate`` returned them.
        task_ids, groups : sequence of str, optional
            One per output. Without `groups`, requests with the same prompt form a group.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If there are no outputs, the lengths differ, or a label is no string.
        """
        if outputs is None:
            raise InvalidTypeError("outputs: expected what llm.generate returned, got None")
        said = labels(len(outputs), task_ids, groups)
        for output, known in zip(outputs, said, strict=True):
            for sample in output.outputs:
                self._known(output.request_id, sample.index).update(known)

    def _step_and_note(self) -> Any:
        outputs = self._step()
        if self._alarm.exists():
            self._abort_requests()
            raise _StoppedError(self._alarm.read_text().strip())
        for output in outputs:
            if output.finished:
                for sample in getattr(output, "outputs", ()):
                    known = self._known(output.request_id, sample.index)
                    known["output_tokens"] = len(sample.token_ids)
                    # A stop string is found outside the engine, which may have gone on.
                    known["exact"] = not isinstance(sample.stop_reason, str)
                    known["finish_reason"] = sample.finish_reason
        return outputs

    def _abort_requests(self) -> None:
        """Abort the engine's requests, because its next user must not get them."""
        engine = self._llm.llm_engine
        unfinished = list(engine.output_processor.request_states)
        engine.abort_request(unfinished, internal=True)

    def _known(self, request_id: str, sample: int) -> Outcome:
        return self._outcomes.setdefault((request_id, sample), Outcome())

    def _call(self, method: str, *args: Any) -> dict[str, Any]:
        return call_worker(self._llm, method, *args)


def call_worker(llm: Any, method: str, *args: Any) -> dict[str, Any]:
    """What the writing worker of an engine answers to one of the plugin's methods.

    Raises
    ------
    CaptureError
        If the engine has not the plugin, does not answer, or refuses.
    """
    try:
        answers = llm.collective_rpc(method, args=args)
    except Exception as error:
        if "is not implemented" in str(error) or "has no attribute" in str(error):
            raise CaptureError(
                "the engine has not loaded routestats' plugin: expected the entry point "
                "'routestats' in vllm.general_plugins (is VLLM_PLUGINS leaving it out?)"
            ) from None
        raise CaptureError(f"{method}: the engine does not answer: {_first_line(error)}") from error
    for answer in answers:
        if "refused" in answer:
            raise CaptureError(answer["refused"])
    return next((answer for answer in answers if answer.get("writes")), answers[0])


class _StoppedError(CaptureError):
    """Raised between two steps when the worker could not go on capturing."""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")
