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
    """An array of ids [T, L, K] in a CUDA device's memory, of torch, CuPy or whoever else says so.

    Attributes
    ----------
    address : int
    shape : tuple of int
    strides : tuple of int
        In bytes.
    dtype : numpy.dtype
    owner : object
        Kept alive for as long as this is.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
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
    return DeviceIds(int(interface["data"][0] or 0), shape, tuple(strides), dtype, values)


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

    On an error nothing is added. Arrays in the device's memory must be complete: they are read in
    the order of the legacy default stream, which torch and CuPy use unless told otherwise.

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
    tokens = 0
    for chunk in chunks:
        if isinstance(chunk, DeviceIds):
            _check_device(chunk)
            counter.add(
                chunk.address,
                (chunk.shape[0], chunk.shape[1], chunk.shape[2]),
                (chunk.strides[0], chunk.strides[1], chunk.strides[2]),
                item_bytes=chunk.dtype.itemsize,
                is_signed=chunk.dtype.kind == "i",
                first_token=tokens,
                method=method,
            )
        else:
            counter.add_host(np.ascontiguousarray(chunk), first_token=tokens)
        tokens += len(chunk)
    counter.read(expert, pairs)
    return tokens


def count_paths_on_cuda(
    ids: DeviceIds,
    shape: RouteShape,
    *,
    kind: Literal["top1", "set"],
    start: int = 0,
    length: int | None = None,
) -> tuple[Ids, npt.NDArray[np.uint64]]:
    """Distinct paths through layers ``start .. start + length - 1`` and how often each occurs.

    Returns
    -------
    paths : ndarray, shape [n, length] (``top1``) or [n, length, K] (``set``, ids ascending)
    counts : ndarray of uint64, shape [n]
        Descending; paths with equal counts in lexicographic order.

    Raises
    ------
    InvalidValueError
        If an id is not below E, a set path names an expert twice, or there are no such layers.
    DeviceError
        If the device fails, e.g. has not the memory.
    """
    from routestats import _cuda

    layers = shape.num_layers - start if length is None else length
    if not (start >= 0 and 1 <= layers <= shape.num_layers - start):
        raise InvalidValueError(
            f"start, length: expected layers within 0 to {shape.num_layers - 1}, "
            f"got {layers} from {start} on"
        )
    _check_device(ids)
    counter = _cuda.PathCounter(
        first_layer=start,
        layers=layers,
        slots=1 if kind == "top1" else shape.top_k,
        id_bytes=shape.id_dtype.itemsize,
        expected_paths=min(len(ids), 1 << 20),
    )
    sets = counter.add(
        ids.address,
        (ids.shape[0], ids.shape[1], ids.shape[2]),
        (ids.strides[0], ids.strides[1], ids.strides[2]),
        item_bytes=ids.dtype.itemsize,
        is_signed=ids.dtype.kind == "i",
        experts=shape.num_experts,
    )
    if kind == "set" and not sets:
        raise InvalidValueError(
            "experts: expected sets, got an expert twice at one layer of a token"
        )
    paths, counts = counter.read()
    columns = paths.reshape(len(paths), -1).T
    order = np.lexsort((*columns[::-1], -counts.astype(np.int64)))
    paths = paths[order, :, 0] if kind == "top1" else paths[order]
    return paths, counts[order]


def _check_device(ids: DeviceIds) -> None:
    from routestats import _cuda

    if len(ids) == 0:
        return
    there, here = _cuda.device_of(ids.address), _cuda.current_device()
    if there != here:
        raise InvalidValueError(
            f"experts: lie on CUDA device {there}, but the current device is {here}"
        )
