"""Timings of steps with known stages, as files beside a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lookahead_cases import SHAPE

from routestats.trace.timings import STAGES, StepFigures, TimingInfo, write_timings

LAYERS = 3
BASE_NS = {
    "gate": 10,
    "topk": 20,
    "dispatch": 5,
    "experts": 100,
    "combine": 15,
    "kernel": 8,
    "runner": 12,
    "block": 10,
    "rest": 220,
}
MOE_NS = 180


def info(source: str = "hooks", call_ns: float = 0.0, measure: str = "") -> TimingInfo:
    layers = tuple(range(LAYERS))
    return TimingInfo(source, layers, "clock", "m", {"device": "cpu"}, call_ns, measure)


def write(
    run: Path,
    steps: int = 21,
    rows: int = 4,
    *,
    prefill_rows: int = 0,
    warm_up: bool = False,
    stage_scale: Mapping[str, float] | None = None,
    **options: Any,
) -> None:
    """Steps whose stages take `BASE_NS`, scaled by the layer and by a factor for each step."""
    factor = 1000 * np.linspace(0.9, 1.1, steps)
    base = np.array([BASE_NS[stage] * (stage_scale or {}).get(stage, 1.0) for stage in STAGES])
    ns = factor[:, None, None] * np.arange(1, LAYERS + 1)[:, None] * base
    figures = [StepFigures("d", rows, prefill_rows, 2, warm_up) for _ in range(steps)]
    write_timings(
        run, info(**options), figures, np.full(steps, 10**6), np.rint(ns).astype(np.int64)
    )


def time_run(run: Path, source: str = "hooks") -> None:
    """Twelve decode steps of a run of `SHAPE`."""
    base = np.array([10, 20, 5, 100, 15, 8, 12, 10, 220]) * 1000
    ns = np.broadcast_to(base, (12, SHAPE.num_layers, len(STAGES)))
    info = TimingInfo(
        source, tuple(range(SHAPE.num_layers)), "clock", "m", {"device": "cpu", "version": "0"}
    )
    steps = [StepFigures("d", 4, 0, 4, False)] * 12
    write_timings(run, info, steps, np.full(12, 10**6), ns.astype(np.int64))
