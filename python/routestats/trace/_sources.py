"""Where a trace's rows lie: in Parquet files, or in arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import TraceError
from routestats.schema import ROW_COLUMNS, LookaheadLayout, RoutingBatch, request_schema
from routestats.shape import RouteShape
from routestats.trace import files
from routestats.trace.token_file import TokenFile

HELD_BYTES = 512 << 20
"""A run whose experts take no more than this keeps in memory what is decoded of it.

Experts, positions, token ids, phases and request ids are kept; weights, steps and lookahead, which
few statistics read, are not. The parts of a trace (`Trace.filter`, `Trace.split`) share what is
kept. A larger run is decoded whenever it is read, but for the request and phase of each row.
"""
_HELD = ("request_id", "position", "token_id", "phase", "experts")
_ALWAYS_HELD = ("request_id", "phase")

Mask = npt.NDArray[np.bool_]


class Source(Protocol):
    """Rows in one fixed order: by domain, file and place in the file."""

    @property
    def shape(self) -> RouteShape: ...

    @property
    def layer_ids(self) -> tuple[int, ...]: ...

    @property
    def domains(self) -> tuple[str, ...]: ...

    @property
    def has_weights(self) -> bool: ...

    @property
    def lookahead(self) -> LookaheadLayout | None: ...

    @property
    def spans(self) -> Mapping[str, slice]:
        """The rows of each domain."""

    @property
    def request_names(self) -> tuple[str, ...]:
        """All requests that have rows, in the order in which files or arrays list them."""

    def holds(self, name: str) -> bool:
        """Whether `column` reads a column once at most, however often it is asked for."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """All rows of a column, read-only; ``request_id`` as indices into `request_names`."""

    def batches(
        self, columns: Sequence[str], rows: int, domains: Sequence[str], keep: Mask | None
    ) -> Iterator[RoutingBatch]:
        """Some columns, in chunks of at most `rows` rows, of the rows that `keep` marks.

        `keep` has an entry for each row of the source.
        """

    def requests(self) -> pa.Table: ...


class FileSource:
    """The files of a run folder, or one of them alone."""

    def __init__(self, path: Path) -> None:
        if path.is_file():
            file = TokenFile(path)
            self.run_dir = None
            found = {file.domain: [path]}
            self.info: dict[str, Any] = {"complete": True}
            self.shape, self.layer_ids = file.shape, file.layer_ids
            self.lookahead = file.lookahead
            self.has_weights = "weights" in file.columns
        else:
            self.run_dir = path
            self.info = files.read_run_file(path)
            self.shape, self.layer_ids, self.lookahead = files.description(path, self.info)
            found = files.token_files(path)
            first = next((file for some in found.values() for file in some), None)
            self.has_weights = (
                bool(self.info.get("weights"))
                if first is None
                else "weights" in TokenFile(first).columns
            )
        self._paths = [(domain, file) for domain, some in found.items() for file in some]
        self.domains = tuple(found)
        self._names: dict[str, int] = {}
        self._held: dict[str, npt.NDArray[Any]] = {}
        self._filled: dict[str, set[int]] = {}

    @property
    def files(self) -> tuple[Path, ...]:
        """In the order of their rows."""
        return tuple(path for _, path in self._paths)

    @cached_property
    def _bounds(self) -> npt.NDArray[np.int64]:
        """Where the rows of each file begin, and where the last ones end."""
        lengths = [TokenFile(path).num_rows for _, path in self._paths]
        return np.cumsum([0, *lengths], dtype=np.int64)

    @cached_property
    def spans(self) -> Mapping[str, slice]:
        spans: dict[str, slice] = {}
        for number, (domain, _) in enumerate(self._paths):
            start, stop = self._bounds[number : number + 2].tolist()
            spans[domain] = slice(spans[domain].start if domain in spans else start, stop)
        return spans

    @property
    def request_names(self) -> tuple[str, ...]:
        self.column("request_id")
        return tuple(self._names)

    def holds(self, name: str) -> bool:
        if name in _ALWAYS_HELD:
            return True
        row_bytes = self.shape.row_width * self.shape.id_dtype.itemsize
        return name in _HELD and int(self._bounds[-1]) * row_bytes <= HELD_BYTES

    def column(self, name: str) -> npt.NDArray[Any]:
        for part in range(len(self._paths)):
            self._fill(part, [name])
        return read_only(self._place_for(name))

    def batches(
        self, columns: Sequence[str], rows: int, domains: Sequence[str], keep: Mask | None
    ) -> Iterator[RoutingBatch]:
        for part, (domain, _) in enumerate(self._paths):
            start, stop = self._bounds[part : part + 2].tolist()
            if domain not in domains or (keep is not None and not keep[start:stop].any()):
                continue
            yield from kept(self._part(part, columns, rows), keep, start)

    def _part(self, part: int, columns: Sequence[str], rows: int) -> Iterator[RoutingBatch]:
        """The rows of one file: what is held from memory, the rest from the file."""
        domain, path = self._paths[part]
        start, stop = self._bounds[part : part + 2].tolist()
        held = [name for name in columns if self.holds(name)]
        self._fill(part, held)
        values = {name: read_only(self._place_for(name)) for name in held}
        names = tuple(self._names) if "request_id" in held else ()
        if len(held) == len(columns):
            yield from batches_of_arrays(domain, values, names, slice(start, stop), rows)
            return
        rest = [name for name in columns if name not in held]
        for batch in self._open(path).batches(rest, rows):
            here = slice(start, start + len(batch))
            start += len(batch)
            if held:
                (one,) = batches_of_arrays(domain, values, names, here, len(batch))
                ids = one.request_ids or batch.request_ids
                both = {**one.columns(), **batch.columns()}
                yield RoutingBatch.of_columns(domain, ids, rows=len(batch), **both)
            else:
                yield batch

    def _place_for(self, name: str) -> npt.NDArray[Any]:
        if name not in self._held:
            column = ROW_COLUMNS[name]
            extents = column.extents(self.shape, self.lookahead)
            # Memory that is not written to is not taken from the system.
            self._held[name] = np.empty((int(self._bounds[-1]), *extents), column.dtype(self.shape))
        return self._held[name]

    def _fill(self, part: int, columns: Sequence[str]) -> None:
        """Read what is not held yet of some columns of one file."""
        missing = [n for n in columns if part not in self._filled.setdefault(n, set())]
        if not missing:
            return
        if "request_id" in missing and part > len(self._filled["request_id"]):
            self.column("request_id")  # requests are numbered in the order of the files
            missing.remove("request_id")
        start = int(self._bounds[part])
        for batch in self._open(self._paths[part][1]).batches(missing):
            here = slice(start, start + len(batch))
            start += len(batch)
            for name in missing:
                values = getattr(batch, ROW_COLUMNS[name].field)
                if name == "request_id":
                    ids = self._names
                    numbers = [ids.setdefault(name, len(ids)) for name in batch.request_ids]
                    values = np.array(numbers, np.int32)[values]
                self._place_for(name)[here] = values
        for name in missing:
            self._filled[name].add(part)

    def _open(self, path: Path) -> TokenFile:
        file = TokenFile(path)
        if file.shape != self.shape:
            raise TraceError(f"{path}: expected {self.shape} as in run.json, got {file.shape}")
        if file.lookahead is not None and file.lookahead != self.lookahead:
            raise TraceError(
                f"{path}: lookahead: expected {self.lookahead} as in run.json, got {file.lookahead}"
            )
        return file

    def requests(self) -> pa.Table:
        return self._requests

    @cached_property
    def _requests(self) -> pa.Table:
        if self.run_dir is None:
            return request_schema().empty_table()
        return files.read_requests(self.run_dir)


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """Rows in memory: arrays by column, their rows in the order of the domains.

    ``request_id`` has indices into `request_names`; a column that is None is not known.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    arrays: Mapping[str, npt.NDArray[Any] | None]
    request_names: tuple[str, ...]
    spans: Mapping[str, slice]
    table: pa.Table
    lookahead: LookaheadLayout | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.spans)

    @property
    def has_weights(self) -> bool:
        return self.arrays.get("weights") is not None

    def holds(self, name: str) -> bool:
        return True

    def column(self, name: str) -> npt.NDArray[Any]:
        values = self.arrays[name]
        assert values is not None
        return read_only(values)

    def batches(
        self, columns: Sequence[str], rows: int, domains: Sequence[str], keep: Mask | None
    ) -> Iterator[RoutingBatch]:
        chosen = {
            name: None if (values := self.arrays.get(name)) is None else read_only(values)
            for name in columns
        }
        for domain, span in self.spans.items():
            if domain not in domains:
                continue
            batches = batches_of_arrays(domain, chosen, self.request_names, span, rows)
            yield from kept(batches, keep, span.start)

    def requests(self) -> pa.Table:
        return self.table


def batches_of_arrays(
    domain: str,
    arrays: Mapping[str, npt.NDArray[Any] | None],
    request_names: Sequence[str],
    span: slice,
    rows: int,
) -> Iterator[RoutingBatch]:
    """Some rows of arrays by column, at most `rows` at a time."""
    requests = arrays.get("request_id")
    for start in range(span.start, span.stop, rows):
        here = slice(start, min(start + rows, span.stop))
        values = {
            ROW_COLUMNS[name].field: None if array is None else array[here]
            for name, array in arrays.items()
        }
        ids: tuple[str, ...] = ()
        if requests is not None:
            present, codes = np.unique(requests[here], return_inverse=True)
            ids = tuple(request_names[number] for number in present)
            values["request_index"] = codes.astype(np.int32)
        yield RoutingBatch.of_columns(domain, ids, rows=here.stop - start, **values)


def kept(batches: Iterable[RoutingBatch], keep: Mask | None, start: int) -> Iterator[RoutingBatch]:
    """The rows that `keep` marks, of batches whose first row is row `start` of the source."""
    for batch in batches:
        here = None if keep is None else keep[start : start + len(batch)]
        start += len(batch)
        if here is None or here.all():
            yield batch
        elif here.any():
            yield batch[here]


def read_only(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = values.view()
    view.flags.writeable = False
    return view
