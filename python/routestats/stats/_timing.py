"""Where the time of a MoE layer goes, from timings that were taken inside the engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError, TraceError
from routestats.stats._intervals import Estimate, Floats
from routestats.stats._result import Result
from routestats.trace import Trace
from routestats.trace.timings import StepTimes, read_overhead, read_timings, timing_sources

PARTS = ("gate", "topk", "dispatch", "experts", "combine", "host", "unexplained", "rest")
"""What a decoder layer's time is made of.

The first five are stages, each clocked by itself. ``host`` is the time the MoE runner spends in
none of them: the engine's own Python between the stages. ``unexplained`` is what stages and host
leave of the MoE block; ``rest`` is what the MoE block leaves of the decoder layer, attention and
norms.
"""
FIVE = PARTS[:5]
OVERHEAD = ("gate", "topk", "dispatch", "combine")
"""Routing, dispatch and combine: all of a MoE layer that computes no expert."""

AGREEMENT = 0.15
"""Relative difference of a part's share up to which two ways of measuring agree."""
SMALL_SHARE = 0.05
"""Parts below this share are compared as if they had it: their relative difference is noise."""


@dataclass(frozen=True, slots=True, eq=False)
class StepGroup:
    """Steps of one phase and about one size. Every `Estimate` is a median over the steps.

    Attributes
    ----------
    phase : {"prefill", "decode", "mixed"}
    rows_low, rows_high : int
        Tokens per step, from a power of two to below the next.
    steps : int
    part_ns : dict of Estimate, shape [L]
        Nanoseconds per step and layer of each of `PARTS`, of ``overhead`` (gate, topk, dispatch and
        combine together), of the whole ``moe`` block and the whole decoder ``layer``.
    share_of_moe : dict of Estimate, shape [L]
        Shares of 1 of the MoE block, of each part of it and of ``overhead``.
    share_of_layer : dict of Estimate, shape [L]
        Shares of the decoder layer, ``rest`` and ``moe`` too.
    total_share_of_moe, total_share_of_layer : dict of Estimate, shape [1]
        The same with all layers of a step taken together.
    """

    phase: str
    rows_low: int
    rows_high: int
    steps: int
    part_ns: dict[str, Estimate]
    share_of_moe: dict[str, Estimate]
    share_of_layer: dict[str, Estimate]
    total_share_of_moe: dict[str, Estimate]
    total_share_of_layer: dict[str, Estimate]

    @property
    def label(self) -> str:
        size = (
            f"{self.rows_low}"
            if self.rows_low == self.rows_high
            else f"{self.rows_low}-{self.rows_high}"
        )
        return f"{self.phase}, {size} tokens"

    def mean_part_ns(self, part: str) -> float:
        """Mean over the layers of the median nanoseconds of a part."""
        return float(self.part_ns[part].value.mean())


@dataclass(frozen=True, slots=True)
class PartAgreement:
    """A part's share of the MoE block in one group, as two sources have measured it."""

    group: str
    part: str
    hooks: float
    profiler: float

    @property
    def difference(self) -> float:
        """Relative to the hooks' share, or to `SMALL_SHARE` if that is larger."""
        return abs(self.profiler - self.hooks) / max(self.hooks, SMALL_SHARE)


@dataclass(frozen=True, slots=True, eq=False)
class Timing(Result):
    """Time per stage, layer and kind of step; made by `timing`.

    Attributes
    ----------
    source : {"hooks", "profiler"}
    clock, model : str
    engine : dict
        Version, device, and how it is spread over devices.
    layer_ids : tuple of int, length L
    steps, warm_up_steps : int
        Steps that count, and those left out.
    confidence : float
        Level of the intervals.
    groups : tuple of StepGroup
        By phase and size.
    unexplained : float
        Share of all time in MoE blocks, over all steps and layers, that neither the stages nor the
        host between them explain.
    outside_stages : float
        The same that the five stages alone leave: host and unexplained.
    clock_cost : Estimate of shape [1] or None
        What the clocks themselves cost: median ratio of the same work with them and without, from
        a paired run; 1.02 is 2 %. None where no such run was made.
    clock_pairs : int
    agreement : tuple of PartAgreement
        Hooks beside the profiler, where both have timed the run.
    """

    source: str
    clock: str
    model: str
    engine: dict[str, Any]
    layer_ids: tuple[int, ...]
    steps: int
    warm_up_steps: int
    confidence: float
    groups: tuple[StepGroup, ...]
    unexplained: float
    outside_stages: float
    clock_cost: Estimate | None
    clock_pairs: int
    agreement: tuple[PartAgreement, ...]

    @property
    def agrees(self) -> bool | None:
        """Whether every share agrees within `AGREEMENT`; None without a profiler's timings."""
        if not self.agreement:
            return None
        return all(part.difference <= AGREEMENT for part in self.agreement)

    def group(self, phase: str = "decode", rows: int | None = None) -> StepGroup:
        """The group of a phase with the most steps, or the one that holds steps of `rows` tokens.

        Raises
        ------
        InvalidValueError
            If there is none.
        """
        found = [
            group
            for group in self.groups
            if group.phase == phase and (rows is None or group.rows_low <= rows <= group.rows_high)
        ]
        if not found:
            there = "; ".join(group.label for group in self.groups)
            wanted = phase if rows is None else f"{phase}, {rows} tokens"
            raise InvalidValueError(f"group: expected one of {there}, got {wanted}")
        return max(found, key=lambda group: group.steps)

    def to_table(self) -> pa.Table:
        """One row per group, layer and part: median nanoseconds and shares, with bounds."""
        rows = []
        for group in self.groups:
            for part, ns in group.part_ns.items():
                for index, layer in enumerate(self.layer_ids):
                    share = group.share_of_moe.get(part)
                    whole = group.share_of_layer.get(part)
                    rows.append(
                        {
                            "phase": group.phase,
                            "rows_low": group.rows_low,
                            "rows_high": group.rows_high,
                            "steps": group.steps,
                            "layer": layer,
                            "part": part,
                            **_named("median_ns", ns, index),
                            **_named("share_of_moe", share, index),
                            **_named("share_of_layer", whole, index),
                        }
                    )
        return pa.Table.from_pylist(rows)

    def summary(self) -> str:
        """A table for a terminal: shares of the MoE block, per kind of step."""
        lines = [
            f"{self.model} on {self.engine.get('device', '?')}, {len(self.layer_ids)} MoE layers, "
            f"{self.steps:,} steps by {self.source} ({self.warm_up_steps:,} of warm-up left out); "
            f"medians over steps, {self.confidence:.0%} intervals",
            f"{'step':<24}{'steps':>6}{'MoE us':>9}"
            + "".join(f"{part:>10}" for part in (*FIVE, "host", "other"))
            + f"{'routing+dispatch+combine':>28}{'of layer':>10}",
        ]
        for group in self.groups:
            share, whole = group.total_share_of_moe, group.total_share_of_layer
            lines.append(
                f"{group.label:<24}{group.steps:>6}{group.mean_part_ns('moe') / 1e3:>9.1f}"
                + "".join(
                    f"{_first(share[part]):>10.1%}" for part in (*FIVE, "host", "unexplained")
                )
                + f"{_with_bounds(share['overhead']):>28}{_first(whole['overhead']):>10.1%}"
            )
        lines.append(
            f"of all MoE time, the stages leave {self.outside_stages:.1%}; the engine's Python "
            f"between them explains all but {self.unexplained:.1%}"
        )
        if self.clock_cost is not None:
            low, high = float(self.clock_cost.low[0]), float(self.clock_cost.high[0])
            lines.append(
                f"the clocks themselves: {_first(self.clock_cost) - 1:+.1%} "
                f"[{low - 1:+.1%}, {high - 1:+.1%}] of the time, {self.clock_pairs} pairs"
            )
        if self.agreement:
            worst = max(self.agreement, key=lambda part: part.difference)
            lines.append(
                f"against torch.profiler: {'agrees' if self.agrees else 'DISAGREES'}; the largest "
                f"difference is {worst.difference:.0%} ({worst.part} in {worst.group}: "
                f"{worst.hooks:.1%} by hooks, {worst.profiler:.1%} by the profiler)"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def _first(estimate: Estimate) -> float:
    return float(estimate.value[0])


def _with_bounds(estimate: Estimate) -> str:
    value, low, high = (float(part[0]) for part in estimate)
    return f"{value:.1%}" if np.isnan(low) else f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _named(name: str, estimate: Estimate | None, index: int) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    value, low, high = (float(part[index]) for part in estimate)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


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
    """
    folder = _folder(run)
    if not 0.0 < confidence < 1.0:
        raise InvalidValueError(f"confidence: expected between 0 and 1, got {confidence}")
    times = read_timings(folder, source)
    groups = _groups(times, confidence, min_steps)
    if not groups:
        raise TraceError(
            f"{folder}: has timings of {int((~times.warm_up).sum())} steps; expected at least "
            f"{min_steps} of one phase and size"
        )
    parts = _parts(times, ~times.warm_up)
    moe = times.stage_ns["moe"][~times.warm_up].sum()
    five = sum(parts[part].sum() for part in FIVE)
    agreement: tuple[PartAgreement, ...] = ()
    if set(timing_sources(folder)) == {"hooks", "profiler"}:
        other = _groups(
            read_timings(folder, "profiler" if source == "hooks" else "hooks"),
            confidence,
            min_steps,
        )
        pairs = (groups, other) if source == "hooks" else (other, groups)
        agreement = _agreement(*pairs)
    ratios = _clock_ratios(read_overhead(folder))
    return Timing(
        source=times.info.source,
        clock=times.info.clock,
        model=times.info.model,
        engine=times.info.engine,
        layer_ids=times.info.layer_ids,
        steps=int((~times.warm_up).sum()),
        warm_up_steps=int(times.warm_up.sum()),
        confidence=float(confidence),
        groups=groups,
        unexplained=float(parts["unexplained"].sum() / moe),
        outside_stages=float(1.0 - five / moe),
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


def _parts(times: StepTimes, chosen: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    """Nanoseconds [steps, L] of every part, of ``overhead``, ``moe`` and ``layer``."""
    ns = {stage: values[chosen].astype(np.float64) for stage, values in times.stage_ns.items()}
    inside = FIVE if times.info.gate_in_runner else FIVE[1:]
    parts = {part: ns[part] for part in FIVE}
    parts["host"] = ns["runner"] - sum(ns[part] for part in inside)
    parts["unexplained"] = ns["moe"] - sum(parts.values())
    parts["rest"] = ns["layer"] - ns["moe"]
    parts["overhead"] = sum((ns[part] for part in OVERHEAD), np.zeros_like(ns["moe"]))
    return {**parts, "moe": ns["moe"], "layer": ns["layer"]}


def _groups(times: StepTimes, confidence: float, min_steps: int) -> tuple[StepGroup, ...]:
    size = np.floor(np.log2(np.maximum(times.rows, 1))).astype(int)
    groups = []
    for phase in ("prefill", "decode", "mixed"):
        of_phase = (times.phase == phase) & ~times.warm_up
        for power in np.unique(size[of_phase]):
            chosen = of_phase & (size == power)
            if chosen.sum() >= min_steps:
                rows = times.rows[chosen]
                groups.append(_group(phase, rows, _parts(times, chosen), confidence))
    return tuple(groups)


def _group(
    phase: str, rows: npt.NDArray[np.int64], parts: dict[str, Floats], confidence: float
) -> StepGroup:
    def shares(whole: str, *, total: bool) -> dict[str, Estimate]:
        chosen = [name for name in parts if whole == "layer" or name not in ("rest", "layer")]
        if total:
            summed = {name: parts[name].sum(axis=1, keepdims=True) for name in parts}
            return {
                n: median_interval(summed[n] / summed[whole], confidence)
                for n in chosen
                if n != whole
            }
        return {
            n: median_interval(parts[n] / parts[whole], confidence) for n in chosen if n != whole
        }

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


def _agreement(
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
            _first(group.total_share_of_moe[part]),
            _first(others[kind(group)].total_share_of_moe[part]),
        )
        for group in hooks
        if kind(group) in others
        for part in FIVE
    )


def _clock_ratios(figures: dict[str, Any] | None) -> Floats:
    if figures is None:
        return np.empty(0)
    pairs = np.array(figures["pairs_s"], dtype=np.float64).reshape(-1, 2)
    ratios: Floats = pairs[:, 0] / pairs[:, 1]
    return ratios
