"""Where counting runs and on how many threads."""

from __future__ import annotations

import os

from routestats import _core
from routestats.arguments import MOST, check_choice, check_integer
from routestats.errors import DeviceUnavailableError, InvalidTypeError


def choose_device(device: str, *, data_on_cuda: bool = False) -> str:
    """The device that ``auto``, ``cpu`` or ``cuda`` stands for: ``cpu`` or ``cuda``.

    ``auto`` counts where the data are: an array in a CUDA device's memory on that device, or not at
    all where this build or machine cannot; everything else, so also a trace, on the CPU. Nothing
    is copied to a device, or from one, unless the device is asked for by name.

    Raises
    ------
    DeviceUnavailableError
        For ``cuda``, where it is not there; the message says why.
    InvalidTypeError
        For ``cpu``, if the data are in a CUDA device's memory.
    InvalidValueError
        For any other name.
    """
    check_choice("device", device, ("auto", "cpu", "cuda"))
    if device == "cpu" and data_on_cuda:
        raise InvalidTypeError(
            "experts: expected an array in the host's memory for device 'cpu', got one in a CUDA "
            "device's"
        )
    if device == "cuda" or data_on_cuda:
        reason = why_no_cuda()
        if reason is not None:
            raise DeviceUnavailableError(f"device: 'cuda' was asked for, but {reason}")
        return "cuda"
    return "cpu"


def why_no_cuda() -> str | None:
    """Say why nothing can be counted or captured on a CUDA device here.

    Returns
    -------
    str or None
        The reason; None if it can.
    """
    try:
        from routestats import _cuda
    except ImportError:
        return f"this build of routestats has no CUDA kernels: {_core.build_info()['cuda_reason']}"
    return _cuda.why_unavailable()


def choose_threads(threads: int | None) -> int:
    """`threads`, by default the number of CPUs that this process may use.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If it is no integer or below 1.
    """
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    return check_integer("threads", threads, 1, MOST)
