"""Where the time of a MoE layer goes, from timings that were taken inside the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from routestats.errors import InvalidTypeError, InvalidValueError, TraceError
from routestats.stats._base.checks import check_choice, check_confidence, check_integer
from routestats.stats._base.estimate import Floats
from routestats.stats._timing.groups import (
    agreement_of,
    groups_of,
    median_interval,
    paired,
    parts_of,
)
from routestats.stats._timing.result import PartAgreement, Timing
from routestats.trace import Trace
from routestats.trace.timings import read_overhead, read_timings, timing_sources

STAGE_SOURCES = ("hooks", "profiler")
PROFILER_STEPS = 5
"""A profile has fewer steps of a kind than the clocks have timed, and these are enough of them."""


def timing(
    run: Trace | str | Path,
    *,
    source: str = "hooks",
    confidence: float = 0.95,
    min_steps: int = 5,
) -> Timing:
    """Time of each stage of a MoE layer, per layer, phase and size of step.

    Parameters
    ----------
    run : path or Trace
        A run whose timings were taken: ``routestats profile ... --timing``, or
        `routestats.time_stages`.
    source : {"hooks", "profiler"}
        Whose timings; the other's are set beside them where there are some.
    confidence : float
        Level of the intervals, between 0 and 1.
    min_steps : int
        Kinds of steps with fewer are left out.

    Returns
    -------
    Timing

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If an argument is wrong.
    TraceError
        If the run has no timings: a finished run cannot be timed afterwards.

    Notes
    -----
    Values are medians over steps; their intervals are the order statistics between which the median
    lies with the given confidence, whatever the distribution (David and Nagaraja, *Order
    Statistics*, 7.1), taking steps as independent; NaN where there are too few steps. A share is
    the median of the steps' own shares. Warm-up steps are left out.

    Parts are measured by clock readings at their two ends, less what the readings themselves cost,
    and make up the MoE block that they lie in. Whether that is what a block takes without clocks
    inside is measured on other steps of the same work, which are clocked from outside alone.
    """
    folder = _folder(run)
    confidence = check_confidence(confidence)
    min_steps = check_integer("min_steps", min_steps, 1)
    check_choice("source", source, STAGE_SOURCES)
    times = read_timings(folder, source)
    there = timing_sources(folder)
    outline = read_timings(folder, "outline") if "outline" in there and source == "hooks" else None
    groups = groups_of(times, outline, confidence, min_steps)
    counted = ~times.warm_up
    if not groups:
        raise TraceError(
            f"{folder}: has timings of {int(counted.sum())} steps; expected at least "
            f"{min_steps} of one phase and size"
        )
    agreement: tuple[PartAgreement, ...] = ()
    if set(STAGE_SOURCES) <= set(there):
        other = read_timings(folder, "profiler" if source == "hooks" else "hooks")
        others = groups_of(other, None, confidence, min(min_steps, PROFILER_STEPS))
        agreement = agreement_of(*((groups, others) if source == "hooks" else (others, groups)))
    parts = parts_of(times, counted)
    ratios = _clock_ratios(read_overhead(folder))
    unexplained = None
    if outline is not None:
        both = [
            paired(
                times,
                counted & (times.phase == phase),
                outline,
                ~outline.warm_up & (outline.phase == phase),
            ).sum(axis=0)
            for phase in np.unique(times.phase)
        ]
        by_parts, whole = np.sum(both, axis=0)
        unexplained = float(1.0 - by_parts / whole) if whole else None
    return Timing(
        source=times.info.source,
        clock=times.info.clock,
        measure=times.info.measure,
        model=times.info.model,
        engine=times.info.engine,
        layer_ids=times.info.layer_ids,
        steps=int(counted.sum()),
        warm_up_steps=int(times.warm_up.sum()),
        confidence=float(confidence),
        groups=groups,
        unexplained=unexplained,
        outside_stages=float(parts["host"].sum() / parts["moe"].sum()),
        call_ns=times.info.call_ns,
        clock_cost=median_interval(ratios[:, None], confidence) if len(ratios) else None,
        clock_pairs=len(ratios),
        agreement=agreement,
    )


def _folder(run: Trace | str | Path) -> Path:
    if isinstance(run, Trace):
        if run.path is None:
            raise InvalidValueError(
                "run: expected a run on disk, which timings belong to, got a trace of arrays"
            )
        return run.path
    if not isinstance(run, (str, Path)):
        raise InvalidTypeError(f"run: expected a path or a Trace, got {type(run).__name__}")
    return Path(run)


def _clock_ratios(figures: dict[str, Any] | None) -> Floats:
    if figures is None:
        return np.empty(0)
    pairs = np.array(figures["pairs_s"], dtype=np.float64).reshape(-1, 2)
    ratios: Floats = pairs[:, 0] / pairs[:, 1]
    return ratios
