"""Writing a run: buffered rows, Parquet files that appear whole, a description beside them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from routestats import schema
from routestats.errors import InvalidValueError, TraceError
from routestats.schema import (
    FORMAT_VERSION,
    PHASES,
    LookaheadLayout,
    RequestRecord,
    RoutingBatch,
    request_schema,
    token_schema,
)
from routestats.shape import RouteShape
from routestats.trace import _files

# What must be equal for a writer to add to a run that is there.
_IDENTITY = ("model", "shape", "layer_ids", "weights", "lookahead")


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
        self.capture = secrets.token_hex(8)
        """Tells this writer's rows, numbered from 0 in the order of `write`, from all others."""
        self.rows_written = 0
        self.dropped_rows = 0
        """Rows that the source of the batches has dropped so far; kept by the caller."""
        self._weights = weights
        self._lookahead = lookahead
        self._schema = token_schema(shape, self.layer_ids, weights=weights, lookahead=lookahead)
        self._flush_rows = flush_rows
        self._flush_seconds = flush_seconds
        self._buffer: dict[str, list[RoutingBatch]] = {}
        self._numbers: dict[str, list[list[int]]] = {}
        self._oldest: dict[str, float] = {}
        self._records: list[RequestRecord] = []
        self._drops_on_disk = 0
        self._requests_written = 0
        self._broken: str | None = None
        self._closed = False
        self._is_new = not (self.run_dir / schema.RUN_FILE).exists()
        self._created_dir = not self.run_dir.exists()
        description = {
            "format_version": FORMAT_VERSION,
            "model": model if isinstance(model, dict) else {"name": model},
            "shape": asdict(shape),
            "layer_ids": self.layer_ids,
            "weights": weights,
            "lookahead": lookahead.to_dict() if lookahead else None,
            "engine": engine,
            "settings": settings or {},
            "created": _now(),
            "complete": False,
        }
        self._open(description)

    def _open(self, description: dict[str, Any]) -> None:
        run_dir = self.run_dir
        if self._is_new:
            try:
                run_dir.mkdir(parents=True, exist_ok=True)
                # Whoever makes the folder first may have left a lock; anything else is not ours.
                foreign = next((p for p in run_dir.iterdir() if p.name != schema.LOCK_FILE), None)
            except OSError as error:
                raise TraceError(
                    f"{run_dir}: cannot be written: {_files.one_line(error)}"
                ) from None
            if foreign is not None:
                raise TraceError(f"{run_dir}: is no run and not empty: it holds {foreign.name}")
            self._info = description
            self._before: dict[str, Any] = {}
        else:
            self._info = _files.read_run_file(run_dir)
            for name in _IDENTITY:
                if self._info.get(name) != description[name]:
                    raise TraceError(
                        f"{run_dir}: is a run with {name} {self._info.get(name)}; "
                        f"expected {description[name]}"
                    )
        self._lock = _files.lock(run_dir)
        try:
            _files.remove_temporaries(run_dir)
            if not self._is_new:
                self._before = self._info.pop("totals", None) or self._count_files()
                self._info.pop("finished", None)
                self._info["complete"] = False
            _files.write_json(run_dir / schema.RUN_FILE, self._info)
        except TraceError:
            self._lock.close()
            self._remove_if_empty()
            raise

    def _count_files(self) -> dict[str, int]:
        """Totals of a run that was cut off."""
        totals = {"rows": 0, "dropped_rows": 0, "requests": 0}
        for path in sorted(self.run_dir.glob("tokens/domain=*/part-*.parquet")):
            for name, value in _files.file_figures(_files.open_parquet(path)).items():
                totals[name] += value
        for path in _files.parts(self.run_dir / "requests"):
            totals["requests"] += _files.open_parquet(path).metadata.num_rows
        return totals

    def before(self, name: str) -> int:
        """What earlier captures of this run had of ``rows``, ``dropped_rows`` or ``requests``."""
        return int(self._before.get(name, 0))

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
        schema.check_domain(batch.domain)
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
        numbers = self._numbers.setdefault(batch.domain, [])
        _files.extend_runs(numbers, self.rows_written, len(batch))
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
        for domain in list(self._buffer):
            self._flush_domain(domain)
        self._flush_records()

    def close(
        self, complete: bool = True, *, not_saved: dict[str, str] | None = None, **totals: Any
    ) -> None:
        """Flush, and describe the run as complete or not.

        Parameters
        ----------
        complete : bool
        not_saved : dict of str to str, optional
            Files beside the run that were asked for and are not there, and why.
        **totals
            Further figures for ``run.json``, e.g. ``duplicate_rows``; integers add up over the
            captures of a run. ``dropped_rows`` overrides the attribute.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.dropped_rows = totals.pop("dropped_rows", self.dropped_rows)
            totals.pop("rows", None), totals.pop("requests", None)
            error = totals.pop("error", None)
            if self._broken is None:
                for domain in list(self._buffer):
                    self._flush_domain(domain)
                self._flush_records()
            if self._broken is not None:
                complete = False
            if not complete and self._is_new and self.rows_written == 0:
                return  # nothing was captured: leave nothing behind
            if complete:
                self._info["totals"] = _add(
                    self._before,
                    {
                        "rows": self.rows_written,
                        "requests": self._requests_written,
                        "dropped_rows": self.dropped_rows,
                        **totals,
                    },
                )
            self._info["complete"] = complete
            self._info.pop("not_saved", None)
            if not_saved:
                self._info["not_saved"] = not_saved
            if error:
                self._info["error"] = error
            else:
                self._info.pop("error", None)
            self._info["finished"] = _now()
            _files.write_json(self.run_dir / schema.RUN_FILE, self._info)
        finally:
            (self.run_dir / schema.LOCK_FILE).unlink(missing_ok=True)
            self._lock.close()
            self._remove_if_empty()

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

    def _flush_domain(self, domain: str) -> None:
        batches = self._buffer.pop(domain)
        del self._oldest[domain]
        drops = self.dropped_rows - self._drops_on_disk
        rows = sum(map(len, batches))
        footer = {
            _files.FILE_KEY: json.dumps({"rows": rows, "dropped_rows": drops}),
            _files.CAPTURE_KEY: json.dumps(
                {"id": self.capture, "runs": self._numbers.pop(domain)}, separators=(",", ":")
            ),
        }
        schema = self._schema

        def write(file: Any) -> None:
            writer = pq.ParquetWriter(
                file,
                schema,
                compression="zstd",
                use_dictionary=["request_id", "phase"],
                write_statistics=["position"],
            )
            with writer:
                writer.write_table(_table(batches, schema), row_group_size=65_536)
                writer.add_key_value_metadata(footer)

        self._write_part(_files.domain_dir(self.run_dir, domain), write)
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

    def _write_part(self, folder: Path, write: Any) -> None:
        there = _files.parts(folder)
        number = int(there[-1].stem.removeprefix("part-")) + 1 if there else 0
        try:
            _files.write_atomically(folder / f"part-{number:06d}.parquet", write)
        except TraceError as error:
            self._broken = str(error)
            raise

    def _remove_if_empty(self) -> None:
        """Take away what was made for a run that never got a row."""
        if not self._is_new or (self._closed and (self.rows_written or self._info["complete"])):
            return
        run_dir = self.run_dir
        if any(run_dir.glob("tokens/domain=*/part-*")):
            return
        for path in (run_dir / schema.RUN_FILE, run_dir / schema.LOCK_FILE):
            path.unlink(missing_ok=True)
        for folder in [*run_dir.glob("tokens/*"), run_dir / "tokens", run_dir / "requests"]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if self._created_dir and run_dir.is_dir() and not any(run_dir.iterdir()):
            run_dir.rmdir()


def _table(batches: list[RoutingBatch], schema: pa.Schema) -> pa.Table:
    index: dict[str, int] = {}
    codes = []
    for batch in batches:
        table = np.array([index.setdefault(r, len(index)) for r in batch.request_ids], np.int32)
        codes.append(table[batch.request_index])
    width = schema.field("experts").type.list_size

    def joined(name: str) -> Any:
        return np.concatenate([getattr(batch, name) for batch in batches])

    columns = [
        pa.DictionaryArray.from_arrays(pa.array(np.concatenate(codes)), pa.array(list(index))),
        pa.array(joined("positions")),
        pa.array(joined("token_ids")),
        pa.DictionaryArray.from_arrays(
            pa.array(joined("phase").astype(np.int8)), pa.array(PHASES, pa.string())
        ),
        pa.concat_arrays([_steps(batch) for batch in batches]),
        pa.FixedSizeListArray.from_arrays(pa.array(joined("experts").ravel()), width),
    ]
    if "weights" in schema.names:
        columns.append(
            pa.FixedSizeListArray.from_arrays(pa.array(joined("weights").ravel()), width)
        )
    if "lookahead" in schema.names:
        size = schema.field("lookahead").type.list_size
        columns.append(
            pa.FixedSizeListArray.from_arrays(pa.array(joined("lookahead").ravel()), size)
        )
    return pa.Table.from_arrays(columns, schema=schema)


def _add(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {
        name: before.get(name, 0) + now.get(name, 0)
        for name in {**before, **now}
        if isinstance(now.get(name, before.get(name)), int)
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _steps(batch: RoutingBatch) -> pa.Array:
    if batch.step is None:
        return pa.nulls(len(batch), pa.uint32())
    return pa.array(batch.step)
