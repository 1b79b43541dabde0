"""Several traces as one, each a domain of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.schema import LookaheadLayout, RoutingBatch, request_schema
from routestats.shape import RouteShape
from routestats.trace._selection import Selection
from routestats.trace._sources import Mask, kept
from routestats.trace._trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class JoinedSource:
    """The rows of `parts`, read when they are asked for; each part is one domain."""

    shape: RouteShape
    layer_ids: tuple[int, ...]
    parts: Mapping[str, Trace]

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.parts)

    @property
    def has_weights(self) -> bool:
        return all(part.has_weights for part in self.parts.values())

    @property
    def lookahead(self) -> LookaheadLayout | None:
        """That of the parts, if all have the same."""
        # A part of some layers keeps none.
        layouts = {
            part.lookahead if "lookahead" in part.columns else None for part in self.parts.values()
        }
        return layouts.pop() if len(layouts) == 1 else None

    @property
    def spans(self) -> Mapping[str, slice]:
        ends = accumulate((len(part) for part in self.parts.values()), initial=0)
        return dict(zip(self.parts, (slice(*span) for span in pairwise(ends)), strict=True))

    @property
    def request_names(self) -> tuple[str, ...]:
        return tuple(
            f"{name}/{request}"
            for name, part in self.parts.items()
            for request in part._view.requests[0]
        )

    def holds(self, name: str) -> bool:
        return all(part._view.source.holds(name) for part in self.parts.values())

    def column(self, name: str) -> npt.NDArray[Any]:
        if name != "request_id":
            return np.concatenate([part._view.column(name) for part in self.parts.values()])
        before = 0
        numbers = []
        for part in self.parts.values():
            requests, codes = part._view.requests
            numbers.append(codes + np.int32(before))
            before += len(requests)
        return np.concatenate(numbers)

    def batches(
        self, columns: Sequence[str], rows: int, domains: Sequence[str], keep: Mask | None
    ) -> Iterator[RoutingBatch]:
        for name, part in self.parts.items():
            if name not in domains:
                continue
            for batch in kept(part.batches(columns, rows), keep, self.spans[name].start):
                ids = tuple(f"{name}/{request}" for request in batch.request_ids)
                yield RoutingBatch.of_columns(name, ids, rows=len(batch), **batch.columns())

    def requests(self) -> pa.Table:
        tables = []
        for name, part in self.parts.items():
            table = part.requests
            ids = pa.array([f"{name}/{request}" for request in table["request_id"].to_pylist()])
            domain = pa.array([name] * len(table), pa.string())
            table = table.set_column(0, "request_id", ids.cast(pa.string()))
            tables.append(table.set_column(1, "domain", domain))
        return pa.concat_tables(tables).cast(request_schema())


def join(traces: Mapping[str, Trace]) -> Trace:
    """Several traces as one trace, whose domains are their names.

    Rows stay where they are and are read when they are used. A request's id is preceded by the
    name of its trace; its group is not, so that a prompt that several traces hold stays one group.

    Parameters
    ----------
    traces : mapping from name to Trace
        All of the same shape and layers.

    Returns
    -------
    Trace
        Its order is known, and it has weights, where that holds for all.

    Raises
    ------
    InvalidTypeError
        If one is no trace.
    InvalidValueError
        If there is none, or two differ in shape or layers.
    """
    if not isinstance(traces, Mapping):
        raise InvalidTypeError(f"traces: expected a mapping of traces, got {traces!r}")
    for name, trace in traces.items():
        if not isinstance(name, str):
            raise InvalidTypeError(f"traces: expected names of traces, got {name!r}")
        if not isinstance(trace, Trace):
            raise InvalidTypeError(f"{name}: expected a Trace, got {type(trace).__name__}")
    if not traces:
        raise InvalidValueError("traces: expected at least 1, got 0")
    first_name, first = next(iter(traces.items()))
    for name, trace in traces.items():
        for what in ("shape", "layer_ids"):
            mine, theirs = getattr(first, what), getattr(trace, what)
            if mine != theirs:
                raise InvalidValueError(
                    f"{name}: expected {what} {mine} as in {first_name}, got {theirs}"
                )
    source = JoinedSource(first.shape, first.layer_ids, dict(traces))
    info = {"complete": all(trace.complete for trace in traces.values())}
    ordered = all(trace.ordered for trace in traces.values())
    return Trace(source, Selection(source.domains), info, ordered)
