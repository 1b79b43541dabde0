"""Repetition: does a token go where the one before it went?"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import (
    Ids,
    check_confidence,
    check_flag,
    check_order,
    check_trace,
    checked_experts,
)
from routestats.stats._base.estimate import Estimate, resampling_weights
from routestats.stats._base.units import Runs, Units, share_estimate, stack_estimates
from routestats.trace import Trace

BLOCK_ROWS = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Repetition(Result):
    """Routing of consecutive tokens; made by `repetition`.

    All values are shares of 1 of the pairs of consecutive positions.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : dict from measure to str
        ``first_choice`` is over first choices (``top1``), ``shared`` over sets (``any``).
    domains : tuple of str, length D
    pairs, groups : tuple of int, length D
        Pairs of consecutive positions and prompt groups of each domain.
    first_choice : Estimate of shape [D, L]
        Pairs with the same first choice (pairing ``top1``); NaN if it was left out.
    shared : Estimate of shape [D, L]
        Pairs whose sets of K experts have one in common (pairing ``any``).
    first_choice_all, shared_all : Estimate of shape [L]
        The same over all domains' pairs.
    random_first_choice, random_shared : float
        What tokens routed at random give: 1 / E and 1 - C(E - K, K) / C(E, K).
    confidence : float
    bootstrap, seed : int
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: dict[str, str]
    domains: tuple[str, ...]
    pairs: tuple[int, ...]
    groups: tuple[int, ...]
    first_choice: Estimate
    shared: Estimate
    first_choice_all: Estimate
    shared_all: Estimate
    random_first_choice: float
    random_shared: float
    confidence: float
    bootstrap: int
    seed: int

    def to_table(self) -> pa.Table:
        """One row per domain and layer, then one per layer with domain null: all of them."""
        names: list[str | None] = [*self.domains, None]
        rows = [(name, layer) for name in names for layer in range(self.shape.num_layers)]
        columns = {
            "domain": pa.array([domain for domain, _ in rows], pa.string()),
            "layer": [layer for _, layer in rows],
            "layer_id": [self.layer_ids[layer] for _, layer in rows],
        }
        for name, by_domain, together in (
            ("first_choice", self.first_choice, self.first_choice_all),
            ("shared", self.shared, self.shared_all),
        ):
            for part, suffix in enumerate(("", "_low", "_high")):
                columns[name + suffix] = np.append(by_domain[part].ravel(), together[part])
        return pa.table(columns)

    def summary(self) -> str:
        """The first, the middle and the last layer of each domain, as in Mixtral's table 5."""
        last = self.shape.num_layers - 1
        layers = sorted({0, last // 2, last})
        lines = [
            f"repetition, {self.shape}: {sum(self.pairs):,} pairs of consecutive tokens of "
            f"{sum(self.groups)} prompt groups, {self.confidence:.0%} intervals (bootstrap "
            f"{self.bootstrap}, seed {self.seed})"
        ]
        for name, estimate, random in (
            ("same first choice (top1)", self.first_choice, self.random_first_choice),
            ("an expert in common (any)", self.shared, self.random_shared),
        ):
            if np.isnan(estimate.value).all():
                continue
            lines.append(f"  {name}, random {random:.1%}")
            for d, domain in enumerate(self.domains):
                shown = (
                    f"layer {self.layer_ids[layer]} {estimate.text((d, layer))}" for layer in layers
                )
                lines.append(f"    {domain:12s} {', '.join(shown)}")
        return "\n".join(lines)


def repetition(
    trace: Trace,
    *,
    top1: bool = True,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Repetition:
    """Shares of consecutive tokens with the same first choice, and with an expert in common.

    Parameters
    ----------
    trace : Trace
        Its experts are held in memory. Positions p and p + 1 of one request are consecutive; where
        one has no row, there is no pair.
    top1 : bool
        Whether to measure first choices. Pass False for a trace whose order is not known.
    bootstrap : int
        Resamples of prompt groups, within each domain; 0 for no intervals.
    seed : int
    confidence : float

    Returns
    -------
    Repetition

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace, or `bootstrap` or `seed` no integer.
    InvalidValueError
        If a domain has no two consecutive positions, first choices are asked of a trace of unknown
        order, an id is not below E, or a request has a position twice.

    Notes
    -----
    Table 5 of Mixtral (arXiv 2401.04088). Intervals are NaN where a domain has fewer than two
    prompt groups.
    """
    trace = check_trace(trace)
    confidence = check_confidence(confidence)
    if check_flag("top1", top1):
        check_order(trace, "top1=True")
    experts = checked_experts(trace)
    units = Units.of(trace)
    runs = Runs.of(trace, units)
    # A row starts a pair unless its run ends there.
    begins = np.ones(len(runs.rows), bool)
    begins[runs.starts[1:] - 1] = False
    first = np.flatnonzero(begins)
    before, after = runs.rows[first], runs.rows[first + 1]
    unit = units.of_row[before]
    pairs = np.bincount(unit, minlength=len(units))
    for d, domain in enumerate(trace.domains):
        if pairs[units.domain == d].sum() == 0:
            raise InvalidValueError(
                f"domain {domain!r}: expected two consecutive positions of a request, got none"
            )
    same, shared = _hits(experts, before, after, unit, len(units))
    weights = resampling_weights(units.domain, resamples=bootstrap, seed=seed)

    def estimates(hits: npt.NDArray[np.int64]) -> tuple[Estimate, Estimate]:
        by_domain = []
        for d in range(len(trace.domains)):
            mine = units.domain == d
            drawn = None if weights is None else weights[:, mine]
            by_domain.append(share_estimate(hits[mine], pairs[mine], drawn, confidence))
        return stack_estimates(by_domain), share_estimate(hits, pairs, weights, confidence)

    first_choice, first_choice_all = estimates(same)
    if not top1:
        first_choice, first_choice_all = _missing(first_choice), _missing(first_choice_all)
    shared_by_domain, shared_all = estimates(shared)
    shape = trace.shape
    number = len(trace.domains)
    return Repetition(
        shape=shape,
        layer_ids=tuple(trace.layer_ids),
        pairing={"first_choice": "top1", "shared": "any"},
        domains=trace.domains,
        pairs=tuple(int(n) for n in np.bincount(units.domain, pairs, number)),
        groups=tuple(int(n) for n in np.bincount(units.domain, minlength=number)),
        first_choice=first_choice,
        shared=shared_by_domain,
        first_choice_all=first_choice_all,
        shared_all=shared_all,
        random_first_choice=1.0 / shape.num_experts,
        random_shared=1.0
        - comb(shape.num_experts - shape.top_k, shape.top_k) / comb(shape.num_experts, shape.top_k),
        confidence=confidence,
        bootstrap=int(bootstrap),
        seed=int(seed),
    )


def _hits(
    experts: Ids,
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    unit: npt.NDArray[np.intp],
    num_units: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs with the same slot 0 and with an expert in common: [U, L] each; `unit` is sorted."""
    same = np.zeros((num_units, experts.shape[1]), np.int64)
    shared = np.zeros_like(same)
    for start in range(0, len(unit), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        one, other = experts[before[rows]], experts[after[rows]]
        common = np.zeros(one.shape[:2], bool)
        for i in range(experts.shape[2]):
            for j in range(experts.shape[2]):
                common |= one[:, :, i] == other[:, :, j]
        codes = unit[rows]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        for sums, hits in ((same, one[:, :, 0] == other[:, :, 0]), (shared, common)):
            sums[codes[starts]] += np.add.reduceat(hits, starts, axis=0, dtype=np.int64)
    return same, shared


def _missing(estimate: Estimate) -> Estimate:
    return Estimate(*(np.full_like(part, np.nan) for part in estimate))
