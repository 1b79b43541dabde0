"""The capture ring in a device's memory: torch owns it, kernels write it, the host drains it.

Nothing has run on a GPU yet. What decides where a row goes is the same C++ for host and device; the
tests run it on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch

from routestats._core import CaptureTarget, IdType, RouterScores, WeightType, control_words
from routestats.engines._forward_fault import ForwardFault
from routestats.engines.choice_check import Scores
from routestats.errors import CaptureError
from routestats.shape import RouteShape

ID_TYPES = {
    torch.int16: IdType.int16,
    torch.int32: IdType.int32,
    torch.int64: IdType.int64,
    torch.uint32: IdType.uint32,
}
WEIGHT_TYPES = {
    torch.float32: WeightType.float32,
    torch.float16: WeightType.float16,
    torch.bfloat16: WeightType.bfloat16,
}


def _cuda_kernels() -> Any:
    from routestats import _cuda

    return _cuda


KERNELS: dict[str, Callable[[], Any]] = {"cuda": _cuda_kernels}
"""By type of device, the module with its `StepRing` and kernels. Tests add an emulated device."""


def form_of(layer: int, ids: Any, weights: Any, top_k: int) -> tuple[int, IdType, WeightType]:
    """Rows and number formats of what a router chose, ``[rows, K]`` both.

    Raises
    ------
    CaptureError
        If their shapes or dtypes are others.
    """
    shape, of_weights = ids.shape, weights.shape  # asked once: this runs for every layer
    if len(shape) != 2 or shape[1] != top_k:
        got = shape[1] if len(shape) == 2 else list(shape)
        raise CaptureError(f"MoE layer {layer}: expected {top_k} experts per token, got {got}")
    if of_weights != shape:
        raise CaptureError(
            f"MoE layer {layer}: expected weights {list(shape)}, got {list(of_weights)}"
        )
    try:
        return shape[0], ID_TYPES[ids.dtype], WEIGHT_TYPES[weights.dtype]
    except KeyError:
        raise CaptureError(
            f"MoE layer {layer}: {ids.dtype} and {weights.dtype} are no dtypes of ids and weights"
        ) from None


def _kernels(device: Any) -> Any:
    if device.type not in KERNELS:
        raise CaptureError(f"device: expected one of {', '.join(KERNELS)}, got {device.type}")
    return KERNELS[device.type]()


class DeviceMemory:
    """Memory of a ring of `capacity` rows on a torch device.

    Captured graphs and compiled code keep its addresses, so it lives as long as they do; rings
    over it come and go.

    Attributes
    ----------
    ids : tensor of uint8, shape [capacity * L * K * bytes per id]
        Ids of one or two bytes, as bytes.
    weights : tensor of float16, shape [capacity * L * K]
    tags : tensor of int32, shape [capacity, 2]
        Position and token id of each row.
    control : tensor of int64
        Which step is open, and its stamps and faults.
    fault : ForwardFault
        What went wrong where nothing may be raised.
    """

    def __init__(self, shape: RouteShape, capacity: int, device: Any) -> None:
        self.shape, self.capacity, self.device = shape, capacity, torch.device(device)
        _kernels(self.device).load_capture_kernels()  # where they do not run, nothing is allocated
        items = capacity * shape.row_width
        self.ids = torch.zeros(items * shape.id_dtype.itemsize, dtype=torch.uint8, device=device)
        self.weights = torch.zeros(items, dtype=torch.float16, device=device)
        self.tags = torch.zeros((capacity, 2), dtype=torch.int32, device=device)
        # All ones: no stamp is of any step, and no step is open.
        self.control = torch.full(
            (control_words(shape.num_layers, shape.top_k),), -1, dtype=torch.int64, device=device
        )
        self.control[1] = 0
        self.target = CaptureTarget(
            control=self.control.data_ptr(),
            ids=self.ids.data_ptr(),
            weights=self.weights.data_ptr(),
            tags=self.tags.data_ptr(),
            capacity=capacity,
            layers=shape.num_layers,
            experts=shape.num_experts,
            top_k=shape.top_k,
        )
        self.fault = ForwardFault()
        _memories[self.control.data_ptr()] = self

    def capture(self, layer: int, ids: Any, weights: Any) -> None:
        """Write what the router of `layer` chose, ``[rows, K]``, into the open step, if one is.

        Works inside a CUDA graph and compiled code. Errors are kept in `fault`.
        """
        torch.ops.routestats.capture(
            ids,
            weights,
            self.ids,
            self.weights,
            self.control,
            layer,
            self.capacity,
            self.shape.num_layers,
            self.shape.num_experts,
            self.shape.top_k,
        )

    def check(self, layer: int, ids: Any, theirs: Any, scores: Scores) -> None:
        """Compare what the router of `layer` chose in the open step with what its kernel chose.

        Works inside a CUDA graph. `ids` are what `capture` was given; both are ``[rows, K]``.
        """
        logits, bias = scores.logits.contiguous(), scores.bias
        bias = logits[:0] if bias is None else bias.contiguous()
        expected = {"logits": (len(ids), self.shape.num_experts), "choice": tuple(ids.shape)}
        for name, tensor in (("logits", logits), ("choice", theirs)):
            if tuple(tensor.shape) != expected[name]:
                raise CaptureError(
                    f"MoE layer {layer}: its kernel's {name}: expected {list(expected[name])}, "
                    f"got {list(tensor.shape)}"
                )
        ids, theirs = ids.contiguous(), theirs.contiguous()
        of_layer = RouterScores(
            logits=logits.data_ptr(),
            logit_type=WEIGHT_TYPES[logits.dtype],
            bias=0 if scores.bias is None else bias.data_ptr(),
            bias_type=WEIGHT_TYPES[bias.dtype],
            sigmoid=scores.sigmoid,
            experts=self.shape.num_experts,
            groups=scores.groups,
            chosen_groups=scores.chosen_groups,
            unit=scores.unit,
        )
        types = ID_TYPES[ids.dtype], ID_TYPES[theirs.dtype]
        arguments = (ids.data_ptr(), types[0], theirs.data_ptr(), types[1], len(ids), of_layer)
        _kernels(self.device).compare(self.target, layer, *arguments, _stream(self.device))


# By the address of their control words, because an operator is given tensors alone.
_memories: WeakValueDictionary[int, DeviceMemory] = WeakValueDictionary()


class DeviceRing:
    """`CaptureRing` for routing that is computed on a device.

    The engine's calls put work into its current stream and return; none waits for the device. A
    step that is incomplete or invalid is found when it is drained.

    Parameters
    ----------
    memory : DeviceMemory
    capacity : int
        Rows in use at once, at most the memory's.
    weights : bool
        Whether weights travel to the host, too.
    block : bool
        When the ring is full: wait before the step, or drop its rows and count them.
    checked_layers : int
        How many layers of a step are compared with the choice of their kernel.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        *,
        capacity: int,
        weights: bool,
        block: bool,
        checked_layers: int = 0,
    ) -> None:
        if capacity > memory.capacity:
            raise CaptureError(
                f"ring_rows: the ring on the device was made with {memory.capacity} rows when the "
                f"engine started; expected at most that, got {capacity}"
            )
        self._memory = memory
        self._ring = _kernels(memory.device).StepRing(
            memory.target,
            capacity=capacity,
            weights=weights,
            block=block,
            checked_layers=checked_layers,
        )
        self._inputs: tuple[Any, Any] | None = None

    def begin_step(self, rows: int) -> bool:
        return bool(self._ring.begin_step(rows, _stream(self._memory.device)))

    def tag(self, positions: Any, token_ids: Any) -> None:
        """The open step's rows: device tensors ``[at least rows]``, read in stream order."""
        for name, tensor in (("positions", positions), ("token_ids", token_ids)):
            if tensor.device.type != self._memory.device.type:
                raise CaptureError(
                    f"{name}: expected a tensor on {self._memory.device}, got {tensor.device}"
                )
            if tensor.ndim != 1 or not tensor.is_contiguous() or tensor.dtype not in ID_TYPES:
                raise CaptureError(
                    f"{name}: expected one dense dimension of int32 or int64, got "
                    f"{tensor.dtype} {list(tensor.shape)}"
                )
        self._inputs = (positions, token_ids)

    def commit_step(self) -> int:
        if self._inputs is None:
            raise CaptureError("step: its positions and token ids are not known")
        (positions, token_ids), self._inputs = self._inputs, None
        number: int = self._ring.commit_step(
            positions.data_ptr(),
            ID_TYPES[positions.dtype],
            token_ids.data_ptr(),
            ID_TYPES[token_ids.dtype],
            _stream(self._memory.device),
        )
        return number

    def abandon_step(self) -> None:
        self._inputs = None
        self._ring.abandon_step(_stream(self._memory.device))

    def drain(self, *, max_rows: int, wait_rows: int, seconds: float) -> Any:
        """As `CaptureRing.drain`, and int32 ``[rows, 2]``: position and token id of each row.

        The device's memory holds the rows until `release`, or until the next call.
        """
        return self._ring.drain(max_rows=max_rows, wait_rows=wait_rows, seconds=seconds)

    def release(self) -> None:
        """Give the slots of the rows that the last `drain` gave to new ones."""
        self._ring.release()

    @property
    def device(self) -> str:
        """Type of the device that holds the rows, as torch names it."""
        return str(self._memory.device.type)

    @property
    def target(self) -> CaptureTarget:
        """Where the rows lie."""
        return self._memory.target

    def close(self) -> None:
        self._ring.close()

    def fail(self, reason: str) -> None:
        self._ring.fail(reason)

    @property
    def memory_bytes(self) -> int:
        """Memory on the device; its mirror in the host's takes as much."""
        memory = self._memory
        parts = (memory.ids, memory.weights, memory.tags, memory.control)
        return sum(int(part.nbytes) for part in parts)

    @property
    def near_ties(self) -> int:
        """Choices in which router and kernel differ, but only within rounding."""
        return int(self._ring.near_ties)

    @property
    def step_open(self) -> bool:
        return bool(self._ring.step_open)

    @property
    def dropped_rows(self) -> int:
        return int(self._ring.dropped_rows)

    @property
    def dropped_steps(self) -> int:
        return int(self._ring.dropped_steps)

    @property
    def committed_rows(self) -> int:
        return int(self._ring.committed_rows)


def _stream(device: Any) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0


# The arguments that the kernel writes are declared, so that torch.compile keeps the call, keeps it
# in order, and makes no copy of the ring.
_library = torch.library.Library("routestats", "FRAGMENT")
_library.define(
    "capture(Tensor ids, Tensor weights, Tensor(a!) ring_ids, Tensor(b!) ring_weights, "
    "Tensor(c!) control, int layer, int capacity, int layers, int experts, int top_k) -> ()"
)


def _launch(
    ids: Any, weights: Any, ring_ids: Any, ring_weights: Any, control: Any, layer: int, *sizes: int
) -> None:
    try:
        _capture(ids, weights, ring_ids, ring_weights, control, layer, *sizes)
    except Exception as error:  # inside the forward pass
        _memories[control.data_ptr()].fault.keep(layer, error)


def _capture(
    ids: Any,
    weights: Any,
    ring_ids: Any,
    ring_weights: Any,
    control: Any,
    layer: int,
    capacity: int,
    layers: int,
    experts: int,
    top_k: int,
) -> None:
    rows, id_type, weight_type = form_of(layer, ids, weights, top_k)
    ids, weights = ids.contiguous(), weights.contiguous()
    target = CaptureTarget(
        control=control.data_ptr(),
        ids=ring_ids.data_ptr(),
        weights=ring_weights.data_ptr(),
        tags=0,
        capacity=capacity,
        layers=layers,
        experts=experts,
        top_k=top_k,
    )
    arguments = (ids.data_ptr(), id_type, weights.data_ptr(), weight_type, rows)
    _kernels(ids.device).capture(target, layer, *arguments, _stream(ids.device))


def _nothing(*arguments: Any) -> None:
    return None


_library.impl("capture", _launch, "CPU")
_library.impl("capture", _launch, "CUDA")
_library.impl("capture", _nothing, "Meta")
