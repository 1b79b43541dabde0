"""What is known of the time of MoE layers: the result, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from routestats.arguments import check_integer
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.stats._base.estimate import Estimate
from routestats.trace.timings import STAGES

PARTS = STAGES
"""What a decoder layer's time is made of; see `routestats.trace.timings.STAGES`."""
MOE_STAGES, HOST = PARTS[:5], PARTS[5:8]
"""The stages of a MoE layer, and the engine's own code on the way from one to the next."""
OVERHEAD = ("gate", "topk", "dispatch", "combine")
"""Routing, dispatch and combine: all stages of a MoE layer that compute no expert."""

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
        Nanoseconds per step and layer of each of `PARTS`, of ``host`` (kernel, runner and block
        together), of ``overhead`` (gate, topk, dispatch and combine together), of the whole ``moe``
        block and the whole decoder ``layer``.
    share_of_moe : dict of Estimate, shape [L]
        Shares of 1 of the MoE block, of each part of it, of ``host`` and of ``overhead``.
    share_of_layer : dict of Estimate, shape [L]
        Shares of the decoder layer, ``rest`` and ``moe`` too.
    total_share_of_moe, total_share_of_layer : dict of Estimate, shape [1]
        The same with all layers of a step taken together.
    unexplained : Estimate of shape [1] or None
        Share of the MoE blocks' time, clocked from outside alone, that the parts do not add up to;
        negative where they add up to more. Median over pairs of steps of the same work, one clocked
        either way. None where none was clocked from outside.
    pairs : int
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
    unexplained: Estimate | None
    pairs: int

    @property
    def label(self) -> str:
        size = (
            f"{self.rows_low}"
            if self.rows_low == self.rows_high
            else f"{self.rows_low}-{self.rows_high}"
        )
        return f"{self.phase}, {size} token{'' if self.rows_high == 1 else 's'}"

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
    measure : str
        What a time is, e.g. "between events on the GPU's stream, launch gaps included"; empty of
        runs that do not say.
    engine : dict
        Version, device, and how it is spread over devices.
    layer_ids : tuple of int, length L
    steps, warm_up_steps : int
        Steps that count, and those left out.
    confidence : float
        Level of the intervals.
    groups : tuple of StepGroup
        By phase and size.
    unexplained : float or None
        As of the groups, over all pairs of steps together.
    outside_stages : float
        Share of all time in MoE blocks that the five stages leave to the engine's own code between
        them, which is ``host``.
    call_ns : float
        Nanoseconds that a clocked call costs; taken off all times.
    clock_cost : Estimate of shape [1] or None
        What the clocks themselves cost: median ratio of the same work with them and without, from
        a paired run; 1.02 is 2 %. None where no such run was made.
    clock_pairs : int
    agreement : tuple of PartAgreement
        Hooks beside the profiler, where both have timed the run.
    """

    source: str
    clock: str
    measure: str
    model: str
    engine: dict[str, Any]
    layer_ids: tuple[int, ...]
    steps: int
    warm_up_steps: int
    confidence: float
    groups: tuple[StepGroup, ...]
    unexplained: float | None
    outside_stages: float
    call_ns: float
    clock_cost: Estimate | None
    clock_pairs: int
    agreement: tuple[PartAgreement, ...]

    @property
    def measured(self) -> str:
        """What the times are and what took them, in one phrase."""
        return f"times {self.measure or 'of a measure that is not known'} ({self.clock})"

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
        if rows is not None:
            rows = check_integer("rows", rows, 0)
        found = [
            group
            for group in self.groups
            if group.phase == str(phase)
            and (rows is None or group.rows_low <= rows <= group.rows_high)
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
        shown = (*MOE_STAGES, *HOST)
        lines = [
            f"{self.model} on {self.engine.get('device', '?')}, {len(self.layer_ids)} MoE layers, "
            f"{self.steps:,} steps by {self.source} ({self.warm_up_steps:,} of warm-up left out); "
            f"medians over steps, {self.confidence:.0%} intervals",
            self.measured,
            f"{'step':<24}{'steps':>6}{'MoE us':>9}"
            + "".join(f"{part:>10}" for part in shown)
            + f"{'unexplained':>22}{'routing+dispatch+combine':>28}{'of layer':>10}",
        ]
        for group in self.groups:
            share, whole = group.total_share_of_moe, group.total_share_of_layer
            left = "-" if group.unexplained is None else group.unexplained.text(0)
            lines.append(
                f"{group.label:<24}{group.steps:>6}{group.mean_part_ns('moe') / 1e3:>9.1f}"
                + "".join(f"{_first(share[part]):>10.1%}" for part in shown)
                + f"{left:>22}{share['overhead'].text(0):>28}"
                + f"{_first(whole['overhead']):>10.1%}"
            )
        lines.append(
            f"{', '.join(MOE_STAGES)} take {1 - self.outside_stages:.1%} of all MoE time; "
            f"{', '.join(HOST)} are the engine's own code between them, {self.outside_stages:.1%}"
        )
        if self.unexplained is not None:
            lines.append(
                "of MoE layers clocked from outside alone, these parts leave "
                f"{self.unexplained:.1%} unexplained; {self.call_ns:,.0f} ns have been taken off "
                "per clocked call"
            )
        if self.clock_cost is not None:
            value, low, high = self.clock_cost.at(0)
            lines.append(
                f"the clocks themselves: {value - 1:+.1%} [{low - 1:+.1%}, {high - 1:+.1%}] of the "
                f"time, {self.clock_pairs} pairs"
            )
        if self.agreement:
            worst = max(self.agreement, key=lambda part: part.difference)
            lines.append(
                f"against torch.profiler: {'agrees' if self.agrees else 'DISAGREES'}; the largest "
                f"difference is {worst.difference:.0%} ({worst.part} in {worst.group}: "
                f"{worst.hooks:.1%} by hooks, {worst.profiler:.1%} by the profiler)"
            )
        return "\n".join(lines)


def _first(estimate: Estimate) -> float:
    return float(estimate.value[0])


def _named(name: str, estimate: Estimate | None, index: int) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    value, low, high = estimate.at(index)
    return {name: value, f"{name}_low": low, f"{name}_high": high}
