"""The device of these tests: a GPU, or an emulated one that counts and does not replay graphs.

`make test-emulated` runs the tests of counting on the CUDA sources compiled for the host
(csrc/tests/emulated_cuda), in a process of its own: ``ROUTESTATS_EMULATED_CUDA`` is the folder of
that module.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

EMULATED = os.environ.get("ROUTESTATS_EMULATED_CUDA")


def use_emulated_module(folder: str) -> None:
    """Make the module in `folder` ``routestats._cuda``; no other may have been imported."""
    assert "routestats._cuda" not in sys.modules
    (path,) = Path(folder).glob("_cuda.*")
    spec = importlib.util.spec_from_file_location("routestats._cuda", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["routestats._cuda"] = module  # where `from routestats import _cuda` finds it
    spec.loader.exec_module(module)


class EmulatedArray(np.ndarray[Any, Any]):
    """An array that says that it lies in a device's memory: an emulated device's is the host's."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.__array_interface__, "strides": self.strides, "version": 3}


def on_device(array: npt.NDArray[Any]) -> Any:
    """`array` in the device's memory: a torch tensor, or what stands for one."""
    if EMULATED:
        return array.copy(order="K").view(EmulatedArray)
    import torch

    return torch.from_numpy(array).cuda()


def keep_busy() -> Callable[[], bool]:
    """Give the current stream about a second's work; the result says whether it is still at it.

    An emulated stream runs when somebody waits for it, and so is never found at work.
    """
    if EMULATED:
        return lambda: False
    import torch

    torch.cuda._sleep(2_000_000_000)
    done = torch.cuda.Event()
    done.record()
    return lambda: not done.query()
