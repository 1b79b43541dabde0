"""Where counting runs and on how many threads."""

from __future__ import annotations

import os
import re
from typing import Any

from routestats import _core
from routestats.arguments import MOST, check_choice, check_integer
from routestats.errors import DeviceError, DeviceUnavailableError, InvalidTypeError


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
        The reason, and what would help; None if it can.
    """
    try:
        from routestats import _cuda
    except ModuleNotFoundError:
        return f"this build of routestats has no CUDA kernels: {_core.build_info()['cuda_reason']}"
    except Exception as error:  # whatever a library that does not fit the machine raises
        return f"the CUDA kernels of this build do not load: {error}"
    reason = _cuda.why_unavailable()
    if reason is None:
        return _why_too_old(_cuda)
    versions = _cuda.versions()
    if 0 < versions["driver"] < versions["runtime"]:
        return (
            f"{reason} (the driver is for CUDA {_version(versions['driver'])}, and the kernels are "
            f"of CUDA {_version(versions['runtime'])}: take a newer driver)"
        )
    return reason


def _why_too_old(cuda: Any) -> str | None:
    """Whether the current device is older than every one that the kernels were compiled for."""
    built = [int(number) for number in re.findall(r"\d+", cuda.versions()["architectures"])]
    if not built:
        return None
    try:
        properties = cuda.device_properties(cuda.current_device())
    except DeviceError as error:
        return str(error)
    major, minor = properties["compute_capability"]
    if 10 * major + minor >= min(built):
        return None
    return (
        f"{properties['name']} has compute capability {major}.{minor}, and the kernels of this "
        f"build are for {min(built) // 10}.{min(built) % 10} and newer"
    )


def _version(number: int) -> str:
    """CUDA's version from 1000 * major + 10 * minor."""
    return f"{number // 1000}.{number % 1000 // 10}"


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
