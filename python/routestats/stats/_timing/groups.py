"""Steps by phase and size: medians of their parts, and what the parts leave of the whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routestats.stats._base.estimate import Estimate, Floats
from routestats.stats._timing.result import (
    HOST,
    MOE_STAGES,
    OVERHEAD,
    PARTS,
    PartAgreement,
    StepGroup,
)
from routestats.trace.timings import StepTimes

INSIDE = PARTS[:-1]


def parts_of(times: StepTimes, chosen: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    """Nanoseconds [steps, L] of every part, of ``host``, ``overhead``, ``moe`` and ``layer``."""
    ns = {stage: values[chosen].astype(np.float64) for stage, values in times.stage_ns.items()}

    def together(parts: tuple[str, ...]) -> Floats:
        total: Floats = np.sum([ns[part] for part in parts], axis=0)
        return total

    sums = {"host": HOST, "overhead": OVERHEAD, "moe": INSIDE, "layer": PARTS}
    return {**ns, **{name: together(parts) for name, parts in sums.items()}}


def groups_of(
    times: StepTimes, outline: StepTimes | None, confidence: float, min_steps: int
) -> tuple[StepGroup, ...]:
    """Steps of one phase, and of one power of two of tokens, in groups of at least `min_steps`."""
    groups = []
    for phase in ("prefill", "decode", "mixed"):
        of_phase = (times.phase == phase) & ~times.warm_up
        for power in np.unique(_power(times)[of_phase]):
            chosen = of_phase & (_power(times) == power)
            if chosen.sum() >= min_steps:
                whole = np.empty((0, 2))
                if outline is not None:
                    there = (outline.phase == phase) & ~outline.warm_up
                    whole = paired(times, chosen, outline, there & (_power(outline) == power))
                rows = times.rows[chosen]
                groups.append(_group(phase, rows, parts_of(times, chosen), whole, confidence))
    return tuple(groups)


def _power(times: StepTimes) -> npt.NDArray[np.int64]:
    power: npt.NDArray[np.int64] = np.floor(np.log2(np.maximum(times.rows, 1))).astype(np.int64)
    return power


def paired(
    times: StepTimes,
    chosen: npt.NDArray[np.bool_],
    outline: StepTimes,
    there: npt.NDArray[np.bool_],
) -> Floats:
    """Nanoseconds [pairs, 2] of all MoE blocks of a step: by its parts, and from outside alone.

    The n-th step of a number of tokens that was clocked one way goes with the n-th that was clocked
    the other way: a timing pass runs the same work both ways, turn by turn.
    """
    pairs = [np.empty((0, 2))]
    for rows in np.intersect1d(times.rows[chosen], outline.rows[there]):
        by_parts = parts_of(times, chosen & (times.rows == rows))["moe"].sum(axis=1)
        whole = parts_of(outline, there & (outline.rows == rows))["moe"].sum(axis=1)
        both = min(len(by_parts), len(whole))
        pairs.append(np.stack([by_parts[:both], whole[:both]], axis=1))
    return np.concatenate(pairs)


def _group(
    phase: str,
    rows: npt.NDArray[np.int64],
    parts: dict[str, Floats],
    whole: Floats,
    confidence: float,
) -> StepGroup:
    def shares(of: str, *, total: bool) -> dict[str, Estimate]:
        chosen = [name for name in parts if of == "layer" or name not in ("rest", "layer")]
        if total:
            summed = {name: parts[name].sum(axis=1, keepdims=True) for name in parts}
            return {
                n: median_interval(summed[n] / summed[of], confidence) for n in chosen if n != of
            }
        return {n: median_interval(parts[n] / parts[of], confidence) for n in chosen if n != of}

    left = 1.0 - whole[:, :1] / whole[:, 1:]
    return StepGroup(
        phase=phase,
        rows_low=int(rows.min()),
        rows_high=int(rows.max()),
        steps=len(rows),
        part_ns={name: median_interval(ns, confidence) for name, ns in parts.items()},
        share_of_moe=shares("moe", total=False),
        share_of_layer=shares("layer", total=False),
        total_share_of_moe=shares("moe", total=True),
        total_share_of_layer=shares("layer", total=True),
        unexplained=median_interval(left, confidence) if len(left) else None,
        pairs=len(left),
    )


def median_interval(values: Floats, confidence: float) -> Estimate:
    """Median over the first axis, between the order statistics that hold it with `confidence`.

    The r-th smallest of n values is above the median with probability P(Binomial(n, 1/2) < r),
    whatever the values' distribution. NaN bounds where n is too small for the confidence.
    """
    from scipy.stats import binom

    steps = len(values)
    value = np.median(values, axis=0)
    tail = (1.0 - confidence) / 2.0
    rank = int(binom.ppf(tail, steps, 0.5))  # P(count <= rank - 1) < tail
    if rank < 1:
        missing = np.full_like(value, np.nan)
        return Estimate(value, missing, missing.copy())
    ordered = np.sort(values, axis=0)
    return Estimate(value, ordered[rank - 1], ordered[steps - rank])


def agreement_of(
    hooks: tuple[StepGroup, ...], profiler: tuple[StepGroup, ...]
) -> tuple[PartAgreement, ...]:
    """Shares of the MoE block in the kinds of steps that both have timed."""

    def kind(group: StepGroup) -> tuple[str, int]:
        return group.phase, group.rows_low.bit_length()

    others = {kind(group): group for group in profiler}
    return tuple(
        PartAgreement(
            group.label,
            part,
            float(group.total_share_of_moe[part].value[0]),
            float(others[kind(group)].total_share_of_moe[part].value[0]),
        )
        for group in hooks
        if kind(group) in others
        for part in MOE_STAGES
    )
