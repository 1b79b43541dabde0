"""The recorder of a capture: it drains the ring on a thread, and writes the run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from routestats.engines._assembler import RowAssembler
from routestats.engines._requests import external_id
from routestats.engines._rings import HoldingRing, Ring, host_ring
from routestats.engines._run_counts import RunCounts
from routestats.engines._run_feed import RunFeed
from routestats.engines._steps import StepRows
from routestats.engines.recorder_options import Outcome, RecorderOptions
from routestats.errors import CaptureError, RouteStatsError
from routestats.schema import DEFAULT_DOMAIN, LookaheadLayout, RequestRecord
from routestats.shape import RouteShape
from routestats.trace import TraceWriter
from routestats.trace.files import one_line

# The drain thread waits for some rows, and takes many at once: few and large pieces of work disturb
# the engine's Python least.
_WAKE_ROWS = 2048
_TAKE_ROWS = 16384
_WAKE_SECONDS = 0.25
# The rows of an engine that is idle for this long go to disk, because it may be killed.
_IDLE_SECONDS = 2.0


class Recorder:
    """Takes in an engine's steps on one thread, and writes them on another.

    The engine thread calls `begin`, lets the routers write into `ring`, and calls `commit`.
    Everything else happens on the drain thread: which rows are real, Parquet, counts.

    Parameters
    ----------
    run_dir : Path
    shape : RouteShape
    layer_ids : list of int
    model, engine, settings
        For ``run.json``.
    options : RecorderOptions
    hold_records : bool
        Keep the records of finished requests until `close`, because outcomes and labels may be
        added. Without it they are written when the requests finish.
    lookahead : LookaheadLayout, optional
        How steps carry what later gates would have chosen, if they do.
    ring : Ring, optional
        By default one in the host's memory.
    tokenizer : str, optional
        Folder or hub id of the model's tokenizer, for the live view.
    count_device : {"cpu", "cuda"}
        Where rows are counted; the device of a `HoldingRing`. They are the rows that the trace
        keeps, once they are confirmed.

    Raises
    ------
    TraceError
        If the run cannot be created, or is of another shape or model.
    """

    def __init__(
        self,
        run_dir: Path,
        shape: RouteShape,
        layer_ids: list[int],
        *,
        model: str | dict[str, Any],
        engine: dict[str, Any],
        settings: dict[str, Any],
        options: RecorderOptions,
        hold_records: bool,
        lookahead: LookaheadLayout | None = None,
        ring: Ring | None = None,
        tokenizer: str | None = None,
        count_device: str = "cpu",
    ) -> None:
        self.run_dir = run_dir
        self.options = options
        self.ring: Ring = ring or host_ring(shape, options)
        self._holding = self.ring if isinstance(self.ring, HoldingRing) else None
        self.domains: list[str] = []
        self._hold_records = hold_records
        self._held_records: list[RequestRecord] = []
        self._outcomes: dict[tuple[str, int], Outcome] = {}
        self._assembler = RowAssembler()
        self._steps: deque[StepRows] = deque()
        self._error: str | None = None
        self._closed = False
        self._not_saved: dict[str, str] = {}
        self._writer = TraceWriter(
            run_dir,
            shape,
            layer_ids=layer_ids,
            weights=options.weights,
            lookahead=lookahead,
            model=model,
            engine=engine,
            settings=settings,
            flush_rows=options.flush_rows,
            flush_seconds=options.flush_seconds,
        )
        self._handed_over = self._drained = 0  # rows
        self._drain_cpu_ms = 0.0
        self._near_ties = 0  # those that the ring does not count
        self._held_from = 0  # the first row that a holding ring has not had back
        self._first_step = self._writer.next_step  # of the run; the ring counts its own from 0
        self._counts = RunCounts(
            run_dir,
            shape,
            layer_ids,
            options,
            before=self._writer.before("rows"),
            device=count_device,
        )
        self._feed = RunFeed(
            run_dir,
            shape,
            layer_ids,
            tokenizer=tokenizer,
            on=options.live,
        )
        self._feed.publish([], waiting=0, **self._standing())
        self._thread = threading.Thread(target=self._drain, name="routestats-drain", daemon=True)
        self._thread.start()

    # --- engine thread ---

    @property
    def domain(self) -> str:
        """Domain of the requests that begin now."""
        return self.domains[-1] if self.domains else DEFAULT_DOMAIN

    @property
    def error(self) -> str | None:
        """Why the run failed, or None."""
        return self._error

    def begin(self, rows: int) -> bool:
        """Open a step; False if its rows are dropped because the ring is full.

        Raises
        ------
        CaptureError
            If the run has failed; the message says why.
        """
        try:
            return self.ring.begin_step(rows)
        except ValueError as error:
            raise CaptureError(f"{error}; give a larger ring_rows") from None

    def commit(self, step: StepRows) -> None:
        """Hand over the open step. Raises `CaptureError` if a layer of it is missing or wrong."""
        # First into the queue: the drain thread takes a step from it for every one of the ring.
        self._steps.append(step)
        self._handed_over += step.rows
        try:
            self.ring.commit_step()
        except CaptureError as error:
            self.fail(str(error))
            raise

    def note(self, step: StepRows) -> None:
        """Hand over the requests that begin and end with a step that has no rows."""
        self._steps.append(replace(step, request_ids=(), counts=()))

    def add_outcomes(self, outcomes: Mapping[tuple[str, int], Outcome]) -> None:
        """Add what the caller knows of requests, by external id and index of the sample."""
        for key, outcome in outcomes.items():
            self._outcomes.setdefault(key, {}).update(outcome)

    def progress(self) -> dict[str, int]:
        """Rows so far: ``rows`` let through, ``dropped_rows``, ``requests`` seen."""
        return {
            "rows": self._writer.rows_written,
            "dropped_rows": self.ring.dropped_rows,
            "requests": self._assembler.requests_seen,
        }

    def close(self) -> dict[str, Any]:
        """Drain what is left, finish the run and return its totals.

        The totals' ``error`` is None for a complete run.
        """
        if self._closed:
            return self._totals()
        self._closed = True
        self.ring.close()
        self._thread.join()
        try:
            self._finish()  # a failed run, too, keeps its rows
        except Exception as error:
            self._error = self._error or reason_of(error)
        # Before the writer, which removes the folder of a run without rows.
        self._feed.close(**self._standing())
        totals = self._totals()
        try:
            self._writer.close(
                self._error is None,
                dropped_rows=self.ring.dropped_rows,
                totals={name: value for name, value in totals.items() if name != "error"},
                error=self._error,
                not_saved=self._not_saved,
            )
        except RouteStatsError as error:
            self._error = totals["error"] = self._error or str(error)
        return totals

    # --- drain thread ---

    def _drain(self) -> None:
        try:
            last_rows = time.monotonic()
            while True:
                closing = self._closed
                rows = self._take()
                if rows == 0 and closing:
                    return
                self._write()
                if rows:
                    last_rows = time.monotonic()
                elif time.monotonic() - last_rows > _IDLE_SECONDS:
                    self._writer.flush()
        except Exception as error:
            self.fail(reason_of(error))
        finally:
            self._drain_cpu_ms = round(time.thread_time() * 1e3, 1)

    def _take(self) -> int:
        self._held_from = self._drained
        spans, experts, weights, *tags = self.ring.drain(
            max_rows=_TAKE_ROWS, wait_rows=_WAKE_ROWS, seconds=_WAKE_SECONDS
        )
        if not spans:
            return 0
        steps = self._steps_with_rows([rows for _, rows in spans])
        with_rows = [step for step in steps if step.rows]
        numbers = np.repeat(*np.array(spans, np.uint32).T) + np.uint32(self._first_step)
        columns: dict[str, Any] = {"step": numbers, "experts": experts}
        if weights is not None:
            columns["weights"] = weights
        if with_rows[0].lookahead is not None:
            columns["lookahead"] = _joined(
                [step.lookahead() for step in with_rows if step.lookahead]
            )
        if tags:
            columns["positions"], columns["token_ids"] = np.ascontiguousarray(tags[0].T)
        else:
            columns["positions"] = _joined([step.positions for step in with_rows])
            columns["token_ids"] = _joined([step.token_ids for step in with_rows])
        self._near_ties += sum(step.near_ties for step in with_rows)
        self._assembler.add_steps(steps, columns, None if self._holding is None else self._drained)
        self._drained += len(numbers)
        return len(numbers)

    def _steps_with_rows(self, counts: list[int]) -> list[StepRows]:
        """The next steps that have rows, `counts` of them, and those without rows before them."""
        steps = []
        for count in counts:
            steps.append(self._steps.popleft())
            while steps[-1].rows == 0:
                steps.append(self._steps.popleft())
            if (rows := steps[-1].rows) != count:
                raise CaptureError(
                    f"step: {count} rows were captured, but its requests have {rows}"
                )
        return steps

    def _note_waiting(self) -> None:
        while self._steps and self._steps[0].rows == 0:
            self._assembler.note(self._steps.popleft())
        self._assembler.settle()

    def _write(self) -> None:
        self._note_waiting()
        try:
            self._count()
        finally:  # rows that cannot be counted are written all the same
            batches = self._assembler.take_batches()
            # Before they are written, because a flush takes time.
            waiting, new = self._handed_over - self._drained, sum(map(len, batches))
            self._feed.publish(batches, waiting=waiting, **self._standing(new))
            if batches:
                self._counts.withdraw()
            for batch in batches:
                self._writer.write(batch)
            records = self._assembler.take_records()
            if self._hold_records:
                self._held_records.extend(records)
            elif records:
                self._writer.write_requests(records)
        self._writer.maybe_flush()

    def _count(self) -> None:
        """Count the rows that were let through, and give a holding ring its rows back."""
        self._counts.add(self._assembler.let_through(), self._holding, self._held_from)
        if self._holding is not None:
            self._holding.release()
            self._held_from = self._drained

    def _standing(self, new: int = 0) -> dict[str, int]:
        """Totals of the run, earlier captures and `new` rows included."""
        illegal = "illegal_domain_requests"
        return {
            "rows": self._writer.before("rows") + self._writer.rows_written + new,
            "dropped": self._writer.before("dropped_rows") + self.ring.dropped_rows,
            illegal: self._writer.before(illegal) + self._assembler.illegal_domain_requests,
        }

    # --- either, never both at once ---

    def fail(self, reason: str) -> None:
        """Stop the run, for the first reason given; the next `begin` raises it."""
        if self._error is None:
            self._error = reason
        self.ring.fail(self._error)

    def _finish(self) -> None:
        self._note_waiting()
        self._assembler.finish_all()
        self._hold_records = True
        try:
            self._write()
        finally:  # also where rows cannot be counted
            records = [self._with_outcome(record) for record in self._held_records]
            self._writer.write_requests(records)
        for record in self._held_records:
            self._check_outcome(record)
        if self._error is None:
            self._writer.flush()
            self._not_saved = self._counts.save(self._standing()["rows"])

    def _outcome(self, record: RequestRecord) -> Outcome:
        return self._outcomes.get(external_id(record.request_id), Outcome())

    def _with_outcome(self, record: RequestRecord) -> RequestRecord:
        outcome = self._outcome(record)
        return replace(
            record,
            finish_reason=outcome.get("finish_reason", record.finish_reason),
            task_id=outcome.get("task_id"),
            group=outcome.get("group") or record.group,
        )

    def _check_outcome(self, record: RequestRecord) -> None:
        """The engine's own output says how many rows there must be."""
        outcome = self._outcome(record)
        expected = outcome.get("output_tokens", record.output_tokens)
        exact = outcome.get("exact", True)
        if self.ring.dropped_rows == 0 and (
            record.output_tokens < expected or (exact and record.output_tokens > expected)
        ):
            raise CaptureError(
                f"request {record.request_id}: the engine put out {expected} tokens, but the "
                f"captured rows make {record.output_tokens}"
            )

    def _totals(self) -> dict[str, Any]:
        assembler = self._assembler
        counted = 0 if self._holding is None else self._holding.near_ties
        return {
            "rows": self._writer.rows_written,
            "requests": assembler.requests_seen,
            "dropped_rows": self.ring.dropped_rows,
            "duplicate_rows": assembler.duplicate_rows,
            "rejected_rows": assembler.rejected_rows,
            "overrun_rows": assembler.overrun_rows,
            "unconfirmed_rows": assembler.unconfirmed_rows,
            "foreign_rows": assembler.foreign_rows,
            "unknown_requests": assembler.unknown_requests,
            "synthetic_requests": assembler.synthetic_requests,
            "illegal_domain_requests": assembler.illegal_domain_requests,
            "drain_cpu_ms": self._drain_cpu_ms,
            "near_ties": self._near_ties + counted,
            "error": self._error,
        }


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def reason_of(error: Exception) -> str:
    """What failed, in one line. An error of another library is a defect here, and says its type."""
    if isinstance(error, RouteStatsError):
        return str(error)
    return f"the recorder failed: {type(error).__name__}: {one_line(error)}"
