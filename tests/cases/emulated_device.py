"""An emulated device for capture: its kernels, compiled for the host, are torch's device ``cpu``.

`make test` and `tools/dev-build.sh` build the module ``_emulated`` from csrc/tests. The folder that
``ROUTESTATS_EMULATED_CUDA`` names has it, else the newest one in any build folder is taken.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

FOLDERS = Path(__file__).parents[2] / "build"


@cache
def emulated_kernels() -> Any:
    """The module; without it the calling test is skipped."""
    given = os.environ.get("ROUTESTATS_EMULATED_CUDA")
    folders = [Path(given)] if given else list(FOLDERS.glob("*/csrc/tests"))
    name = "_emulated" + EXTENSION_SUFFIXES[0]
    found = [folder / name for folder in folders if (folder / name).exists()]
    if not found:
        pytest.skip("the emulated device is not built: tools/dev-build.sh does that")
    newest = max(found, key=lambda path: path.stat().st_mtime)
    spec = importlib.util.spec_from_file_location("_emulated", newest)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def emulated_device() -> Any:
    """The torch device that has kernels from now on, in this process."""
    import torch

    from routestats.engines import device_ring

    kernels = emulated_kernels()
    device_ring.KERNELS["cpu"] = lambda: kernels
    return torch.device("cpu")
