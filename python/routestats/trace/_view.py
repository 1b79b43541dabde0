"""The rows and layers of a source that a selection shows: its index, columns and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.schema import PHASES, ROW_COLUMNS, RoutingBatch
from routestats.trace._selection import Selection
from routestats.trace._sources import Mask, Source, read_only
from routestats.trace.token_file import BATCH_ROWS, nullable_array


class View:
    """What a trace shows of its source.

    What selects rows is worked out once, from columns that the source keeps: the view of a part of
    a trace reads nothing again.
    """

    def __init__(self, source: Source, selection: Selection) -> None:
        self.source = source
        self.selection = selection

    @cached_property
    def _keep(self) -> Mask | None:
        """Which rows of the source have a chosen phase and request, in any domain; None is all."""
        chosen = self.selection
        if chosen.all_rows:
            return None
        requests = self.source.column("request_id")
        keep = np.ones(len(requests), bool)
        if chosen.requests is not None:
            wanted = [name in chosen.requests for name in self.source.request_names]
            keep &= np.array(wanted, bool)[requests]
        if chosen.phases is not None:
            keep &= np.isin(self.source.column("phase"), list(chosen.phases))
        return keep

    @property
    def _spans(self) -> list[slice]:
        """The source's rows of each chosen domain."""
        return [self.source.spans[domain] for domain in self.selection.domains]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each chosen domain."""
        keep = self._keep
        return tuple(
            span.stop - span.start if keep is None else int(np.count_nonzero(keep[span]))
            for span in self._spans
        )

    def __len__(self) -> int:
        return sum(self.lengths)

    def batches(self, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[RoutingBatch]:
        """Some columns, in chunks of at most `rows` rows, each of one domain."""
        domains = self.selection.domains
        for batch in self.source.batches(columns, rows, domains, self._keep):
            yield self._of_layers(batch)

    def _of_layers(self, batch: RoutingBatch) -> RoutingBatch:
        if self.selection.layers is None:
            return batch
        columns = batch.columns()
        for name in ("experts", "weights"):
            if (values := columns.get(name)) is not None:
                columns[name] = values[:, list(self.selection.layers)]
        return RoutingBatch.of_columns(batch.domain, batch.request_ids, rows=len(batch), **columns)

    def column(self, name: str) -> npt.NDArray[Any]:
        """All rows of a column, read-only; ``request_id`` as indices into the source's names."""
        column = ROW_COLUMNS[name]
        layers = None if column.ndim == 1 else self.selection.layers
        if self.source.holds(name):
            values = self._chosen(self.source.column(name))
            return read_only(values if layers is None else values[:, list(layers)])
        shape = self.source.shape
        if layers is not None:
            shape = replace(shape, num_layers=len(layers))
        extents = column.extents(shape, self.source.lookahead)
        values = np.empty((len(self), *extents), column.dtype(shape))
        at = 0
        for batch in self.batches([name]):
            values[at : at + len(batch)] = getattr(batch, column.field)
            at += len(batch)
        return read_only(values)

    def _chosen(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The chosen rows of a column of the source; not copied where they lie together."""
        keep = self._keep
        if self.selection.domains == self.source.domains:
            return values if keep is None else values[keep]
        parts = [values[span] if keep is None else values[span][keep[span]] for span in self._spans]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else values[:0]

    @cached_property
    def requests(self) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
        """Names of the requests that have rows, in the source's order; which one each row is of."""
        names, codes = self.source.request_names, self.column("request_id")
        present = np.flatnonzero(np.bincount(codes, minlength=len(names)))
        if len(present) == len(names):
            return names, codes
        place = np.zeros(len(names), np.int32)
        place[present] = np.arange(len(present))
        return tuple(names[number] for number in present), read_only(place[codes])

    @property
    def domain_of_row(self) -> npt.NDArray[np.int32]:
        """Index into the selection's domains of each row."""
        return np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)

    def table(self) -> pa.Table:
        """All rows without their routing: request_id, position, token_id, phase, step, domain."""
        names, requests = self.requests
        phase = self.column("phase").astype(np.int32)
        steps = [nullable_array(batch, ROW_COLUMNS["step"]) for batch in self.batches(["step"])]
        return pa.table(
            {
                "request_id": _named(requests, names),
                "position": pa.array(self.column("position")),
                "token_id": pa.array(self.column("token_id")),
                "phase": _named(phase, PHASES),
                "step": pa.chunked_array(steps, pa.uint32()),
                "domain": _named(self.domain_of_row, self.selection.domains),
            }
        )


def _named(codes: npt.NDArray[np.int32], names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(names), pa.string()))
