"""`count`: counts of a trace, a batch or an array."""

from __future__ import annotations

from routestats.counts._plan import Hops
from routestats.counts._route_counts import RouteCounts
from routestats.counts._source import Source, open_source


def count(
    source: Source,
    *,
    hops: Hops = "all",
    pairing: str = "any",
    num_experts: int | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> RouteCounts:
    """Count experts and pairs of experts, exactly, in bounded memory.

    Parameters
    ----------
    source : Trace, RoutingBatch or array of integers, shape [T, L, K]
        Expert ids. An array may have any integer dtype and any strides; slot 0 must be the choice
        of greatest weight if `pairing` is ``top1``. It may lie in a CUDA device's memory (torch,
        CuPy, whatever has ``__cuda_array_interface__``).
    hops : "all", int or iterable of int
        Distances between layers, 0..L-1; 0 is co-activation within a layer.
    pairing : {"any", "top1"}
        All K x K pairs of slots, or slot 0 with slot 0.
    num_experts : int, optional
        Experts E per layer; needed unless `source` is a trace.
    device : {"auto", "cpu", "cuda"}
        ``auto`` counts where the data are; the result's ``device`` says where that was. ``cuda``
        has not run on a GPU yet.
    threads : int, optional
        By default one for each CPU that this process may use.

    Returns
    -------
    RouteCounts

    Raises
    ------
    InvalidTypeError
        If an array holds no integers, or `num_experts` is missing.
    InvalidValueError
        If an id is not below E (the first one is named), the array has not three dimensions, a hop
        or the pairing does not exist, or the pairing is ``top1`` and the trace does not know the
        order of its slots.
    DeviceUnavailableError
        If the device is not there.

    Examples
    --------
    >>> counts = count(np.array([[[0, 1], [2, 0]]]), num_experts=4)
    >>> counts.pair(0, 1)[1, 2]
    1
    """
    opened = open_source(source, num_experts)
    counts = RouteCounts.empty(opened.shape, hops=hops, pairing=pairing, layer_ids=opened.layer_ids)
    counts._add(opened, device=device, threads=threads)
    return counts
