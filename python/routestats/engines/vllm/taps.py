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
from routestats.engines._forward_fault import ForwardFault
from routestats.engines._rings import Ring, host_ring
from routestats.engines.choice_check import Compared, Scores, agreement, near_ties_of
from routestats.engines.device_ring import DeviceMemory, DeviceRing, form_of
from routestats.engines.recorder_options import RecorderOptions
from routestats.shape import RouteShape

Ids = npt.NDArray[np.int32]


class Tap(Protocol):
    """Between the wrapped routers and the ring of the capture under way, which it owns.

    Nothing is raised inside the forward pass: an error there is kept in `fault`. One of a step
    fails the capture when the step is closed. One outside steps, where graphs are captured, is of
    every capture, and `begin` raises it.

    Attributes
    ----------
    fault : ForwardFault
    checked_layers : int
        How many layers of each step are compared with what their kernels chose.
    """

    checked_layers: int

    @property
    def fault(self) -> ForwardFault: ...

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        """Called by the router of each layer, also outside steps, with ``[rows, K]`` both."""

    def check(self, layer: int, ids: Any, theirs: Any, scores: Scores) -> None:
        """Called after `observe` where the kernel of a layer has told what it chose."""

    def begin(self, options: RecorderOptions) -> Ring:
        """A capture begins: make the ring that it is recorded into."""

    def end(self) -> None:
        """The capture is over: let go of its ring."""

    def open(self) -> None:
        """The routers' next calls belong to the ring's open step."""

    def close(self, rows: int) -> int:
        """The forward pass of a step of `rows` rows has returned.

        Returns the near ties of router and kernel in it, as far as the ring does not count them.
        """

    def take_inputs(self, rows: int, positions: Any, token_ids: Any) -> tuple[Ids, Ids] | None:
        """Positions and token ids of the step's rows, from buffers that the next step changes.

        None if they go into the ring, and come with the routing.
        """

    def abandon(self) -> None:
        """The forward pass failed."""


# The tap whose step is under way. Compiled code can refer to an operator by name alone, so it is a
# global; a process runs one step at a time.
_open: HostTap | None = None


def _write(layer: int, ids: Any, weights: Any) -> None:
    tap = _open
    if tap is None:
        return  # warm-up, profiling, or a step whose rows are dropped
    try:
        rows, id_type, weight_type = form_of(layer, ids, weights, tap.top_k)
        if not ids.is_contiguous() or not weights.is_contiguous():
            ids, weights = ids.contiguous(), weights.contiguous()
        tap.ring.write_layer_at(
            layer, ids.data_ptr(), id_type, weights.data_ptr(), weight_type, rows
        )
    except Exception as error:  # inside the forward pass
        tap.fault.keep(layer, error)


# torch.compile does not trace into an operator, as it would into the callback. The operator claims
# to change `ids`, which it only reads: otherwise torch.compile would leave it out as unused.
_library = torch.library.Library("routestats", "DEF")
_library.define("record(Tensor(a!) ids, Tensor weights, int layer) -> ()")
# Where nothing reads `ids` afterwards: it claims to change `value`, which something does read.
_library.define("recorded_before(Tensor(a!) value, Tensor ids) -> ()")


def _record_cpu(ids: Any, weights: Any, layer: int) -> None:
    _write(layer, ids, weights)


def _nothing(*arguments: Any) -> None:
    return None


_library.impl("record", _record_cpu, "CPU")
_library.impl("record", _nothing, "Meta")
_library.impl("recorded_before", _nothing, "CPU")
_library.impl("recorded_before", _nothing, "Meta")


def keep_record(value: Any, ids: Any) -> None:
    """In traced code: the record of `ids` is needed for `value`, which is not changed."""
    torch.ops.routestats.recorded_before(value, ids)


class _HostRingTap:
    """The part common to taps whose ring is in the host's memory."""

    def __init__(self, shape: RouteShape) -> None:
        self.fault = ForwardFault()
        self.checked_layers = 0
        self.top_k = shape.top_k
        self._shape = shape
        self._ring: CaptureRing | None = None

    @property
    def ring(self) -> CaptureRing:
        """The ring of the capture under way."""
        assert self._ring is not None
        return self._ring

    def begin(self, options: RecorderOptions) -> Ring:
        self.fault.check()
        self._ring = host_ring(self._shape, options)
        return self._ring

    def end(self) -> None:
        if self._ring is not None:
            self.fault.clear()  # it was of this capture
        self._ring = None

    def take_inputs(self, rows: int, positions: Any, token_ids: Any) -> tuple[Ids, Ids] | None:
        return _on_host(positions, rows), _on_host(token_ids, rows)


def _on_host(tensor: Any, rows: int) -> Ids:
    # A copy in any case: the runner writes its next step into the same buffer.
    host: Ids = tensor[:rows].cpu().numpy().astype(np.int32, copy=True)
    return host


class HostTap(_HostRingTap):
    """Routing computed on the CPU goes straight into the ring."""

    def __init__(self, shape: RouteShape) -> None:
        super().__init__(shape)
        self._compared: dict[int, tuple[Any, Any, Any]] = {}

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        if torch.compiler.is_compiling():
            torch.ops.routestats.record(ids, weights, layer)
        else:
            _write(layer, ids, weights)

    def check(self, layer: int, ids: Any, theirs: Any, scores: Scores) -> None:
        if _open is self:
            # A copy, because the next layer's kernel writes into the same buffer.
            self._compared[layer] = (agreement(ids, theirs, scores), ids, theirs.clone())

    def open(self) -> None:
        global _open
        _open = self
        self._compared = {}

    def close(self, rows: int) -> int:
        self.abandon()
        self.fault.check()
        compared = {layer: _compared(rows, *tensors) for layer, tensors in self._compared.items()}
        return near_ties_of(compared, self.checked_layers)

    def abandon(self) -> None:
        global _open
        _open = None


def _compared(rows: int, found: Any, ours: Any, theirs: Any) -> Compared:
    return found[:rows].numpy(), ours[:rows].numpy(), theirs[:rows].numpy()


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
        # What kernels chose, how it agrees, and for how many rows of each layer they have told it.
        self._theirs = torch.zeros(extents, dtype=torch.int16, device=device)
        self._agreement = torch.zeros(extents[:2], dtype=torch.uint8, device=device)
        self._told = torch.zeros_like(self._notes)

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        try:
            form_of(layer, ids, weights, self._shape.top_k)
            if ids.dtype == torch.int64:  # what int32 cannot hold must not become another expert
                ids = ids.clamp(-1, self._shape.num_experts)
            rows = min(ids.shape[0], self._ids.shape[1])
            self._ids[layer, :rows] = ids[:rows]
            self._weights[layer, :rows] = weights[:rows]
            self._notes[layer : layer + 1] += _ROUTED + ids.shape[0]
        except Exception as error:  # inside the forward pass
            self.fault.keep(layer, error)

    def check(self, layer: int, ids: Any, theirs: Any, scores: Scores) -> None:
        rows = min(theirs.shape[0], self._ids.shape[1])
        self._theirs[layer, :rows] = theirs[:rows]
        self._agreement[layer, :rows] = agreement(ids, theirs, scores)[:rows]
        self._told[layer].fill_(rows)

    def open(self) -> None:
        self._notes.zero_()
        self._told.zero_()

    def close(self, rows: int) -> int:
        self.fault.check()
        ids = self._ids[:, :rows].cpu().numpy()
        weights = self._weights[:, :rows].cpu().numpy()
        for layer, note in enumerate(self._notes.tolist()):
            times, routed = divmod(note, _ROUTED)
            for _ in range(min(times, 2)):  # the ring reports what is missing, short or twice there
                self.ring.write_layer(layer, ids[layer, :routed], weights[layer, :routed])
        if self.checked_layers == 0:
            return 0
        found = self._agreement[:, :rows].cpu().numpy()
        theirs = self._theirs[:, :rows].cpu().numpy()
        told = [layer for layer, count in enumerate(self._told.tolist()) if count >= rows]
        compared = {layer: (found[layer], ids[layer], theirs[layer]) for layer in told}
        return near_ties_of(compared, self.checked_layers)

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
        self.checked_layers = 0
        self._ring: DeviceRing | None = None

    @property
    def fault(self) -> ForwardFault:
        return self.memory.fault

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        self.memory.capture(layer, ids, weights)

    def check(self, layer: int, ids: Any, theirs: Any, scores: Scores) -> None:
        self.memory.check(layer, ids, theirs, scores)

    def begin(self, options: RecorderOptions) -> Ring:
        self.fault.check()
        self._ring = DeviceRing(
            self.memory,
            capacity=options.rows_of_ring(),
            weights=options.weights,
            block=options.policy == "block",
            checked_layers=self.checked_layers,
        )
        return self._ring

    def end(self) -> None:
        if self._ring is not None:
            self.fault.clear()  # it was of this capture
        self._ring = None

    def open(self) -> None:
        pass  # the ring's begin has said so on the device

    def close(self, rows: int) -> int:
        self.fault.check()
        return 0  # the ring's commit takes its place in the stream, and it counts

    def take_inputs(self, rows: int, positions: Any, token_ids: Any) -> tuple[Ids, Ids] | None:
        assert self._ring is not None
        self._ring.tag(positions, token_ids)
        return None

    def abandon(self) -> None:
        pass
