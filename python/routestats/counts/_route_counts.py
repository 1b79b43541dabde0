"""`RouteCounts`: the counts themselves, and how they are added up."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from routestats import _core
from routestats.arguments import check_integers
from routestats.counts import _file
from routestats.counts._plan import Hops, Pairing, PairPlan, check_hops, check_pairing
from routestats.counts._source import Chunks, Ids, Source, open_source
from routestats.counts.device.choice import choose_device, choose_threads
from routestats.counts.device.counts import count_on_cuda
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape

Counts = npt.NDArray[np.uint64]


class RouteCounts:
    """Exact counts of experts and of pairs of experts; made by `count`, `empty` or `load`.

    Counts of parts of the data add up, in any order, to the counts of the whole.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
        Decoder-layer number of each MoE layer.
    pairing : {"any", "top1"}
        Whether all K x K pairs of slots are counted, or slot 0 with slot 0.
    hops : tuple of int
        Distances between layers that are counted; 0 is co-activation within a layer.
    tokens : int
        Tokens T counted so far.
    device : str
        Where they were counted last: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        shape: RouteShape,
        *,
        hops: Hops,
        pairing: str,
        layer_ids: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(shape, RouteShape):
            raise InvalidTypeError(f"shape: expected a RouteShape, got {shape!r}")
        self.shape = shape
        self.pairing: Pairing = check_pairing(pairing)
        self.layer_ids = (
            tuple(range(shape.num_layers))
            if layer_ids is None
            else check_integers("layer_ids", layer_ids, 0)
        )
        if len(self.layer_ids) != shape.num_layers:
            raise InvalidValueError(
                f"layer_ids: expected {shape.num_layers} numbers, got {len(self.layer_ids)}"
            )
        self.tokens = 0
        self.device = "cpu"
        self._plan = PairPlan(check_hops(hops, shape.num_layers), shape.num_layers)
        experts = shape.num_experts
        self._expert: Counts = np.zeros((shape.num_layers, experts), np.uint64)
        self._pairs: Counts = np.zeros((len(self._plan.pairs), experts, experts), np.uint64)

    @classmethod
    def empty(
        cls,
        shape: RouteShape,
        *,
        hops: Hops,
        pairing: str,
        layer_ids: Sequence[int] | None = None,
    ) -> RouteCounts:
        """Counts of no tokens, to `update`.

        Parameters
        ----------
        shape : RouteShape
        hops : "all", int or iterable of int
        pairing : {"any", "top1"}
        layer_ids : sequence of int, length L, optional
            By default 0..L-1.

        Raises
        ------
        InvalidTypeError, InvalidValueError
            If a hop or the pairing does not exist, or `layer_ids` has another length.
        """
        return cls(shape, hops=hops, pairing=pairing, layer_ids=layer_ids)

    @property
    def hops(self) -> tuple[int, ...]:
        return self._plan.hops

    @property
    def expert(self) -> Counts:
        """Slots that hold each expert, a read-only view of shape [L, E] that follows updates.

        Over the slots of the pairing: rows sum to T * K for ``any`` and to T for ``top1``.
        """
        return _read_only(self._expert)

    def pair(self, src: int, dst: int) -> Counts:
        """Pairs of slots that hold (e at `src`, f at `dst`), of shape [E, E].

        A read-only view that follows updates. It sums to T * K^2 for ``any`` and to T for
        ``top1``; ``src > dst`` gives the transpose of ``pair(dst, src)``.

        Raises
        ------
        InvalidTypeError
            If a layer is no integer.
        InvalidValueError
            If a layer is outside 0..L-1, or the hop between them was not counted.
        """
        src, dst = self._layer("src", src), self._layer("dst", dst)
        tile = self._pairs[self._plan.place(min(src, dst), max(src, dst))]
        return _read_only(tile if src <= dst else tile.T)

    def _layer(self, name: str, layer: int) -> int:
        try:
            index = operator.index(layer)
        except TypeError:
            index = None
        if index is None or isinstance(layer, (bool, np.bool_)):
            raise InvalidTypeError(f"{name}: expected a layer number, got {layer!r}")
        if not 0 <= index < self.shape.num_layers:
            raise InvalidValueError(
                f"{name}: expected a layer from 0 to {self.shape.num_layers - 1}, got {index}"
            )
        return index

    def update(
        self, more: RouteCounts | Source, *, device: str = "auto", threads: int | None = None
    ) -> None:
        """Add other counts, or count more tokens; on an error nothing is added.

        Parameters
        ----------
        more : RouteCounts, Trace, RoutingBatch or array of integers, shape [T, L, K]
            Of the same shape; counts must also have the same hops and pairing.
        device : {"auto", "cpu", "cuda"}
            As for `count`.
        threads : int, optional
            By default one for each CPU that this process may use.

        Raises
        ------
        InvalidTypeError
            If an array holds no integers.
        InvalidValueError
            If the shapes, layer numbers, hops or pairings differ, an id is not below E, or the
            pairing is ``top1`` and the order of the slots is not known.
        DeviceUnavailableError
            If the device is not there.
        """
        if isinstance(more, RouteCounts):
            self._merge(more)
            return
        # Only a trace states its own number of experts.
        stated = None if hasattr(more, "iter_experts") else self.shape.num_experts
        opened = open_source(more, stated)
        # A single array is checked as a whole before anything is added; of several chunks a later
        # one may fail, so they are counted apart.
        if opened.single:
            self._add(opened, device=device, threads=threads)
            return
        part = RouteCounts.empty(
            self.shape, hops=self.hops, pairing=self.pairing, layer_ids=self.layer_ids
        )
        part._add(opened, device=device, threads=threads)
        self._merge(part)

    def _add(self, opened: Chunks, *, device: str, threads: int | None) -> None:
        chosen_device = choose_device(device, data_on_cuda=opened.on_cuda)
        chosen_threads = choose_threads(threads)
        self._check_source(opened)
        if chosen_device == "cuda":
            self.tokens += count_on_cuda(
                opened.chunks,
                self.shape,
                slots=self._counted_slots,
                layer_pairs=self._plan.pairs,
                expert=self._expert,
                pairs=self._pairs,
            )
        else:
            self._count_chunks(opened, chosen_threads)
        self.device = chosen_device

    @property
    def _counted_slots(self) -> int:
        return 1 if self.pairing == "top1" else self.shape.top_k

    def _count_chunks(self, opened: Chunks, threads: int) -> None:
        first_token = 0
        for experts in opened.on_host():
            self._count_array(experts, threads, first_token)
            first_token += len(experts)
            self.tokens += len(experts)

    def _add_rows(
        self, experts: Ids, row_order: npt.NDArray[np.uint32], *, threads: int | None
    ) -> None:
        """Count row ``row_order[l, n]`` as token n of layer l; for `recount`."""
        self._count_array(experts, choose_threads(threads), 0, row_order)
        self.tokens += row_order.shape[1]

    def _count_array(
        self,
        experts: Ids,
        threads: int,
        first_token: int,
        row_order: npt.NDArray[np.uint32] | None = None,
    ) -> None:
        _core.count_pairs(
            experts,
            num_experts=self.shape.num_experts,
            counted_slots=self._counted_slots,
            layer_pairs=self._plan.pairs,
            expert=self._expert,
            pairs=self._pairs,
            threads=threads,
            first_token=first_token,
            row_order=row_order,
        )

    def _check_source(self, opened: Chunks) -> None:
        if opened.shape != self.shape:
            raise InvalidValueError(f"shape: expected {self.shape}, got {opened.shape}")
        if opened.layer_ids is not None and opened.layer_ids != self.layer_ids:
            raise InvalidValueError(f"layer_ids: expected {self.layer_ids}, got {opened.layer_ids}")
        if self.pairing == "top1" and not opened.ordered:
            raise InvalidValueError(
                "pairing: 'top1' needs slots in descending order of weight, but the trace does "
                "not say that they are"
            )

    def _merge(self, other: RouteCounts) -> None:
        for name in ("shape", "layer_ids", "pairing", "hops"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise InvalidValueError(f"{name}: expected {mine} as in the sum, got {theirs}")
        self._expert += other._expert
        self._pairs += other._pairs
        self.tokens += other.tokens

    def __add__(self, other: object) -> RouteCounts:
        if not isinstance(other, RouteCounts):
            return NotImplemented
        total = RouteCounts.empty(
            self.shape, hops=self.hops, pairing=self.pairing, layer_ids=self.layer_ids
        )
        total._merge(self)
        total._merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RouteCounts):
            return NotImplemented
        return (
            self.shape == other.shape
            and self.layer_ids == other.layer_ids
            and self.pairing == other.pairing
            and self.hops == other.hops
            and self.tokens == other.tokens
            and np.array_equal(self._expert, other._expert)
            and np.array_equal(self._pairs, other._pairs)
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return (
            f"RouteCounts({self.shape}, {self.tokens} tokens, pairing {self.pairing!r}, "
            f"{len(self.hops)} hops)"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the counts to one file (NumPy's ``.npz``), which appears whole or not at all.

        Raises
        ------
        TraceError
            If it cannot be written.
        """
        _file.save(
            path,
            _file.Stored(
                self.shape,
                self.layer_ids,
                self.pairing,
                self.hops,
                self.tokens,
                self._expert,
                self._pairs,
            ),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RouteCounts:
        """Read what `save` wrote.

        Raises
        ------
        TraceError
            If the file is absent, damaged, of another kind or of a newer format.
        """
        stored = _file.load(path)
        counts = cls(
            stored.shape, hops=stored.hops, pairing=stored.pairing, layer_ids=stored.layer_ids
        )
        counts.tokens = stored.tokens
        counts._expert[:] = stored.expert
        counts._pairs[:] = stored.pairs
        return counts


def _read_only(table: Counts) -> Counts:
    view = table.view()
    view.flags.writeable = False
    return view
