"""Which tap an engine gets on its device, why, and what a fallback costs."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from routestats.counts import why_no_cuda

STAGED_COST = (
    "choices are copied to the host after every step, which waits for the device, so that "
    "asynchronous scheduling is lost; three more kernels run per layer; rows are counted on the CPU"
)


class TapChoice(NamedTuple):
    """Name of a tap in `taps`, and why it is not the fastest for the device; None if it is."""

    tap: str
    reason: str | None = None

    def warning(self) -> str | None:
        """One line that says the reason and what it costs; None without a reason."""
        if self.reason is None:
            return None
        return f"capture falls back to {self.tap}, because {self.reason}: {STAGED_COST}"


def choose_tap(device: str) -> TapChoice:
    """What takes the routing off a device of type `device`, as torch names it."""
    if device == "cpu":
        return TapChoice("HostTap")
    reason = why_not_on_device(device)
    return TapChoice("DeviceTap") if reason is None else TapChoice("StagedTap", reason)


def described() -> str:
    """What an engine on an NVIDIA GPU would get here, and one on the CPU; imports no engine."""
    on_gpu = choose_tap("cuda")
    why = "" if on_gpu.reason is None else f", because {on_gpu.reason} ({STAGED_COST})"
    return f"{choose_tap('cpu').tap} on the CPU; on a GPU {on_gpu.tap}{why}"


def why_not_on_device(device: str) -> str | None:
    """Why no ring can be kept in a device's memory, or None."""
    if device != "cuda":
        return f"there are kernels for CUDA alone, and the engine runs on {device}"
    if (rocm := _rocm()) is not None:
        return f"there are kernels for CUDA alone, and the engine runs on ROCm {rocm}"
    return why_no_cuda()


def _rocm() -> str | None:
    """Version of ROCm, if this torch calls an AMD device ``cuda``; torch is not imported for it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        found: str | None = torch.version.hip
        return found
    try:
        _, of_rocm, number = version("torch").partition("+rocm")
    except PackageNotFoundError:
        return None
    return number if of_rocm else None
