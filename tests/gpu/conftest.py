"""Tests that need an NVIDIA GPU, and are skipped with the reason where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from devices import EMULATED, use_emulated_module

from routestats.counts.device.choice import why_no_cuda

if EMULATED:
    use_emulated_module(EMULATED)


def missing(path: Path) -> str | None:
    """What these tests need and do not find."""
    if EMULATED:
        counting = path.name == "test_gpu_counts.py"
        return None if counting else "the emulated device has no graphs"
    reason = why_no_cuda()
    if reason is not None:
        return reason
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "torch finds no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons: dict[Path, str | None] = {}
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        reason = reasons.setdefault(item.path, missing(item.path))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs a GPU: {reason}"))
