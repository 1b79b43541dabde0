"""One Parquet file of tokens: its columns and its footer, written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from routestats.errors import InvalidValueError, RouteStatsError, TraceError, one_of
from routestats.schema import PHASES, ROW_COLUMNS, LookaheadLayout, RoutingBatch, RowColumn
from routestats.shape import RouteShape
from routestats.trace import files

BATCH_ROWS = 65_536
"""Rows of a chunk and of a row group, unless something else is asked for."""

_ID_LISTS = ("experts", "lookahead")

FIGURES_KEY = b"routestats.file"
"""Key of a file's own figures (rows, dropped rows) in its Parquet footer."""


def write_token_file(
    file: BinaryIO, schema: pa.Schema, batches: Sequence[RoutingBatch], dropped_rows: int
) -> None:
    """Write the rows of `batches`, which have the columns of `schema`, a `token_schema`.

    `dropped_rows` are those that the capture dropped since its file before.
    """
    figures = {"rows": sum(map(len, batches)), "dropped_rows": dropped_rows}
    columns = [_encoded(ROW_COLUMNS[field.name], field.type, batches) for field in schema]
    writer = pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        # Parquet stores an id of one byte in four, but its place in a dictionary in a few bits.
        use_dictionary=["request_id", "phase", *(f"{name}.list.element" for name in _ID_LISTS)],
        write_statistics=["position", "step"],
    )
    with writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=BATCH_ROWS)
        writer.add_key_value_metadata({FIGURES_KEY: json.dumps(figures)})


def _encoded(column: RowColumn, kind: pa.DataType, batches: Sequence[RoutingBatch]) -> pa.Array:
    if column.nullable:
        return pa.concat_arrays([nullable_array(batch, column) for batch in batches])
    if column.name == "request_id":
        index: dict[str, int] = {}
        codes_of: dict[tuple[str, ...], Any] = {}
        for batch in batches:
            if batch.request_ids not in codes_of:
                places = [index.setdefault(r, len(index)) for r in batch.request_ids]
                codes_of[batch.request_ids] = np.array(places, np.int32)
        codes = [codes_of[batch.request_ids][batch.request_index] for batch in batches]
        return pa.DictionaryArray.from_arrays(
            pa.array(np.concatenate(codes)), pa.array(list(index))
        )
    values = np.concatenate([getattr(batch, column.field) for batch in batches])
    if column.names is not None:
        phases = pa.array(PHASES, pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(values.astype(column.names)), phases)
    if column.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), kind.list_size)


def nullable_array(batch: RoutingBatch, column: RowColumn) -> pa.Array:
    """A nullable column of a batch as Arrow has it: nulls where the batch has None."""
    values = getattr(batch, column.field)
    if values is None:
        return pa.nulls(len(batch), pa.from_numpy_dtype(np.dtype(column.dtypes[0])))
    return pa.array(values)


class TokenFile:
    """A finished file of tokens. Its footer is read at once, rows when they are asked for.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    path : Path
    domain : str
        As its folder says; ``default`` of a file that lies elsewhere.
    shape : RouteShape
    layer_ids : tuple of int, length L
    lookahead : LookaheadLayout or None
    num_rows : int
    dropped_rows : int
        Rows that its capture dropped since the file before.

    Raises
    ------
    TraceError
        If it is no file of tokens.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.domain = files.domain_of_file(path)
        self._file = files.open_parquet(path)
        self.num_rows = int(self._file.metadata.num_rows)
        self._schema: pa.Schema = self._file.schema_arrow
        notes = self._file.metadata.metadata or {}
        try:
            meta = files.file_metadata(self._file)
            if "num_layers" not in meta:
                raise TraceError(f"{path}: expected a file of tokens, got another one of a run")
            self.shape = RouteShape(meta["num_layers"], meta["num_experts"], meta["top_k"])
            self.layer_ids = tuple(int(i) for i in meta["layer_ids"])
            self.lookahead = LookaheadLayout.from_dict(meta.get("lookahead"))
            figures = json.loads(notes.get(FIGURES_KEY, b"{}"))
            self.dropped_rows = int(figures.get("dropped_rows", 0))
            self._noted_rows = int(figures.get("rows", 0))
        except TraceError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RouteStatsError) as error:
            problem = files.one_line(error)
            raise TraceError(f"{path}: its footer is not a trace's: {problem}") from None

    @property
    def noted_rows(self) -> int:
        """Rows that the writer meant it to have; 0 where it does not say."""
        return self._noted_rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Which of `ROW_COLUMNS` it has."""
        return tuple(name for name in ROW_COLUMNS if name in self._schema.names)

    def next_step(self) -> int:
        """The largest step of its rows, plus 1; 0 where none is known."""
        if "step" not in self._schema.names:
            return 0
        place = self._file.metadata.schema.names.index("step")
        found = 0
        for group in range(self._file.num_row_groups):
            about = self._file.metadata.row_group(group).column(place).statistics
            if about is not None and about.has_min_max:
                found = max(found, int(about.max) + 1)
            elif about is None or about.null_count != self._file.metadata.row_group(group).num_rows:
                steps = [batch.step for batch in self.batches(["step"])]
                return max((int(s.max()) + 1 for s in steps if s is not None and len(s)), default=0)
        return found

    def batches(
        self,
        columns: Sequence[str],
        rows: int = BATCH_ROWS,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[RoutingBatch]:
        """Some columns of its rows.

        Parameters
        ----------
        columns : sequence of str
            Of `ROW_COLUMNS`; no other one is decoded. ``step`` is None where it is not known.
        rows : int
            Rows of a batch, at most.
        start, stop : int
            Rows of the file, from its first one. Row groups that hold none of them are not read.

        Raises
        ------
        InvalidValueError
            If there is no such column.
        TraceError
            If the file lacks a column, holds another type or nulls in it, or cannot be read.
        """
        here = self._checked(columns)
        stop = self.num_rows if stop is None else min(stop, self.num_rows)
        if not here:
            for begin in range(start, stop, rows):
                nulls = {ROW_COLUMNS[name].field: None for name in columns}
                count = min(rows, stop - begin)
                yield RoutingBatch.of_columns(self.domain, (), rows=count, **nulls)
            return
        groups, place = self._groups(start, stop)
        if not groups:
            return
        with files.reading(self.path):
            for found in self._file.iter_batches(rows, row_groups=groups, columns=here):
                # What a row group has beside the rows that are asked for is left out.
                part = found[max(start - place, 0) : max(stop - place, 0)]
                place += len(found)
                for piece in _whole_pieces(part):
                    yield self._batch(columns, piece)

    def _groups(self, start: int, stop: int) -> tuple[list[int], int]:
        """Row groups that hold some of the rows, and the number of their first row."""
        groups: list[int] = []
        end = first = 0
        for group in range(self._file.num_row_groups):
            begin, end = end, end + self._file.metadata.row_group(group).num_rows
            if begin < stop and end > start:
                first = first if groups else begin
                groups.append(group)
        return groups, first

    def _checked(self, columns: Sequence[str]) -> list[str]:
        """The columns that must be decoded, all of them of the right type."""
        here = []
        for name in columns:
            if (column := ROW_COLUMNS.get(name)) is None:
                raise InvalidValueError(
                    f"columns: expected some of {', '.join(ROW_COLUMNS)}, got {name!r}"
                )
            if name in self._schema.names:
                self._check_type(column)
                here.append(name)
            elif not column.nullable:
                raise TraceError(f"{self.path}: expected a column {name!r}, which it lacks")
        return here

    def _check_type(self, column: RowColumn) -> None:
        got = self._schema.field(column.name).type
        if column.names is not None:
            plain = got.value_type if pa.types.is_dictionary(got) else got
            fits = pa.types.is_string(plain) or pa.types.is_large_string(plain)
        elif column.name == "lookahead" and self.lookahead is None:
            raise TraceError(f"{self.path}: lookahead: its metadata does not say how it is held")
        else:
            fits = got == column.arrow_type(self.shape, self.lookahead)
        if not fits:
            expected = column.arrow_type(self.shape, self.lookahead)
            raise TraceError(f"{self.path}: {column.name}: expected {expected}, got {got}")

    def _batch(self, columns: Sequence[str], part: pa.RecordBatch) -> RoutingBatch:
        ids: tuple[str, ...] = ()
        values: dict[str, npt.NDArray[Any] | None] = {}
        for name in columns:
            column = ROW_COLUMNS[name]
            if name not in part.schema.names:
                values[column.field] = None
                continue
            array = part[name]
            if column.nullable and array.null_count:
                values[column.field] = None  # all of them: see _whole_pieces
                continue
            if array.null_count:
                raise TraceError(f"{self.path}: {name}: {array.null_count} rows are null")
            if column.names is None:
                values[column.field] = self._plain(column, array)
                continue
            codes, names = _dictionary(array)
            if name == "request_id":
                ids, values[column.field] = tuple(names), codes
            else:
                values[column.field] = self._phase_codes(names)[codes]
        return RoutingBatch.of_columns(self.domain, ids, rows=len(part), **values)

    def _plain(self, column: RowColumn, array: pa.Array) -> npt.NDArray[Any]:
        extents = column.extents(self.shape, self.lookahead)
        flat: npt.NDArray[Any] = (array.flatten() if extents else array).to_numpy(
            zero_copy_only=False
        )
        return flat.reshape(len(array), *extents)

    def _phase_codes(self, names: list[str]) -> npt.NDArray[np.uint8]:
        for name in names:
            if name not in PHASES:
                raise TraceError(f"{self.path}: phase: {one_of(PHASES, name)}")
        return np.array([PHASES.index(name) for name in names], np.uint8)


def _whole_pieces(part: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Parts in whose rows a nullable column is null in all or in none: a batch has it or not."""
    edges = {0, len(part)}
    for name in part.schema.names:
        if ROW_COLUMNS[name].nullable and 0 < part[name].null_count < len(part):
            known = part[name].is_valid().to_numpy(zero_copy_only=False)
            edges.update((np.flatnonzero(known[1:] != known[:-1]) + 1).tolist())
    for begin, end in pairwise(sorted(edges)):
        yield part[begin:end]


def _dictionary(column: pa.Array) -> tuple[npt.NDArray[np.int32], list[str]]:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return codes, encoded.dictionary.to_pylist()
