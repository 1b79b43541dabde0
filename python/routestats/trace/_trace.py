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

from routestats.arguments import check_flag, check_integer, check_path
from routestats.errors import InvalidValueError, RouteStatsError, TraceError
from routestats.schema import (
    DEFAULT_DOMAIN,
    PHASES,
    ROW_COLUMNS,
    LookaheadLayout,
    RoutingBatch,
)
from routestats.shape import RouteShape
from routestats.trace import files
from routestats.trace._arrays import source_from_arrays
from routestats.trace._selection import Selection, as_names, check_known
from routestats.trace._sources import FileSource, Source
from routestats.trace._split import split_requests
from routestats.trace._view import View
from routestats.trace.token_file import BATCH_ROWS


class Trace:
    """Routing of tokens, on disk or in memory. Make one with `open` or `from_arrays`.

    A trace on disk is read in chunks whenever it is used, so it may be larger than memory; only
    `experts`, `weights`, `rows` and the ``to_`` methods hold everything. What is decoded of a small
    run is kept (`routestats.trace._sources.HELD_BYTES`), and its parts (`filter`, `split`) share
    it. Rows come in one fixed order: by domain, then as they were written.

    Arrays that a trace gives are read-only: copy one to change it.
    """

    def __init__(
        self, source: Source, selection: Selection, info: dict[str, Any], ordered: bool
    ) -> None:
        self._view = View(source, selection)
        self._info = info
        self._ordered = ordered
        self._held: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Open a run folder, or one of its token files alone.

        Raises
        ------
        TraceError
            If it is no run, or cannot be read.
        """
        path = check_path("path", path)
        if path.is_file() and path.suffix != ".parquet":
            files.check_folder(path)
        if path.suffix == ".parquet" and not path.exists():
            raise TraceError(f"{path}: no such file")
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
        step: npt.ArrayLike | None = None,
        domain: str | Mapping[str, str] = DEFAULT_DOMAIN,
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
        step : integer array, shape [T], optional
            The engine's step that computed each row, 0 to 2**32 - 1. By default not known.
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
            step=step,
            domain=domain,
            groups=groups,
            layer_ids=layer_ids,
        )
        known = weights is not None if ordered is None else check_flag("ordered", ordered)
        # One choice is in order by itself.
        known = known or source.shape.top_k == 1
        return cls(source, Selection(source.domains), {"complete": True}, ordered=known)

    # --- what it is ---

    @property
    def _source(self) -> Source:
        return self._view.source

    @property
    def _selection(self) -> Selection:
        return self._view.selection

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
    def phases(self) -> tuple[str, ...]:
        """Phases whose rows it shows."""
        chosen = self._selection.phases
        return PHASES if chosen is None else tuple(PHASES[code] for code in sorted(chosen))

    @property
    def whole(self) -> bool:
        """Whether it shows every row of what was opened."""
        return self._selection.all_rows and self.domains == self._source.domains

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
    def files(self) -> tuple[Path, ...]:
        """The token files of what was opened, in the order of their rows; none of arrays."""
        return self._source.files if isinstance(self._source, FileSource) else ()

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
        return len(self._view)

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        return f"<Trace of {len(self):,} tokens, {self.shape}, {', '.join(self.domains)}{where}>"

    # --- its rows ---

    @property
    def columns(self) -> tuple[str, ...]:
        """What `batches` can read of each row, as `routestats.schema.ROW_COLUMNS` describes it."""
        lacks = {
            "weights": not self.has_weights,
            "lookahead": self.lookahead is None or self._selection.layers is not None,
        }
        return tuple(name for name in ROW_COLUMNS if not lacks.get(name))

    def batches(
        self, columns: str | Sequence[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[RoutingBatch]:
        """Some columns of all rows, in chunks; nothing else is decoded.

        Parameters
        ----------
        columns : str or sequence of str, optional
            Of `columns`, e.g. ``["request_id", "experts"]``; by default all of them. The domain of
            a chunk is always known, its ``request_ids`` with ``request_id``. ``step`` is None
            where it is not known.
        rows : int
            Rows of a chunk, at most. A chunk is of one domain.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If the trace has no such column, or `rows` is no integer of at least 1.
        TraceError
            If a file cannot be read.
        """
        chosen = self.columns if columns is None else as_names("columns", columns)
        check_known("columns", chosen, self.columns)
        if not chosen:
            raise InvalidValueError(f"columns: expected some of {', '.join(self.columns)}")
        rows = check_integer("rows", rows, 1)
        return self._view.batches(list(dict.fromkeys(chosen)), rows)

    def iter_batches(self, rows: int = BATCH_ROWS) -> Iterator[RoutingBatch]:
        """All columns but lookahead, in chunks of at most `rows` rows, each of one domain."""
        return self.batches([name for name in self.columns if name != "lookahead"], rows)

    def iter_experts(self, rows: int = BATCH_ROWS) -> Iterator[npt.NDArray[Any]]:
        """Experts ``[t, L, K]`` of at most `rows` rows at a time."""
        rows = check_integer("rows", rows, 1)
        if (held := self._held.get("experts")) is not None:
            return (held[start : start + rows] for start in range(0, len(held), rows))
        return (batch.experts for batch in self.batches("experts", rows))

    def iter_lookahead(
        self, rows: int = 4096, columns: Sequence[str] | None = None
    ) -> Iterator[RoutingBatch]:
        """As `batches`, of a trace that has what later gates would have chosen.

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
        return self.batches(columns, rows)

    @property
    def experts(self) -> npt.NDArray[Any]:
        """All experts, ``[T, L, K]``."""
        experts: npt.NDArray[Any] = self._hold("experts", lambda: self._view.column("experts"))
        return experts

    @property
    def weights(self) -> npt.NDArray[np.float16] | None:
        """All gate weights, ``[T, L, K]``, or None."""
        if not self.has_weights:
            return None
        weights: npt.NDArray[np.float16] = self._hold(
            "weights", lambda: self._view.column("weights")
        )
        return weights

    def _hold(self, name: str, make: Any) -> Any:
        if name not in self._held:
            self._held[name] = make()
        return self._held[name]

    @property
    def rows(self) -> pa.Table:
        """All rows without their routing: request_id, position, token_id, phase, step, domain."""
        table: pa.Table = self._hold("rows", self._view.table)
        return table

    @property
    def requests(self) -> pa.Table:
        """One row per request of the chosen domains: see `RequestRecord`."""
        table = self.all_requests()
        table = table.filter(pc.is_in(table["domain"], pa.array(self.domains, pa.string())))
        if self._selection.requests is not None:
            wanted = pa.array(sorted(self._selection.requests), pa.string())
            table = table.filter(pc.is_in(table["request_id"], wanted))
        return table

    def all_requests(self) -> pa.Table:
        """The records of what was opened, also those that no row belongs to."""
        return self._source.requests()

    def _group_names(self) -> list[str]:
        """Group of each request that has rows, in the order of the view's names."""
        table = self.all_requests()
        group_of = dict(
            zip(table["request_id"].to_pylist(), table["group"].to_pylist(), strict=True)
        )
        names, _ = self._view.requests
        return [group_of.get(name, f"request {name}") for name in names]

    def row_requests(self) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
        """Ids of the requests that have rows, and index into them of each row, ``[T]``."""
        return self._view.requests

    def row_groups(self) -> npt.NDArray[np.int32]:
        """Group of each row, ``[T]``: rows of requests with the same prompt have the same number.

        A request without a record, as a killed run may have, is a group of its own.
        """
        numbers: dict[str, int] = {}
        groups = [numbers.setdefault(name, len(numbers)) for name in self._group_names()]
        _, requests = self._view.requests
        return np.array(groups, np.int32)[requests]

    def row_domains(self) -> npt.NDArray[np.int32]:
        """Index into `domains` of each row, ``[T]``."""
        return self._view.domain_of_row

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
        names, requests = self._view.requests
        domain_of = np.empty(len(names), np.int32)
        domain_of[requests] = self.row_domains()
        seen = {
            name: (self.domains[domain], group)
            for name, domain, group in zip(names, domain_of, self._group_names(), strict=True)
        }
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
