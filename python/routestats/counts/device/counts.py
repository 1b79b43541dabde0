"""Counting in a CUDA device's memory. Nothing of it has run on a GPU yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape

Ids = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class DeviceIds:
    """An array of ids [T, L, K] in a CUDA device's memory, e.g. of torch or CuPy.

    Attributes
    ----------
    address : int
    shape : tuple of int
    strides : tuple of int
        In bytes.
    dtype : numpy.dtype
    stream : int or None
        Handle of a stream that may still be writing it.
    owner : object
        Kept alive for as long as this is.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    owner: Any

    def __len__(self) -> int:
        return self.shape[0]


def is_on_cuda(values: Any) -> bool:
    """Whether `values` is an array in a CUDA device's memory."""
    return hasattr(values, "__cuda_array_interface__")


def as_device_ids(values: Any) -> DeviceIds:
    """`values` by its CUDA array interface; nothing is copied.

    Raises
    ------
    InvalidTypeError
        If it holds anything but integers in the machine's byte order.
    InvalidValueError
        If it has not three dimensions.
    """
    interface = values.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    if dtype.kind not in "iu" or not dtype.isnative:
        raise InvalidTypeError(f"experts: expected an integer array, got {dtype}")
    shape = tuple(int(n) for n in interface["shape"])
    if len(shape) != 3:
        raise InvalidValueError(f"experts: expected 3 dimensions [T, L, K], got {len(shape)}")
    strides = interface.get("strides")
    if strides is None:
        dense = dtype.itemsize * np.cumprod((1, *shape[:0:-1]))
        strides = tuple(int(n) for n in dense[::-1])
    address = int(interface["data"][0] or 0)
    # A device faults on items that are not aligned, and its context does not survive that.
    if any(n % dtype.itemsize for n in (address, *strides)):
        raise InvalidValueError(
            f"experts: expected items of {dtype} at multiples of {dtype.itemsize} bytes, got "
            f"strides {tuple(strides)} from address {address} on"
        )
    return DeviceIds(address, shape, tuple(strides), dtype, interface.get("stream"), values)


def count_on_cuda(
    chunks: Iterable[Ids | DeviceIds],
    shape: RouteShape,
    *,
    slots: int,
    layer_pairs: Sequence[tuple[int, int]],
    expert: npt.NDArray[np.uint64],
    pairs: npt.NDArray[np.uint64],
    method: str | None = None,
) -> int:
    """Add the counts of all chunks to `expert` and `pairs`; returns the number of tokens.

    On an error nothing is added. Arrays in the device's memory are read in the order of the legacy
    default stream, which is torch's own by default. If an array names a stream (CuPy's do, torch's
    do not), it is read when the work on that stream is done.

    Raises
    ------
    InvalidValueError
        If an id is not below E; the first one is named.
    DeviceError
        If the device fails, e.g. has not the memory.
    """
    from routestats import _cuda

    counter = _cuda.PairCounter(
        layers=shape.num_layers, experts=shape.num_experts, slots=slots, layer_pairs=layer_pairs
    )
    tokens = _add_chunks(counter, chunks, method=method)
    counter.read(expert, pairs)
    return tokens


def count_paths_on_cuda(
    chunks: Iterable[Ids | DeviceIds],
    shape: RouteShape,
    *,
    kind: Literal["top1", "set"],
    start: int,
    length: int,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint64]]:
    """Distinct paths through layers ``start .. start + length - 1`` and how often each occurs.

    Arrays in the device's memory are read as by `count_on_cuda`.

    Returns
    -------
    paths : ndarray of uint8 or uint16, shape [n, length, 1] (``top1``) or [n, length, K] (``set``)
        In no particular order; ids of a set ascending.
    counts : ndarray of uint64, shape [n]

    Raises
    ------
    InvalidValueError
        If an id is not below E or a set path names an expert twice; the first one is named.
    DeviceError
        If the device fails, e.g. has not the memory.
    """
    counter = new_path_counter(shape, kind=kind, start=start, length=length)
    _add_chunks(counter, chunks)
    found: tuple[npt.NDArray[Any], npt.NDArray[np.uint64]] = counter.read()
    return found


def new_path_counter(
    shape: RouteShape,
    *,
    kind: Literal["top1", "set"],
    start: int,
    length: int,
    stream: Any = None,
) -> Any:
    """An empty ``_cuda.PathCounter`` on the current device; its table grows as it fills."""
    from routestats import _cuda

    return _cuda.PathCounter(
        first_layer=start,
        layers=length,
        slots=shape.top_k,
        experts=shape.num_experts,
        sets=kind == "set",
        expected_paths=1 << 16,
        stream=stream,
    )


def _add_chunks(counter: Any, chunks: Iterable[Ids | DeviceIds], **options: Any) -> int:
    """Give a counter all chunks, each from where it lies; returns the number of tokens."""
    tokens = 0
    for chunk in chunks:
        if isinstance(chunk, DeviceIds):
            counter.add(**_in_place(chunk), first_token=tokens, **options)
        else:
            counter.add_host(np.ascontiguousarray(chunk), first_token=tokens, **options)
        tokens += len(chunk)
    return tokens


def _in_place(ids: DeviceIds) -> dict[str, Any]:
    """Arguments by which a counter reads an array where it lies, on the current device."""
    from routestats import _cuda

    if len(ids) > 0:
        there, here = _cuda.device_of(ids.address), _cuda.current_device()
        if there != here:
            raise InvalidValueError(
                f"experts: lie on CUDA device {there}, but the current device is {here}"
            )
        if ids.stream is not None:
            _cuda.wait_for_stream(ids.stream)
    return {
        "address": ids.address,
        "shape": ids.shape,
        "strides": ids.strides,
        "item_bytes": ids.dtype.itemsize,
        "is_signed": ids.dtype.kind == "i",
    }
