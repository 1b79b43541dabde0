"""What can be counted, brought to one form: a shape, layer numbers and chunks of ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from routestats.arguments import check_integer
from routestats.counts.device.counts import DeviceIds, as_device_ids, is_on_cuda
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.schema import RoutingBatch
from routestats.shape import RouteShape

Ids = npt.NDArray[np.integer[Any]]
CHUNK_ROWS = 65_536


@runtime_checkable
class ExpertSource(Protocol):
    """Rows of expert ids that come in chunks; `routestats.Trace` is one."""

    @property
    def shape(self) -> RouteShape: ...

    @property
    def layer_ids(self) -> Sequence[int]: ...

    def iter_experts(self, rows: int = ...) -> Iterator[Ids]:
        """Arrays of shape [t, L, K], t at most `rows`."""
        ...


Source = ExpertSource | RoutingBatch | npt.ArrayLike


@dataclass(frozen=True, slots=True)
class Chunks:
    """A source opened for counting.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int or None
        None where the source does not say.
    ordered : bool
        Whether slot 0 is known to be the choice of greatest weight.
    single : bool
        Whether there is exactly one chunk.
    on_cuda : bool
        Whether the chunks lie in a CUDA device's memory.
    chunks : iterator of ndarray or DeviceIds, each [t, L, K]
        Checked, and in the machine's byte order.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...] | None
    ordered: bool
    single: bool
    on_cuda: bool
    chunks: Iterator[Ids] | Iterator[DeviceIds]

    def on_host(self) -> Iterator[Ids]:
        """The chunks; `InvalidTypeError` if they lie in a device's memory."""
        for chunk in self.chunks:
            yield as_ids(chunk) if isinstance(chunk, DeviceIds) else chunk


def open_source(source: Source, num_experts: int | None) -> Chunks:
    """Open a trace, a batch or an array of ids.

    Raises
    ------
    InvalidTypeError
        If an array holds no integers, or there is no `num_experts` where one is needed.
    InvalidValueError
        If an array has not three dimensions, or `num_experts` is not that of the trace.
    """
    if num_experts is not None:
        num_experts = check_integer("num_experts", num_experts, 1)
    if isinstance(source, ExpertSource):
        shape = source.shape
        if num_experts is not None and num_experts != shape.num_experts:
            raise InvalidValueError(
                f"num_experts: the trace has {shape.num_experts}, got {num_experts}"
            )
        return Chunks(
            shape,
            tuple(int(i) for i in source.layer_ids),
            bool(getattr(source, "ordered", True)),
            False,
            False,
            (_checked(chunk, shape) for chunk in source.iter_experts(CHUNK_ROWS)),
        )
    if num_experts is None:
        raise InvalidTypeError(
            "num_experts: expected the number of experts, which only a trace states, got None"
        )
    if is_on_cuda(source):
        ids = as_device_ids(source)
        shape = RouteShape(ids.shape[1], num_experts, ids.shape[2])
        return Chunks(shape, None, True, True, True, iter([ids]))
    experts = as_ids(source.experts if isinstance(source, RoutingBatch) else source)
    shape = RouteShape(experts.shape[1], num_experts, experts.shape[2])
    return Chunks(shape, None, True, True, False, iter([experts]))


def _checked(chunk: npt.ArrayLike, shape: RouteShape) -> Ids:
    """A chunk of a source as an array of ids, whose shape is that of the source."""
    experts = as_ids(chunk)
    if experts.shape[1:] != (shape.num_layers, shape.top_k):
        raise InvalidValueError(
            f"experts: expected chunks of shape [t, {shape.num_layers}, {shape.top_k}], got "
            f"{list(experts.shape)}"
        )
    return experts


def as_ids(values: npt.ArrayLike | DeviceIds) -> Ids:
    """`values` as a [T, L, K] array of integers in the machine's byte order, not copied if it is.

    The core reads ids of one and two bytes as unsigned, in which -1 is the id 255. Where ids are
    negative they are widened, so that the core refuses them and names the place.

    Raises
    ------
    InvalidTypeError
        If it holds anything but integers, or lies in a device's memory.
    InvalidValueError
        If it has not three dimensions.
    """
    if isinstance(values, DeviceIds):
        raise InvalidTypeError(
            "experts: expected an array in the host's memory, got one in a CUDA device's"
        )
    try:
        experts = np.asarray(values)
    except ValueError:
        raise InvalidValueError(
            "experts: expected 3 dimensions [T, L, K], got rows of unequal lengths"
        ) from None
    if experts.dtype.kind not in "iu":
        raise InvalidTypeError(f"experts: expected an integer array, got {experts.dtype}")
    if experts.ndim != 3:
        raise InvalidValueError(f"experts: expected 3 dimensions [T, L, K], got {experts.ndim}")
    experts = experts.astype(experts.dtype.newbyteorder("="), copy=False)
    narrow = experts.dtype.kind == "i" and experts.itemsize <= 2
    if narrow and experts.size and experts.min() < 0:
        return experts.astype(np.int64)
    return experts
