"""Where counting runs and on how many threads."""

from __future__ import annotations

import os

from routestats.errors import DeviceUnavailableError, InvalidTypeError, InvalidValueError


def choose_device(device: str) -> str:
    """The device that ``auto``, ``cpu`` or ``cuda`` stands for here.

    Raises
    ------
    DeviceUnavailableError
        For ``cuda``: this version counts on the CPU only.
    InvalidValueError
        For any other name.
    """
    if device in ("auto", "cpu"):
        return "cpu"
    if device == "cuda":
        raise DeviceUnavailableError("device: 'cuda' was asked for, but this build has no CUDA")
    raise InvalidValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {device!r}")


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
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise InvalidTypeError(f"threads: expected an integer, got {threads!r}")
    if threads < 1:
        raise InvalidValueError(f"threads: expected at least 1, got {threads}")
    return threads
