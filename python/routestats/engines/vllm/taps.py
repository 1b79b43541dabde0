"""How a routed layer's ids and weights get from the forward pass into the ring.

On the CPU they are written at once (`HostTap`). On a CUDA device kernels write them into a ring in
its memory, which another thread fetches (`DeviceTap`). On any other accelerator, and where those
kernels cannot run, the forward pass, which may be a replayed graph, copies them into staging
tensors, which are read after the step (`StagedTap`).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from routestats._core import CaptureRing
from routestats.engines._rings import Ring, host_ring
from routestats.engines.device_ring import ID_TYPES, WEIGHT_TYPES, DeviceMemory, DeviceRing
from routestats.engines.recorder_options import RecorderOptions
from routestats.errors import CaptureError
from routestats.shape import RouteShape

Ids = npt.NDArray[np.int32]


class Tap(Protocol):
    """Between the wrapped routers and the ring of the capture under way, which it owns."""

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        """Called by the router of each layer, also outside steps."""

    def begin(self, options: RecorderOptions) -> Ring:
        """A capture begins: make the ring that it is recorded into."""

    def end(self) -> None:
        """The capture is over: let go of its ring."""

    def open(self) -> None:
        """The routers' next calls belong to the ring's open step."""

    def close(self, rows: int) -> None:
        """The forward pass of a step of `rows` rows has returned."""

    def take_inputs(self, rows: int, positions: Any, token_ids: Any) -> tuple[Ids, Ids] | None:
        """Positions and token ids of the step's rows, from buffers that the next step changes.

        None if they go into the ring, and come with the routing.
        """

    def abandon(self) -> None:
        """The forward pass failed."""


# The ring of the step under way. Compiled code can refer to an operator by name alone, so it is a
# global; a process runs one step at a time.
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
        id_type, weight_type = ID_TYPES[ids.dtype], WEIGHT_TYPES[weights.dtype]
    except KeyError as error:
        raise CaptureError(f"MoE layer {layer}: {error} is no dtype of ids or weights") from None
    ring.write_layer_at(
        layer, ids.data_ptr(), id_type, weights.data_ptr(), weight_type, ids.shape[0]
    )


# torch.compile does not trace into an operator, as it would into the callback. The operator claims
# to change `ids`, which it only reads: otherwise torch.compile would leave it out as unused.
_library = torch.library.Library("routestats", "DEF")
_library.define("record(Tensor(a!) ids, Tensor weights, int layer) -> ()")


def _record_cpu(ids: Any, weights: Any, layer: int) -> None:
    _write(layer, ids, weights)


def _record_meta(ids: Any, weights: Any, layer: int) -> None:
    return None


_library.impl("record", _record_cpu, "CPU")
_library.impl("record", _record_meta, "Meta")


class _HostRingTap:
    """The part common to taps whose ring is in the host's memory."""

    def __init__(self, shape: RouteShape) -> None:
        self._shape = shape
        self._ring: CaptureRing | None = None

    def begin(self, options: RecorderOptions) -> Ring:
        self._ring = host_ring(self._shape, options)
        return self._ring

    def end(self) -> None:
        self._ring = None

    def take_inputs(self, rows: int, positions: Any, token_ids: Any) -> tuple[Ids, Ids] | None:
        return _on_host(positions, rows), _on_host(token_ids, rows)


def _on_host(tensor: Any, rows: int) -> Ids:
    # A copy in any case: the runner writes its next step into the same buffer.
    host: Ids = tensor[:rows].cpu().numpy().astype(np.int32, copy=True)
    return host


class HostTap(_HostRingTap):
    """Routing computed on the CPU goes straight into the ring."""

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        if torch.compiler.is_compiling():
            torch.ops.routestats.record(ids, weights, layer)
        else:
            _write(layer, ids, weights)

    def open(self) -> None:
        global _ring
        _ring = self._ring

    def close(self, rows: int) -> None:
        self.abandon()

    def abandon(self) -> None:
        global _ring
        _ring = None


class StagedTap(_HostRingTap):
    """Routing computed on an accelerator is staged there and fetched once per step.

    The copies are part of the graph that the model is captured into, so they also run on replay.
    With each of them goes a note of how often the layer was routed since the step began, and how
    many rows it had. The ring checks both, and the ids, when the step is fetched.
    """

    def __init__(self, shape: RouteShape, max_rows: int, device: Any) -> None:
        super().__init__(shape)
        extents = (shape.num_layers, max_rows, shape.top_k)
        self._ids = torch.zeros(extents, dtype=torch.int32, device=device)
        self._weights = torch.zeros(extents, dtype=torch.float32, device=device)
        self._notes = torch.zeros(shape.num_layers, dtype=torch.int64, device=device)
        self._misfits: dict[int, str] = {}

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        if (misfit := self._misfit_of(ids, weights)) is not None:
            self._misfits[layer] = misfit  # the engine goes on; the step tells
            return
        if ids.dtype == torch.int64:  # what int32 cannot hold must not come out as another expert
            ids = ids.clamp(-1, self._shape.num_experts)
        rows = min(ids.shape[0], self._ids.shape[1])
        self._ids[layer, :rows] = ids[:rows]
        self._weights[layer, :rows] = weights[:rows]
        self._notes[layer : layer + 1] += _ROUTED + ids.shape[0]

    def _misfit_of(self, ids: Any, weights: Any) -> str | None:
        if ids.shape[1] != self._shape.top_k:
            return f"expected {self._shape.top_k} experts per token, got {ids.shape[1]}"
        if ids.dtype not in ID_TYPES or weights.dtype not in WEIGHT_TYPES:
            return f"{ids.dtype} and {weights.dtype} are no dtypes of ids and weights"
        return None

    def open(self) -> None:
        self._notes.zero_()

    def close(self, rows: int) -> None:
        assert self._ring is not None
        ids = self._ids[:, :rows].cpu().numpy()
        weights = self._weights[:, :rows].cpu().numpy()
        for layer, note in enumerate(self._notes.tolist()):
            times, routed = divmod(note, _ROUTED)
            if times == 0 and layer in self._misfits:
                raise CaptureError(f"MoE layer {layer}: {self._misfits[layer]}")
            for _ in range(min(times, 2)):  # the ring reports what is missing, short or twice there
                self._ring.write_layer(layer, ids[layer, :routed], weights[layer, :routed])

    def abandon(self) -> None:
        pass  # the next step begins without notes


# In a note, one more call; below it the rows of all calls.
_ROUTED = 1 << 32


class DeviceTap:
    """Routing computed on a CUDA device goes into a ring in its memory, one kernel per layer.

    The kernels are part of the graph that the model is captured into. They read from the device's
    memory where to write and how many rows are real, as the ring's open step says. Outside a step
    they write nothing. Nothing here waits for the device.
    """

    def __init__(self, shape: RouteShape, rows: int, device: Any) -> None:
        self.memory = DeviceMemory(shape, rows, device)
        self._ring: DeviceRing | None = None

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        self.memory.capture(layer, ids, weights)

    def begin(self, options: RecorderOptions) -> Ring:
        self._ring = DeviceRing(
            self.memory,
            capacity=options.rows_of_ring(),
            weights=options.weights,
            block=options.policy == "block",
        )
        return self._ring

    def end(self) -> None:
        self._ring = None

    def open(self) -> None:
        pass  # the ring's begin has said so on the device

    def close(self, rows: int) -> None:
        pass  # the ring's commit takes its place in the stream

    def take_inputs(self, rows: int, positions: Any, token_ids: Any) -> tuple[Ids, Ids] | None:
        assert self._ring is not None
        self._ring.tag(positions, token_ids)
        return None

    def abandon(self) -> None:
        pass
