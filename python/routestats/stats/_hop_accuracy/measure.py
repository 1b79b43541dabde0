"""From hits per prompt group to estimates with intervals: one measure of `HopAccuracy`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from routestats.counts._plan import pair_layers
from routestats.shape import RouteShape
from routestats.stats._base.checks import by_name
from routestats.stats._base.estimate import Estimate, Floats, percentile_interval
from routestats.stats._predictors.hits import Hits, Tally
from routestats.stats._predictors.table import PREDICTORS


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One measure of one predictor. All values are shares of 1, gains differences of them.

    A predictor that does not look at the source layer has one value per target layer, which
    stands at every source; so all means by hop are over the same layer pairs, and compare.

    Attributes
    ----------
    name : str
        As in `hop_accuracy`.
    label : str
        The same for people.
    matrix : Estimate of shape [L, L]
        ``[source, target]``; NaN where target <= source.
    gain : Estimate of shape [L, L]
        ``matrix`` less the marginal of the target, resampled together (paired).
    by_hop, gain_by_hop : Estimate of shape [L - 1]
        Means over the pairs ``k`` layers apart at index ``k - 1``.
    """

    name: str
    label: str
    matrix: Estimate
    gain: Estimate
    by_hop: Estimate
    gain_by_hop: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class HopMeasure:
    """One measure of `HopAccuracy`: ``measure["token_id"]`` is a predictor's `Prediction`.

    All values are shares of 1. `Estimate` holds ``value``, ``low`` and ``high``. The fields from
    `hop` on are the single-hop predictor and both baselines once more.

    Attributes
    ----------
    name : str
        ``top1_accuracy``, ``recall_at_<M>`` or ``exact_set``.
    label : str
        The same for people.
    size : int or None
        M of a recall, else None.
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
    predictions : tuple of Prediction
        Of all predictors that were measured.
    """

    name: str
    label: str
    size: int | None
    hop: Estimate
    marginal: Estimate
    uniform: float
    gain: Estimate
    hop_by_distance: Estimate
    marginal_by_distance: Estimate
    gain_by_distance: Estimate
    predictions: tuple[Prediction, ...]

    def __getitem__(self, predictor: str) -> Prediction:
        return by_name("predictor", self.predictions, predictor)


def estimate_measure(
    index: int,
    tally: Tally,
    hits: Mapping[str, Hits],
    predictors: tuple[str, ...],
    weights: Floats | None,
    confidence: float,
    shape: RouteShape,
) -> HopMeasure:
    """Estimates and intervals of measure `index` of `tally`.

    Parameters
    ----------
    hits : mapping of str to ndarray of int64, shape [m, G, P] or [m, G, L - 1]
        Of every predictor but ``uniform``: per layer pair, or per target layer.
    weights : ndarray of float64, shape [B, G], or None
        See `resampling_weights`; the same for all predictors, so that differences are paired.
    """
    measure = tally.measures[index]
    uniform = measure.uniform(shape)
    marginal = _shares(tally, index, hits["marginal"], weights, shape.top_k)
    shares = {"uniform": _constant(uniform, marginal), "marginal": marginal}
    for predictor in predictors:
        if predictor not in shares:
            shares[predictor] = _shares(tally, index, hits[predictor], weights, shape.top_k)
    predictions = [
        _predict(predictor, shares[predictor], marginal, shape.num_layers, confidence)
        for predictor in predictors
    ]
    found = {prediction.name: prediction for prediction in predictions}
    hop = found["single_hop"]
    per_target = percentile_interval(marginal.value[0], marginal.samples, confidence)
    return HopMeasure(
        name=measure.name,
        label=measure.label,
        size=measure.size,
        hop=hop.matrix,
        marginal=Estimate(*(np.concatenate(([np.nan], part)) for part in per_target)),
        uniform=uniform,
        gain=hop.gain,
        hop_by_distance=hop.by_hop,
        marginal_by_distance=found["marginal"].by_hop,
        gain_by_distance=hop.gain_by_hop,
        predictions=tuple(predictions),
    )


class _Shares(NamedTuple):
    """Shares of layer pairs, or of target layers 1..L-1, as columns."""

    value: Floats  # [1, n]
    samples: Floats | None  # [B, n]


def _shares(tally: Tally, index: int, hits: Hits, weights: Floats | None, top_k: int) -> _Shares:
    def of(drawn: Floats) -> Floats:
        scale = (drawn @ tally.tokens)[:, None] * tally.measures[index].most(top_k)
        shares: Floats = drawn @ hits[index] / scale
        return shares

    whole = np.ones((1, len(tally.tokens)))
    return _Shares(of(whole), None if weights is None else of(weights))


def _constant(value: float, like: _Shares) -> _Shares:
    samples = None if like.samples is None else np.full_like(like.samples, value)
    return _Shares(np.full_like(like.value, value), samples)


def _predict(
    name: str, own: _Shares, marginal: _Shares, num_layers: int, level: float
) -> Prediction:
    source, target = pair_layers(num_layers)
    hop = target - source - 1
    cells_of_hop = np.arange(num_layers - 1, 0, -1)
    in_hop = np.zeros((len(source), num_layers - 1))
    in_hop[np.arange(len(source)), hop] = 1.0
    target_column = target - 1
    if own.value.shape == marginal.value.shape:  # one value per target, at every source
        cells = target_column
        of_target = np.zeros((num_layers - 1, num_layers - 1))
        np.add.at(of_target, target_column, in_hop)
        in_hop = of_target
        less = np.arange(num_layers - 1)
    else:
        cells = np.arange(len(source))
        less = target_column

    def mean(shares: Floats) -> Floats:
        # Every cell has the same tokens, so the mean over cells weighs them evenly.
        of_hop: Floats = shares @ in_hop / cells_of_hop
        return of_hop

    def estimate(pick: Callable[[Floats, Floats], Floats]) -> Estimate:
        samples = None
        if own.samples is not None and marginal.samples is not None:
            samples = pick(own.samples, marginal.samples)
        return percentile_interval(pick(own.value, marginal.value)[0], samples, level)

    def matrix(flat: Estimate) -> Estimate:
        parts = [np.full((num_layers, num_layers), np.nan) for _ in flat]
        for part, values in zip(parts, flat, strict=True):
            part[source, target] = values[cells]
        return Estimate(*parts)

    return Prediction(
        name=name,
        label=PREDICTORS[name].label,
        matrix=matrix(estimate(lambda x, m: x)),
        gain=matrix(estimate(lambda x, m: x - m[:, less])),
        by_hop=estimate(lambda x, m: mean(x)),
        gain_by_hop=estimate(lambda x, m: mean(x - m[:, less])),
    )
