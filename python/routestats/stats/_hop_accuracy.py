"""Held-out prediction of one layer's experts from those of an earlier layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from routestats.counts import RouteCounts, count
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape
from routestats.stats._hits import HitSums, sum_hits
from routestats.stats._intervals import (
    Estimate,
    Floats,
    percentile_interval,
    resampling_weights,
)
from routestats.stats._result import Result
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class HopMeasure:
    """One measure of `HopAccuracy`, for the single-hop predictor and both baselines.

    All values are shares of 1. `Estimate` holds ``value``, ``low`` and ``high``.

    Attributes
    ----------
    name : str
        ``top1_accuracy``, ``recall_at_<M>`` or ``exact_set``.
    label : str
        The same for people.
    hop : Estimate of shape [L, L]
        Single hop, ``[source, target]``; NaN where target <= source.
    marginal : Estimate of shape [L]
        Marginal baseline per target layer; NaN at layer 0, which is no target.
    uniform : float
        What guessing at random reaches.
    gain : Estimate of shape [L, L]
        ``hop - marginal`` of the target, resampled together (paired).
    hop_by_distance, marginal_by_distance, gain_by_distance : Estimate of shape [L - 1]
        Means over the pairs ``k`` layers apart at index ``k - 1``; the first is the mean over
        adjacent layers.
    """

    name: str
    label: str
    hop: Estimate
    marginal: Estimate
    uniform: float
    gain: Estimate
    hop_by_distance: Estimate
    marginal_by_distance: Estimate
    gain_by_distance: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class HopAccuracy(Result):
    """How well layers predict later ones; made by `hop_accuracy`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
        ``any``: predicted from the source layer's set; ``top1``: from its first choice.
    domains : tuple of str
        Those that the test tokens come from.
    train_tokens, test_tokens : int
    test_groups : int
        Prompt groups on the test side, the units that are resampled.
    confidence : float
        Level of the intervals, e.g. 0.95.
    bootstrap, seed : int
    measures : tuple of HopMeasure
        Top-1 accuracy (unless left out), recall at K, 2K and 4K where below E, exact set.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    domains: tuple[str, ...]
    train_tokens: int
    test_tokens: int
    test_groups: int
    confidence: float
    bootstrap: int
    seed: int
    measures: tuple[HopMeasure, ...]

    def __getitem__(self, name: str) -> HopMeasure:
        for measure in self.measures:
            if measure.name == name:
                return measure
        names = ", ".join(measure.name for measure in self.measures)
        raise InvalidValueError(f"measure: expected one of {names}, got {name!r}")

    @property
    def main(self) -> HopMeasure:
        """Top-1 accuracy, or recall at K where top-1 was left out."""
        return self.measures[0]

    def summary(self) -> str:
        """A few lines for a terminal: the means over adjacent layers, with baselines."""
        lines = [
            f"single-hop prediction ({self.pairing}), {self.shape}: fitted on "
            f"{self.train_tokens:,} tokens, measured on {self.test_tokens:,} of "
            f"{self.test_groups} prompt groups; mean over adjacent layers"
        ]
        for measure in self.measures:
            hop, gain = measure.hop_by_distance, measure.gain_by_distance
            lines.append(
                f"  {measure.label:16s}{_percent(hop)}   marginal "
                f"{measure.marginal_by_distance.value[0]:6.1%}   uniform {measure.uniform:6.1%}   "
                f"gain over marginal {_percent(gain, sign='+')}"
            )
        return "\n".join(lines)


def _percent(estimate: Estimate, sign: str = "") -> str:
    """First entry of `estimate` with its interval, in percent."""
    value, low, high = (float(part[0]) * 100 for part in estimate)
    if np.isnan(low):
        return f"{value:{sign}.1f}% (no interval)"
    return f"{value:{sign}.1f}% [{low:{sign}.1f}, {high:{sign}.1f}]"


def hop_accuracy(
    train: Trace | RouteCounts,
    test: Trace,
    pairing: str = "any",
    *,
    top1: bool = True,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> HopAccuracy:
    """Predict every layer from every earlier one; fitted on `train`, measured on `test`.

    The score of expert f at the target layer, given the set S of a token at the source layer, is
    the sum over e in S of the affinity A[e, f] in the training counts. With pairing ``any`` S is
    the token's top-K set and A its co-selection; with ``top1`` both are of first choices. Ties
    go to the lowest id. An expert that training never saw contributes the marginal instead.

    Parameters
    ----------
    train : Trace or RouteCounts
        Counts must have the named pairing and hold all hops.
    test : Trace
        Tokens that `train` does not hold, of other prompts: see `Trace.split`.
    pairing : str
        ``any`` or ``top1``.
    top1 : bool
        Whether to measure top-1 accuracy, which needs to know each token's first choice. Pass
        False for a trace whose order of experts is not known.
    bootstrap : int
        Resamples of the prompt groups of `test`; 0 for no intervals.
    seed : int
        Of the resampling.
    confidence : float
        Level of the percentile intervals, between 0 and 1.

    Returns
    -------
    HopAccuracy

    Raises
    ------
    InvalidTypeError
        If `test` is no trace, or `bootstrap` or `seed` no integer.
    InvalidValueError
        If there is one layer only, a side is empty, the two sides differ in shape or layers, the
        counts have another pairing, or first choices are needed and not known.

    Notes
    -----
    Recall at M is the part of a token's K experts that is among the M best scores. The intervals
    are conditional on the fit: they resample prompt groups of the test side, within each domain
    (a group belongs to the domain of its first row). They are NaN where a domain has fewer than
    two groups. Rounding: scores are compared in fixed point, to 40 binary digits where they fit.
    """
    if not isinstance(test, Trace):
        raise InvalidTypeError(f"test: expected a Trace, got {type(test).__name__}")
    if not 0.0 < confidence < 1.0:
        raise InvalidValueError(f"confidence: expected between 0 and 1, got {confidence}")
    if pairing not in ("any", "top1"):
        raise InvalidValueError(f"pairing: expected 'any' or 'top1', got {pairing!r}")
    _check_traces(train, test, need_order=top1 or pairing == "top1")
    fitted = train
    if not isinstance(fitted, RouteCounts):
        fitted = count(fitted, hops=range(1, test.shape.num_layers), pairing=pairing)
    if fitted.pairing != pairing:
        raise InvalidValueError(f"train.pairing: expected {pairing!r}, got {fitted.pairing!r}")
    if fitted.tokens == 0:
        raise InvalidValueError("train: expected at least 1 token, got 0")

    sums = sum_hits(fitted, test, top1=top1)
    weights = resampling_weights(sums.strata, resamples=bootstrap, seed=seed)
    measures = tuple(
        _measure(name, index, sums, weights, confidence, test.shape)
        for index, name in enumerate(sums.names)
    )
    domains = test.domains
    return HopAccuracy(
        shape=test.shape,
        layer_ids=tuple(int(i) for i in test.layer_ids),
        pairing=pairing,
        domains=tuple(domains[int(i)] for i in np.unique(sums.strata)),
        train_tokens=int(fitted.tokens),
        test_tokens=int(sums.tokens.sum()),
        test_groups=len(sums.tokens),
        confidence=float(confidence),
        bootstrap=int(bootstrap),
        seed=int(seed),
        measures=measures,
    )


def _check_traces(train: Trace | RouteCounts, test: Trace, *, need_order: bool) -> None:
    if test.shape.num_layers < 2:
        raise InvalidValueError("test: expected at least 2 layers to predict between, got 1")
    if train.shape != test.shape:
        raise InvalidValueError(f"train.shape: expected {test.shape} as in test, got {train.shape}")
    if tuple(train.layer_ids) != tuple(test.layer_ids):
        raise InvalidValueError(
            f"train.layer_ids: expected {tuple(test.layer_ids)} as in test, "
            f"got {tuple(train.layer_ids)}"
        )
    for name, side in (("train", train), ("test", test)):
        if isinstance(side, RouteCounts):
            continue
        if len(side) == 0:
            raise InvalidValueError(f"{name}: expected at least 1 token, got 0")
        if need_order and not side.ordered:
            raise InvalidValueError(
                f"{name}.ordered: expected experts in order of weight, which first choices need, "
                "got a trace of unknown order (pairing='any' with top1=False does without)"
            )


def _measure(
    name: str,
    index: int,
    sums: HitSums,
    weights: Floats | None,
    confidence: float,
    shape: RouteShape,
) -> HopMeasure:
    """Turn per-group hit sums into estimates with intervals."""
    num_layers = shape.num_layers
    source, target = np.triu_indices(num_layers, 1)
    distance = target - source - 1
    # Every cell has the same tokens, so the mean over cells weighs them evenly.
    by_distance = np.zeros((len(source), num_layers - 1))
    by_distance[np.arange(len(source)), distance] = 1.0 / (num_layers - 1 - distance)

    def shares(drawn: Floats) -> tuple[Floats, Floats]:
        """Hop shares [n, P] and marginal shares [n, L - 1] of n draws of groups [n, G]."""
        scale = (drawn @ sums.tokens)[:, None] * sums.trials[index]
        return drawn @ sums.hop[index] / scale, drawn @ sums.marginal[index] / scale

    hop, marginal = shares(np.ones((1, len(sums.tokens))))
    drawn = None if weights is None else shares(weights)

    def estimate(pick: Any) -> Estimate:
        samples = None if drawn is None else pick(*drawn)
        return percentile_interval(pick(hop, marginal)[0], samples, confidence)

    def matrix(flat: Estimate) -> Estimate:
        parts = [np.full((num_layers, num_layers), np.nan) for _ in flat]
        for part, values in zip(parts, flat, strict=True):
            part[source, target] = values
        return Estimate(*parts)

    def pad(flat: Estimate) -> Estimate:
        return Estimate(*(np.concatenate(([np.nan], part)) for part in flat))

    return HopMeasure(
        name=name,
        label=_label(name),
        hop=matrix(estimate(lambda h, m: h)),
        marginal=pad(estimate(lambda h, m: m)),
        uniform=_uniform(name, shape),
        gain=matrix(estimate(lambda h, m: h - m[:, target - 1])),
        hop_by_distance=estimate(lambda h, m: h @ by_distance),
        marginal_by_distance=estimate(lambda h, m: m[:, target - 1] @ by_distance),
        gain_by_distance=estimate(lambda h, m: (h - m[:, target - 1]) @ by_distance),
    )


def _label(name: str) -> str:
    if name.startswith("recall_at_"):
        return f"recall@{name.removeprefix('recall_at_')}"
    return {"top1_accuracy": "top-1 accuracy", "exact_set": "exact set"}[name]


def _uniform(name: str, shape: RouteShape) -> float:
    """Expected value of a guess drawn evenly from all experts, or sets of experts."""
    if name == "top1_accuracy":
        return 1.0 / shape.num_experts
    if name == "exact_set":
        return 1.0 / comb(shape.num_experts, shape.top_k)
    return int(name.removeprefix("recall_at_")) / shape.num_experts
