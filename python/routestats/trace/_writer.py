"""Writing a run: rows are buffered, and files of them appear whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from routestats.errors import InvalidValueError, TraceError
from routestats.schema import (
    LookaheadLayout,
    RequestRecord,
    RoutingBatch,
    check_domain,
    request_schema,
    token_schema,
)
from routestats.shape import RouteShape
from routestats.trace import files
from routestats.trace._run_folder import RunFolder, check_run
from routestats.trace.token_file import write_token_file


class TraceWriter:
    """Writes `RoutingBatch` es and `RequestRecord` s into a run folder.

    Parameters
    ----------
    run_dir : path
        A new or empty folder, or a run of the same model and shape, to which is added.
    shape : RouteShape
    layer_ids : sequence of int, optional
        Decoder-layer number of each MoE layer; by default 0..L-1.
    weights : bool
        Whether batches carry gate weights.
    lookahead : LookaheadLayout, optional
        How batches carry what later gates would have chosen, if they do.
    model : str or dict
        Name of the model, or a dict with ``name`` and whatever else is to be known of it.
    engine, settings : dict
        Kept in ``run.json``.
    flush_rows : int
    flush_seconds : float
        A file is written when a domain has this many rows, or its oldest row is this old.

    Raises
    ------
    TraceError
        If the folder cannot be written, holds something else, or another writer has it.
    """

    def __init__(
        self,
        run_dir: str | Path,
        shape: RouteShape,
        *,
        layer_ids: Sequence[int] | None = None,
        weights: bool,
        lookahead: LookaheadLayout | None = None,
        model: str | dict[str, Any],
        engine: dict[str, Any],
        settings: dict[str, Any] | None = None,
        flush_rows: int = 65_536,
        flush_seconds: float = 10.0,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.shape = shape
        self.layer_ids = [int(i) for i in (layer_ids or range(shape.num_layers))]
        if len(self.layer_ids) != shape.num_layers:
            raise InvalidValueError(
                f"layer_ids: expected {shape.num_layers}, one per layer, got {len(self.layer_ids)}"
            )
        self.rows_written = 0
        self.dropped_rows = 0
        """Rows that the source of the batches has dropped so far; kept by the caller."""
        self._weights = weights
        self._lookahead = lookahead
        self._schema = token_schema(shape, self.layer_ids, weights=weights, lookahead=lookahead)
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._buffer: dict[str, list[RoutingBatch]] = {}
        self._oldest: dict[str, float] = {}
        self._records: list[RequestRecord] = []
        self._drops_on_disk = 0
        self._requests_written = 0
        self._broken: str | None = None
        self._closed = False
        identity = _identity(model, shape, self.layer_ids, weights, lookahead)
        self._run = RunFolder(
            self.run_dir, {**identity, "engine": engine, "settings": settings or {}}
        )
        # pyarrow imports pandas with its first array: now, and not beside the steps of an engine.
        pa.array([], pa.string())
        self.next_step = self._run.next_step
        """First step number of this capture: one more than the largest in the run's files."""

    @staticmethod
    def check(
        run_dir: str | Path,
        shape: RouteShape,
        *,
        layer_ids: Sequence[int],
        weights: bool,
        model: str | dict[str, Any],
    ) -> None:
        """Raise the `TraceError` that a writer with these arguments would; write nothing.

        A folder that had to be made for it is gone afterwards.
        """
        ids = [int(i) for i in layer_ids]
        check_run(Path(run_dir), _identity(model, shape, ids, weights, None))

    def before(self, name: str) -> int:
        """What earlier captures of this run had of ``rows``, ``dropped_rows`` or ``requests``."""
        return int(self._run.before.get(name, 0))

    def write(self, batch: RoutingBatch) -> None:
        """Take in the rows of `batch`; they reach the disk with a later flush.

        Raises
        ------
        InvalidValueError
            If the batch is of another shape, or has weights where the run has none.
        TraceError
            If a flush fails, now or before.
        """
        self._check_open()
        check_domain(batch.domain)
        expected = (self.shape.num_layers, self.shape.top_k)
        if batch.experts.shape[1:] != expected or batch.experts.dtype != self.shape.id_dtype:
            raise InvalidValueError(
                f"experts: expected [T, {expected[0]}, {expected[1]}] of {self.shape.id_dtype}, "
                f"got {list(batch.experts.shape)} of {batch.experts.dtype}"
            )
        if (batch.weights is not None) != self._weights:
            raise InvalidValueError(
                f"weights: expected {'some' if self._weights else 'none'} in this run"
            )
        layout = self._lookahead
        given = None if batch.lookahead is None else batch.lookahead.shape[1:]
        if given != (layout and layout.extents(self.shape.num_layers)):
            raise InvalidValueError(
                f"lookahead: expected {layout.to_dict() if layout else 'none'} in this run, "
                f"got {given or 'none'}"
            )
        if len(batch) == 0:
            return
        waiting = self._buffer.setdefault(batch.domain, [])
        self._oldest.setdefault(batch.domain, time.monotonic())
        waiting.append(batch)
        self.rows_written += len(batch)
        if sum(map(len, waiting)) >= self._flush_rows:
            self._flush_domain(batch.domain)
        else:
            self.maybe_flush()

    def write_requests(self, records: Sequence[RequestRecord]) -> None:
        """Take in the records of requests; they reach the disk with the next flush."""
        self._check_open()
        self._records.extend(records)

    def maybe_flush(self) -> None:
        """Flush the domains whose oldest row has waited for `flush_seconds`."""
        due = time.monotonic() - self._flush_seconds
        for domain in [d for d, since in self._oldest.items() if since <= due]:
            self._flush_domain(domain)

    def flush(self) -> None:
        """Write everything that is buffered."""
        self._check_open()
        self._flush_all()

    def close(
        self,
        complete: bool = True,
        *,
        dropped_rows: int | None = None,
        totals: Mapping[str, int] | None = None,
        error: str | None = None,
        not_saved: Mapping[str, str] | None = None,
    ) -> None:
        """Flush, and describe the run as complete or not.

        Parameters
        ----------
        complete : bool
        dropped_rows : int, optional
            By default the attribute.
        totals : mapping of str to int, optional
            Further figures for ``run.json``, e.g. ``duplicate_rows``. The figures of the captures
            of a run are added up; rows and requests are the writer's own.
        error : str, optional
            Why the run is not complete.
        not_saved : mapping of str to str, optional
            Files that were asked for and are not beside the run, and why.

        Raises
        ------
        TraceError
            If the flush fails or ``run.json`` cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        if dropped_rows is not None:
            self.dropped_rows = dropped_rows
        try:
            if self._broken is None:
                self._flush_all()
        except BaseException:
            self._run.unlock()
            raise
        complete = complete and self._broken is None
        if not complete and self._run.is_new and self.rows_written == 0:
            self._run.abandon()  # nothing was captured: leave nothing behind
            return
        figures = {
            **(totals or {}),
            "rows": self.rows_written,
            "requests": self._requests_written,
            "dropped_rows": self.dropped_rows,
        }
        notes = {"error": error or None, "not_saved": dict(not_saved or {}) or None}
        self._run.finish(figures if complete else None, notes)

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(complete=error is None)

    def _check_open(self) -> None:
        if self._broken is not None:
            raise TraceError(self._broken)
        if self._closed:
            raise TraceError(f"{self.run_dir}: the writer is closed")

    def _flush_all(self) -> None:
        for domain in list(self._buffer):
            self._flush_domain(domain)
        self._flush_records()

    def _flush_domain(self, domain: str) -> None:
        batches = self._buffer.pop(domain)
        del self._oldest[domain]
        drops = self.dropped_rows - self._drops_on_disk
        self._write_part(
            files.domain_dir(self.run_dir, domain),
            lambda file: write_token_file(file, self._schema, batches, drops),
        )
        self._drops_on_disk = self.dropped_rows

    def _flush_records(self) -> None:
        if not self._records:
            return
        records, self._records = self._records, []
        table = pa.Table.from_pylist([asdict(r) for r in records], schema=request_schema())
        self._write_part(
            self.run_dir / "requests",
            lambda file: pq.write_table(table, file, compression="zstd"),
        )
        self._requests_written += len(records)

    def _write_part(self, folder: Path, write: Callable[[BinaryIO], None]) -> None:
        there = files.parts(folder)
        number = int(there[-1].stem.removeprefix("part-")) + 1 if there else 0
        try:
            files.write_atomically(folder / f"part-{number:06d}.parquet", write)
        except TraceError as error:
            self._broken = str(error)
            raise


def _identity(
    model: str | dict[str, Any],
    shape: RouteShape,
    layer_ids: list[int],
    weights: bool,
    lookahead: LookaheadLayout | None,
) -> dict[str, Any]:
    """What captures of one run have in common, as ``run.json`` says it."""
    return {
        "model": model if isinstance(model, dict) else {"name": model},
        "shape": asdict(shape),
        "layer_ids": layer_ids,
        "weights": weights,
        "lookahead": lookahead.to_dict() if lookahead else None,
    }
