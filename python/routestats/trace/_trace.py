"""`Trace`: rows of routing, lazily read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from routestats.errors import InvalidValueError, RouteStatsError, TraceError
from routestats.schema import LookaheadLayout, RoutingBatch
from routestats.shape import RouteShape
from routestats.trace._arrays import source_from_arrays
from routestats.trace._light import light_schema, light_table
from routestats.trace._selection import Selection
from routestats.trace._sources import FileSource, Source
from routestats.trace._split import split_requests


class Trace:
    """Routing of tokens, on disk or in memory. Make one with `open` or `from_arrays`.

    A trace on disk is read in chunks whenever it is used, so it may be larger than memory; only
    `experts`, `weights`, `rows` and the ``to_`` methods hold everything. Rows come in one fixed
    order: by domain, then as they were written.
    """

    def __init__(
        self, source: Source, selection: Selection, info: dict[str, Any], ordered: bool
    ) -> None:
        self._source = source
        self._selection = selection
        self._info = info
        self._ordered = ordered
        self._num_rows: int | None = None
        self._held: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Open a run folder, or one of its token files alone.

        Raises
        ------
        TraceError
            If it is no run, or cannot be read.
        """
        path = Path(path)
        if path.is_file() or path.suffix == ".parquet":
            source = FileSource(path) if path.is_file() else None
            if source is None:
                raise TraceError(f"{path}: no such file")
        else:
            source = FileSource(path)
        return cls(source, Selection(source.domains), source.info, ordered=True)

    @classmethod
    def from_arrays(
        cls,
        experts: npt.ArrayLike,
        *,
        num_experts: int,
        request_ids: Sequence[Any] | npt.NDArray[Any] | None = None,
        positions: npt.ArrayLike | None = None,
        token_ids: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
        phase: Sequence[str] | None = None,
        domain: str | Mapping[str, str] = "default",
        groups: Mapping[str, str] | None = None,
        layer_ids: Sequence[int] | None = None,
        ordered: bool | None = None,
    ) -> Trace:
        """A trace of arrays in memory.

        Parameters
        ----------
        experts : integer array, shape [T, L, K]
        num_experts : int
        request_ids : sequence of T, optional
            By default all rows are one request.
        positions : integer array, shape [T], optional
            By default counted from 0 within each request.
        token_ids : integer array, shape [T], optional
            By default -1, which means unknown.
        weights : float array, shape [T, L, K], optional
            In descending order; see `routestats.trace.sort_by_weight`.
        phase : sequence of "prefill" or "decode", optional
            By default prefill.
        domain : str, or mapping from request id to domain
        groups : mapping from request id to group, optional
            By default every request is a group of its own.
        layer_ids : sequence of int, optional
        ordered : bool, optional
            Whether slot 0 is the first choice. By default known only where there are weights.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If an array is of the wrong kind or shape, an id is not below `num_experts`, or weights
            are not in descending order.
        """
        source = source_from_arrays(
            experts,
            num_experts=num_experts,
            request_ids=request_ids,
            positions=positions,
            token_ids=token_ids,
            weights=weights,
            phase=phase,
            domain=domain,
            groups=groups,
            layer_ids=layer_ids,
        )
        known = weights is not None if ordered is None else ordered
        # One choice is in order by itself.
        known = known or source.shape.top_k == 1
        return cls(source, Selection(source.domains), {"complete": True}, ordered=known)

    # --- what it is ---

    @property
    def shape(self) -> RouteShape:
        """Layers (after `filter`), experts and choices."""
        layers = self._selection.layers
        return (
            self._source.shape
            if layers is None
            else replace(self._source.shape, num_layers=len(layers))
        )

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """Decoder-layer number of each layer."""
        ids, layers = self._source.layer_ids, self._selection.layers
        return ids if layers is None else tuple(ids[i] for i in layers)

    @property
    def domains(self) -> tuple[str, ...]:
        return self._selection.domains

    @property
    def info(self) -> dict[str, Any]:
        """Contents of ``run.json``."""
        return self._info

    @property
    def complete(self) -> bool:
        """Whether the run was finished properly."""
        return bool(self._info.get("complete"))

    @property
    def path(self) -> Path | None:
        """The run's folder, or None."""
        return self._source.run_dir if isinstance(self._source, FileSource) else None

    @property
    def has_weights(self) -> bool:
        return self._source.has_weights

    @property
    def lookahead(self) -> LookaheadLayout | None:
        """What of later gates' choices is beside each row, or None; read with `iter_lookahead`."""
        return self._source.lookahead

    @property
    def ordered(self) -> bool:
        """Whether slot 0 is known to be the first choice."""
        return self._ordered

    def __len__(self) -> int:
        if self._num_rows is None:
            if self._selection.all_rows:
                self._num_rows = self._source.num_rows(self.domains)
            else:
                self._num_rows = sum(len(batch) for batch in self._batches(65_536, light=True))
        return self._num_rows

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        return f"<Trace of {len(self):,} tokens, {self.shape}, {', '.join(self.domains)}{where}>"

    # --- its rows ---

    def iter_batches(self, rows: int = 65_536) -> Iterator[RoutingBatch]:
        """Chunks of at most `rows` rows, each of one domain."""
        return self._batches(rows, light=False)

    def iter_experts(self, rows: int = 65_536) -> Iterator[npt.NDArray[Any]]:
        """Experts ``[t, L, K]`` of at most `rows` rows at a time."""
        for batch in self._batches(rows, light=False):
            yield batch.experts

    def iter_lookahead(self, rows: int = 4096) -> Iterator[RoutingBatch]:
        """Chunks of at most `rows` rows that have what later gates would have chosen, too.

        Raises
        ------
        InvalidValueError
            If the trace has none, or only some of its layers were kept by `filter`.
        """
        if self.lookahead is None:
            raise InvalidValueError(
                "lookahead: the trace has none; a finished run cannot be given it: capture with "
                "'routestats profile ... --lookahead H', or rs.capture(..., lookahead=H)"
            )
        if self._selection.layers is not None:
            raise InvalidValueError(
                f"lookahead: expected a trace of all {self._source.shape.num_layers} layers, "
                f"got one filtered to {self.shape.num_layers}"
            )
        return self._batches(rows, light=False, lookahead=True)

    def _batches(
        self, rows: int, *, light: bool, lookahead: bool = False
    ) -> Iterator[RoutingBatch]:
        if rows < 1:
            raise InvalidValueError(f"rows: expected at least 1, got {rows}")
        chosen = self._selection
        for batch in self._source.batches(rows, chosen.domains, light=light, lookahead=lookahead):
            part = chosen.part(batch, light=light)
            if part is not None:
                yield part

    @property
    def experts(self) -> npt.NDArray[Any]:
        """All experts, ``[T, L, K]``."""
        experts: npt.NDArray[Any] = self._hold(
            "experts", lambda: self._all("experts", self.shape.id_dtype)
        )
        return experts

    @property
    def weights(self) -> npt.NDArray[np.float16] | None:
        """All gate weights, ``[T, L, K]``, or None."""
        if not self.has_weights:
            return None
        weights: npt.NDArray[np.float16] = self._hold(
            "weights", lambda: self._all("weights", np.dtype(np.float16))
        )
        return weights

    def _all(self, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        chunks = [getattr(batch, name) for batch in self.iter_batches()]
        if not chunks:
            return np.empty((0, self.shape.num_layers, self.shape.top_k), dtype)
        return np.concatenate(chunks)

    def _hold(self, name: str, make: Any) -> Any:
        if name not in self._held:
            self._held[name] = make()
        return self._held[name]

    @property
    def rows(self) -> pa.Table:
        """All rows without their routing: request_id, position, token_id, phase, domain."""
        table: pa.Table = self._hold("rows", self._rows)
        return table

    def _rows(self) -> pa.Table:
        tables = [light_table(batch) for batch in self._batches(65_536, light=True)]
        return (
            pa.concat_tables(tables).unify_dictionaries()
            if tables
            else light_schema().empty_table()
        )

    @property
    def requests(self) -> pa.Table:
        """One row per request of the chosen domains: see `RequestRecord`."""
        table = self._source.requests()
        table = table.filter(pc.is_in(table["domain"], pa.array(self.domains, pa.string())))
        if self._selection.requests is not None:
            wanted = pa.array(sorted(self._selection.requests), pa.string())
            table = table.filter(pc.is_in(table["request_id"], wanted))
        return table

    def row_groups(self) -> npt.NDArray[np.int32]:
        """Group of each row, ``[T]``: rows of requests with the same prompt have the same number.

        A request without a record, as a killed run may have, is a group of its own.
        """
        table = self.requests
        group_of = dict(
            zip(table["request_id"].to_pylist(), table["group"].to_pylist(), strict=True)
        )
        numbers: dict[str, int] = {}
        parts = []
        for batch in self._batches(65_536, light=True):
            codes = [
                numbers.setdefault(group_of.get(request, f"request {request}"), len(numbers))
                for request in batch.request_ids
            ]
            parts.append(np.array(codes, np.int32)[batch.request_index])
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def row_domains(self) -> npt.NDArray[np.int32]:
        """Index into `domains` of each row, ``[T]``."""
        parts = [
            np.full(len(batch), self.domains.index(batch.domain), np.int32)
            for batch in self._batches(65_536, light=True)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    # --- parts of it ---

    def filter(
        self,
        *,
        domain: str | Sequence[str] | None = None,
        phase: str | Sequence[str] | None = None,
        requests: Iterable[str] | None = None,
        layers: slice | Sequence[int] | None = None,
    ) -> Trace:
        """The rows and layers that meet every condition given.

        Parameters
        ----------
        domain : str or sequence of str
        phase : "prefill", "decode" or both
        requests : iterable of str
        layers : slice or sequence of int
            Indices into `layer_ids`, in ascending order.

        Raises
        ------
        InvalidValueError
            If a name is unknown or an index out of range.
        """
        chosen = self._selection.narrowed(
            self._source.shape.num_layers,
            domain=domain,
            phase=phase,
            requests=requests,
            layers=layers,
        )
        return Trace(self._source, chosen, self._info, self._ordered)

    def split(self, test: float = 0.2, seed: int = 0) -> tuple[Trace, Trace]:
        """Split into training and test part, by prompt group and within each domain.

        Parameters
        ----------
        test : float
            Share of the groups of each domain that go to the test part, 0 < test < 1.
        seed : int

        Returns
        -------
        train, test : Trace

        Raises
        ------
        InvalidValueError
            If a part would be empty.
        """
        table = self.requests
        group_of = dict(
            zip(table["request_id"].to_pylist(), table["group"].to_pylist(), strict=True)
        )
        seen: dict[str, tuple[str, str]] = {}
        for batch in self._batches(65_536, light=True):
            for code in np.unique(batch.request_index):
                request = batch.request_ids[code]
                seen[request] = (batch.domain, group_of.get(request, f"request {request}"))
        train, held_out = split_requests(seen, test, seed)
        return self.filter(requests=train), self.filter(requests=held_out)

    def to_arrow(self) -> pa.Table:
        """Everything as one Arrow table, as in the files, with the domain."""
        table = self.rows
        width = self.shape.row_width
        for name, values in (("experts", self.experts), ("weights", self.weights)):
            if values is not None:
                flat = pa.array(np.ascontiguousarray(values).ravel())
                table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, width))
        return table

    def to_pandas(self) -> Any:
        """Everything as a pandas DataFrame."""
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise RouteStatsError("to_pandas: needs pandas; pip install pandas") from None
        return self.to_arrow().to_pandas()
