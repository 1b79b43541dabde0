"""How a routed layer's ids and weights get from the model's forward pass into the ring.

On the CPU they are written at once (`HostTap`). On an accelerator the forward pass, which may be
a replayed graph, copies them into staging tensors, which are read after the step (`StagedTap`).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from routestats._core import CaptureRing, IdType, WeightType
from routestats.errors import CaptureError
from routestats.shape import RouteShape


class Tap(Protocol):
    """Between the wrapped routers and the ring of the step that is under way."""

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        """Called by the router of each layer, also outside steps."""

    def open(self, ring: CaptureRing) -> None:
        """The routers' next calls belong to the ring's open step."""

    def close(self, rows: int) -> None:
        """The forward pass of a step of `rows` rows has returned."""

    def abandon(self) -> None:
        """The forward pass failed."""


# The ring of the step under way in this process. Compiled code can only refer to an operator by
# name, and a process runs one step at a time, so there is one.
_ring: CaptureRing | None = None


def _write(layer: int, ids: Any, weights: Any) -> None:
    ring = _ring
    if ring is None:
        return  # warm-up, profiling, or a step whose rows are dropped
    if ids.shape[1] != ring.top_k:
        raise CaptureError(
            f"MoE layer {layer}: expected {ring.top_k} experts per token, got {ids.shape[1]}"
        )
    if not ids.is_contiguous() or not weights.is_contiguous():
        ids, weights = ids.contiguous(), weights.contiguous()
    try:
        id_type, weight_type = _ID_TYPES[ids.dtype], _WEIGHT_TYPES[weights.dtype]
    except KeyError as error:
        raise CaptureError(f"MoE layer {layer}: {error} is no dtype of ids or weights") from None
    ring.write_layer_at(
        layer, ids.data_ptr(), id_type, weights.data_ptr(), weight_type, ids.shape[0]
    )


_ID_TYPES = {torch.int32: IdType.int32, torch.int64: IdType.int64}
_WEIGHT_TYPES = {
    torch.float32: WeightType.float32,
    torch.float16: WeightType.float16,
    torch.bfloat16: WeightType.bfloat16,
}


# An operator is opaque to torch.compile, which would otherwise trace into the callback. It claims
# to change `ids`, which it only reads: that is what keeps it from being left out as unused.
_library = torch.library.Library("routestats", "DEF")
_library.define("record(Tensor(a!) ids, Tensor weights, int layer) -> ()")


def _record_cpu(ids: Any, weights: Any, layer: int) -> None:
    _write(layer, ids, weights)


def _record_meta(ids: Any, weights: Any, layer: int) -> None:
    return None


_library.impl("record", _record_cpu, "CPU")
_library.impl("record", _record_meta, "Meta")


class HostTap:
    """Routing computed on the CPU goes straight into the ring."""

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        if torch.compiler.is_compiling():
            torch.ops.routestats.record(ids, weights, layer)
        else:
            _write(layer, ids, weights)

    def open(self, ring: CaptureRing) -> None:
        global _ring
        _ring = ring

    def close(self, rows: int) -> None:
        self.abandon()

    def abandon(self) -> None:
        global _ring
        _ring = None


class StagedTap:
    """Routing computed on an accelerator is staged there and fetched once per step.

    The copies are part of whatever graph the model is captured into, so they run on replay too.
    Each layer's copy is stamped with the number of the step, which lies in a tensor that only the
    host changes: a layer whose stamp is old was not routed through the bound router.
    """

    def __init__(self, shape: RouteShape, max_rows: int, device: Any) -> None:
        extents = (shape.num_layers, max_rows, shape.top_k)
        self._ids = torch.zeros(extents, dtype=torch.int32, device=device)
        self._weights = torch.zeros(extents, dtype=torch.float32, device=device)
        self._stamps = torch.zeros(shape.num_layers, dtype=torch.int64, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._number = 0
        self._ring: CaptureRing | None = None

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        rows = min(ids.shape[0], self._ids.shape[1])
        self._ids[layer, :rows] = ids[:rows]
        self._weights[layer, :rows] = weights[:rows]
        self._stamps[layer : layer + 1] = self._step

    def open(self, ring: CaptureRing) -> None:
        self._ring = ring
        self._number += 1
        self._step.fill_(self._number)

    def close(self, rows: int) -> None:
        ring, self._ring = self._ring, None
        if ring is None:
            return
        ids = self._ids[:, :rows].cpu().numpy()
        weights = self._weights[:, :rows].cpu().numpy()
        for layer, stamp in enumerate(self._stamps.tolist()):
            if stamp == self._number:  # the ring itself reports the layers that are missing
                ring.write_layer(layer, ids[layer], weights[layer])

    def abandon(self) -> None:
        self._ring = None
