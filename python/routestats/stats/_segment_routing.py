"""Segment routing: how steady are the experts of a stretch of text?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts._segments import SegmentCounts, count_segments
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import MOST, check_confidence, check_integer, check_trace
from routestats.stats._base.estimate import (
    Estimate,
    Floats,
    percentile_interval,
    resampling_weights,
)
from routestats.stats._base.units import Runs, Units, share_estimate, stack_estimates
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRouting(Result):
    """How well fixed experts serve a segment of tokens; made by `segment_routing`.

    SRP and SCH are shares of 1, over sets of K experts (pairing ``any``).

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
    m : int
        Tokens of a segment, and of the cache's view ahead.
    capacity : int
        Experts that the cache holds at each layer.
    tokens, groups : int
    windows : int
        Segments: windows of m consecutive positions of a request.
    srp : Estimate, scalar
        Segment routing best performance: F1 over all layers at the best threshold.
    alpha : float
        The best threshold: an expert is predicted for all tokens of a segment if at least this
        share of them chose it.
    srp_by_layer : Estimate of shape [L]
        Each layer at its own best threshold.
    alpha_by_layer : ndarray of float64, shape [L]
    sch : Estimate, scalar
        Segment cache best hit rate over all layers.
    sch_by_layer : Estimate of shape [L]
    permuted_srp, permuted_sch : float
        The same with all tokens of the trace permuted, one draw: what loads alone give.
    permuted_srp_by_layer, permuted_sch_by_layer : ndarray of float64, shape [L]
    confidence : float
    bootstrap, seed : int
        The seed is that of the resampling and of the permutation.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    m: int
    capacity: int
    tokens: int
    groups: int
    windows: int
    srp: Estimate
    alpha: float
    srp_by_layer: Estimate
    alpha_by_layer: Floats
    sch: Estimate
    sch_by_layer: Estimate
    permuted_srp: float
    permuted_sch: float
    permuted_srp_by_layer: Floats
    permuted_sch_by_layer: Floats
    confidence: float
    bootstrap: int
    seed: int

    def to_table(self) -> pa.Table:
        """One row per layer, then one with layer null: all of them."""
        layers = self.shape.num_layers
        columns = {
            "layer": pa.array([*range(layers), None], pa.int64()),
            "layer_id": pa.array([*self.layer_ids, None], pa.int64()),
        }
        for name, by_layer, pooled in (
            ("srp", self.srp_by_layer, self.srp),
            ("sch", self.sch_by_layer, self.sch),
        ):
            for part, suffix in enumerate(("", "_low", "_high")):
                columns[name + suffix] = np.append(by_layer[part], pooled[part])
        columns["alpha"] = np.append(self.alpha_by_layer, self.alpha)
        columns["permuted_srp"] = np.append(self.permuted_srp_by_layer, self.permuted_srp)
        columns["permuted_sch"] = np.append(self.permuted_sch_by_layer, self.permuted_sch)
        return pa.table(columns)

    def summary(self) -> str:
        """Three lines: what was measured, SRP and SCH."""
        srp, sch = self.srp_by_layer.value, self.sch_by_layer.value

        def lowest_and_highest(values: Floats) -> str:
            low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
            return (
                f"{values[low]:.1%} at layer {self.layer_ids[low]} to {values[high]:.1%} at layer "
                f"{self.layer_ids[high]}"
            )

        return (
            f"segment routing ({self.pairing}), {self.shape}: {self.windows:,} windows of "
            f"{self.m} tokens, {self.tokens:,} tokens of {self.groups} prompt groups, "
            f"{self.confidence:.0%} intervals (bootstrap {self.bootstrap}, seed {self.seed})\n"
            f"  SRP {self.srp.text()} at alpha {self.alpha:.3g}, tokens "
            f"permuted {self.permuted_srp:.1%}; {lowest_and_highest(srp)}\n"
            f"  SCH {self.sch.text()} with {self.capacity} experts per "
            f"layer, tokens permuted {self.permuted_sch:.1%}; {lowest_and_highest(sch)}"
        )


def segment_routing(
    trace: Trace,
    m: int = 16,
    capacity: int | None = None,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    threads: int | None = None,
) -> SegmentRouting:
    """Segment routing best performance (SRP) and segment cache best hit rate (SCH).

    Parameters
    ----------
    trace : Trace
        Its experts are held in memory. Segments are windows of m consecutive positions of one
        request; a missing position ends one run of positions and begins another.
    m : int
        Tokens of a segment.
    capacity : int, optional
        Experts that the cache holds at each layer; by default K.
    bootstrap : int
        Resamples of prompt groups, within each domain; 0 for no intervals.
    seed : int
    confidence : float
    threads : int, optional

    Returns
    -------
    SegmentRouting

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace, or a number no integer.
    InvalidValueError
        If no request has m consecutive positions, a number is out of range, an id is not below E,
        a token names an expert twice at a layer, or a request has a position twice.

    Notes
    -----
    After "Not All Models Suit Expert Offloading" (arXiv 2505.16056). SRP predicts expert e for all
    m tokens of a window if its frequency there reaches alpha; F1 is pooled over windows, tokens,
    layers and experts, and the best alpha of 1/m, 2/m, ..., 1 taken (the smallest of equals). It
    stays fixed in the resampling.

    SCH: a cache of `capacity` experts per layer starts every run of positions empty. A choice hits
    if its expert was there before the token; after the token all its experts are, and those used
    least in the next m tokens leave, the highest id first among equals. So the order of a token's
    experts does not matter. (The paper's code admits one choice after another and breaks ties by
    age, so its figures can differ slightly.)
    """
    trace = check_trace(trace)
    m = check_integer("m", m, 1, MOST)
    shape = trace.shape
    capacity = shape.top_k if capacity is None else check_integer("capacity", capacity, 1, MOST)
    confidence, seed = check_confidence(confidence), check_integer("seed", seed, 0)
    units = Units.of(trace)
    runs = Runs.of(trace, units)
    longest = int(runs.lengths.max())
    if longest < m:
        raise InvalidValueError(
            f"m: expected at most {longest}, the longest run of consecutive positions, got {m}"
        )
    weights = resampling_weights(units.domain, resamples=bootstrap, seed=seed)

    def counted(rows: npt.NDArray[np.int64]) -> SegmentCounts:
        return count_segments(
            trace.experts,
            shape.num_experts,
            tokens=rows,
            starts=runs.starts,
            groups=runs.units,
            num_groups=len(units),
            m=m,
            capacity=capacity,
            threads=threads,
        )

    counts = counted(runs.rows)
    permuted = counted(np.random.default_rng(seed).permutation(runs.rows))
    choices = np.bincount(runs.units, runs.lengths, len(units)) * shape.top_k
    layers = shape.num_layers
    srp, alpha = _best_f1(counts.uses.sum(axis=1), weights, confidence)
    by_layer = [_best_f1(counts.uses[:, layer], weights, confidence) for layer in range(layers)]
    return SegmentRouting(
        shape=shape,
        layer_ids=tuple(trace.layer_ids),
        pairing="any",
        m=m,
        capacity=capacity,
        tokens=len(trace),
        groups=len(units),
        windows=int(np.maximum(runs.lengths - m + 1, 0).sum()),
        srp=srp,
        alpha=alpha,
        srp_by_layer=stack_estimates(estimate for estimate, _ in by_layer),
        alpha_by_layer=np.array([best for _, best in by_layer]),
        sch=share_estimate(counts.hits.sum(axis=1), choices * layers, weights, confidence),
        sch_by_layer=share_estimate(counts.hits, choices, weights, confidence),
        permuted_srp=float(_f1(permuted.uses.sum(axis=(0, 1))).max()),
        permuted_sch=float(permuted.hits.sum() / (choices.sum() * layers)),
        permuted_srp_by_layer=_f1(permuted.uses.sum(axis=0)).max(axis=-1),
        permuted_sch_by_layer=permuted.hits.sum(axis=0) / choices.sum(),
        confidence=confidence,
        bootstrap=int(bootstrap),
        seed=int(seed),
    )


def _f1(uses: npt.NDArray[np.number]) -> Floats:
    """F1 [..., m] at thresholds 1/m..1, of how many (window, expert) had each count [..., m + 1].

    An expert predicted for a window is right for as many of its m tokens as chose it.
    """
    number = uses.astype(np.float64)
    m = number.shape[-1] - 1
    right_by_count = number * np.arange(m + 1)

    def reaching(values: Floats) -> Floats:
        """Sums over all counts that reach each threshold."""
        return np.cumsum(values[..., ::-1], axis=-1)[..., ::-1][..., 1:]

    right, predicted = reaching(right_by_count), reaching(number) * m
    chosen = right_by_count.sum(axis=-1, keepdims=True)
    f1: Floats = 2 * right / (predicted + chosen)
    return f1


def _best_f1(
    uses: npt.NDArray[np.number], weights: Floats | None, confidence: float
) -> tuple[Estimate, float]:
    """F1 at its best threshold, from counts [U, m + 1], and the threshold."""
    values = _f1(uses.sum(axis=0))
    best = int(values.argmax())
    samples = None
    if weights is not None:
        with np.errstate(invalid="ignore"):  # a resample may have no window
            samples = _f1(weights @ uses.astype(np.float64))[:, best]
    estimate = percentile_interval(values[best], samples, confidence)
    return estimate, (best + 1) / (uses.shape[-1] - 1)
