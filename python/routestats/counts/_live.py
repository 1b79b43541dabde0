"""Counts that grow with a capture: of the rows that its trace keeps, and of no others."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.counts._path_counts import PathCounts, PathKind, finish_paths, new_table
from routestats.counts._plan import Hops
from routestats.counts._route_counts import RouteCounts
from routestats.counts.device.choice import choose_device, choose_threads
from routestats.counts.device.counts import new_path_counter
from routestats.counts.device.paths import fill_table
from routestats.shape import RouteShape

Ids = npt.NDArray[np.integer[Any]]


class LiveCounts:
    """Experts, pairs of experts and full paths of rows that come in small pieces.

    An engine also runs rows that a trace leaves out: drafts that are rejected, tokens run again
    after a preemption, steps past the end of a request. Which those are is known only later, on
    the host, so a row is counted when it has been let into the trace, and rows that wait for their
    confirmation are not counted yet.

    Rows whose ring still holds them are counted from the ring, and on ``cuda`` never leave the
    device for that: four bytes each say which ones they are. The others, mostly drafts that were
    confirmed a step later, are copied to the device, ``L * K`` ids each. Both are counted on a
    stream of its own, for which the calling thread waits; the engine's own thread and stream wait
    for nothing and launch nothing. Nothing of it has run on a GPU yet.

    Several threads may call.

    Parameters
    ----------
    shape : RouteShape
    hops : "all", int or iterable of int
        Of the pairs; the pairing is ``any``.
    layer_ids : sequence of int, optional
    paths : sequence of {"top1", "set"}
        Which full paths are counted, over all layers. Each keeps all its distinct paths in memory.
    device : {"cpu", "cuda"}
        ``cuda`` is the device that is current in the calling thread.

    Raises
    ------
    InvalidValueError
        If a hop does not exist.
    DeviceUnavailableError
        If the device is not there.
    """

    def __init__(
        self,
        shape: RouteShape,
        *,
        hops: Hops,
        layer_ids: Sequence[int] | None = None,
        paths: Sequence[PathKind] = (),
        device: str = "cpu",
    ) -> None:
        self.device = choose_device(device)
        self._shape = shape
        self._counts = RouteCounts.empty(shape, hops=hops, pairing="any", layer_ids=layer_ids)
        self._lock = threading.Lock()
        self._tokens = 0
        self._tables: dict[PathKind, _core.PathCounter] = {}
        self._on_device: dict[PathKind, Any] = {}
        if self.device == "cpu":
            self._tables = {kind: self._new_table(kind) for kind in paths}
            return
        from routestats import _cuda

        self._stream = _cuda.Stream()
        self._gather = _cuda.RowGather(self._stream)
        self._pairs = _cuda.PairCounter(
            layers=shape.num_layers,
            experts=shape.num_experts,
            slots=shape.top_k,
            layer_pairs=self._counts._plan.pairs,
            stream=self._stream,
        )
        self._on_device = {
            kind: new_path_counter(
                shape, kind=kind, start=0, length=shape.num_layers, stream=self._stream
            )
            for kind in paths
        }

    def add(self, experts: Ids) -> None:
        """Count rows that are kept, ``[rows, L, K]`` in the host's memory.

        Raises
        ------
        InvalidValueError
            If an id is not below E, or sets are counted and a row names an expert twice.
        DeviceError
            If the device fails.
        """
        with self._lock:
            if self.device == "cpu":
                self._add_on_host(experts)
            else:
                dense = np.ascontiguousarray(experts)
                for counter in self._counters_on_device():
                    counter.add_host(dense, first_token=self._tokens)
            self._tokens += len(experts)

    def add_held(self, ring: _core.CaptureTarget, rows: npt.NDArray[np.int64]) -> None:
        """Count rows that are kept and that `ring` still holds, where `device` is ``cuda``.

        When this returns the ring may have their slots back.

        Parameters
        ----------
        ring : _core.CaptureTarget
            In the memory of `device`.
        rows : ndarray of int64, shape [n]
            By their numbers, which count from the ring's first row.

        Raises
        ------
        InvalidValueError, DeviceError
            As `add`.
        """
        with self._lock:
            address, shape, strides, item_bytes = self._gather.gather(ring, rows)
            for counter in self._counters_on_device():
                counter.add(address, shape, strides, item_bytes, False, first_token=self._tokens)
            self._tokens += len(rows)

    def counts(self) -> RouteCounts:
        """Counts of the rows so far; a copy of them."""
        own = self._counts
        counts = RouteCounts.empty(
            self._shape, hops=own.hops, pairing="any", layer_ids=own.layer_ids
        )
        with self._lock:
            if self.device == "cpu":
                counts.update(own)
            else:
                self._pairs.read(counts._expert, counts._pairs)
                counts.tokens = self._tokens
            counts.device = self.device
        return counts

    def paths(self, kind: PathKind, top: int = 100) -> PathCounts:
        """Counts of the full paths so far; a copy of them.

        Raises
        ------
        KeyError
            If paths of that kind are not counted.
        """
        table, threads = self._new_table(kind), choose_threads(None)
        with self._lock:
            if self.device == "cpu":
                table.merge(self._tables[kind], threads=threads)
            else:
                found, counts = self._on_device[kind].read()
        if self.device != "cpu":
            fill_table(table, self._shape, 0, found, counts, threads=threads)
        return finish_paths(
            table,
            self._shape,
            self._counts.layer_ids,
            kind,
            0,
            self._shape.num_layers,
            top,
            device=self.device,
        )

    def _add_on_host(self, experts: Ids) -> None:
        # Sets first: they alone refuse an expert twice, and then nothing has been counted.
        for kind in sorted(self._tables):
            self._tables[kind].add(experts, threads=choose_threads(None), first_token=self._tokens)
        self._counts.update(experts, device="cpu")

    def _counters_on_device(self) -> list[Any]:
        """Sets first, as on the host."""
        return [*(self._on_device[kind] for kind in sorted(self._on_device)), self._pairs]

    def _new_table(self, kind: PathKind) -> _core.PathCounter:
        return new_table(self._shape, kind, 0, self._shape.num_layers)
