"""Information without each prompt group in turn, and intervals from it.

A percentile bootstrap of a plug-in information is biased upward (resampling repeats rows and so
makes cells emptier), therefore intervals come from the delete-a-group jackknife.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.counts import GroupedRows, RouteCounts, sum_changes_without_groups
from routestats.counts._plan import layer_pairs, pair_layers
from routestats.stats._base.contingency import information_bits, xlog2x, xlog2x_sums
from routestats.stats._base.estimate import Estimate, Floats


class CellSums(NamedTuple):
    """Sums of n log2 n, which the information of all pairs is made of; see `cell_sums`.

    Attributes
    ----------
    joint : ndarray of float64, shape [P]
        Over the cells of the table of each counted pair, by hop and then by source.
    margin : ndarray of float64, shape [L]
        Over the margin of any table of the layer.
    """

    joint: Floats
    margin: Floats


def cell_sums(counts: RouteCounts) -> CellSums:
    """Those of all counted pairs, table by table: no copy of the tables is made."""
    return CellSums(
        xlog2x_sums(
            counts.pair(src, dst) for src, dst in layer_pairs(counts.shape.num_layers, counts.hops)
        ),
        xlog2x(counts.expert * np.uint64(_slots(counts))).sum(axis=1),
    )


def information(counts: RouteCounts, sums: CellSums) -> Floats:
    """Plug-in mutual information in bits of all counted pairs, [P]."""
    source, target = pair_layers(counts.shape.num_layers, counts.hops)
    total = np.array(_slots(counts) ** 2 * counts.tokens, np.float64)
    return information_bits(sums.joint, sums.margin[source] + sums.margin[target], total)


def information_without_groups(
    experts: npt.NDArray[np.integer],
    counts: RouteCounts,
    sums: CellSums,
    groups: GroupedRows,
    row_order: npt.NDArray[np.uint32] | None = None,
) -> Floats:
    """Plug-in mutual information in bits of every layer pair with each group left out.

    Only the cells that a group touches change, so this costs one count of the rows and not one
    for every group.

    Parameters
    ----------
    experts : integer array, shape [T, L, K]
    counts : RouteCounts
        Of all T tokens.
    sums : CellSums
        Of `counts`.
    groups : GroupedRows
        All groups, or some.
    row_order : ndarray of uint32, shape [L, n], optional
        Stands for the groups' rows where `counts` are of permuted ones.

    Returns
    -------
    ndarray of float64, shape [G, P]
        In the order of the pairs of `counts`: by hop, then by source. NaN where no token is left.
    """
    source, target = pair_layers(counts.shape.num_layers, counts.hops)
    joint, margin = sum_changes_without_groups(experts, counts, groups, row_order)
    # As `information_bits`, but in place: with many groups and pairs these are the largest arrays.
    joint += sums.joint
    margin += sums.margin
    joint -= margin[:, source]
    joint -= margin[:, target]
    total = _slots(counts) ** 2 * (counts.tokens - groups.sizes[:, None]).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        joint /= total
        joint += np.log2(total)
    # Not the infinities that rounding makes of nothing.
    joint[total[:, 0] == 0] = np.nan
    return joint


def _slots(counts: RouteCounts) -> int:
    return counts.shape.top_k if counts.pairing == "any" else 1


class Jackknifed(NamedTuple):
    """What the jackknife says of a plug-in value: arrays of one shape.

    Attributes
    ----------
    corrected : ndarray
        The value less the jackknife's estimate of its bias.
    low, high : ndarray
        Interval for what the value estimates.
    """

    corrected: Floats
    low: Floats
    high: Floats

    def around(self, value: Floats) -> Estimate:
        """`value` with this interval."""
        return Estimate(value, self.low, self.high)


def jackknife(
    value: Floats, without: Floats, strata: npt.NDArray[np.integer], confidence: float
) -> Jackknifed:
    """Delete-a-group jackknife, stratified.

    Parameters
    ----------
    value : ndarray, shape [...]
        Computed from all groups.
    without : ndarray, shape [G, ...]
        Computed without each group.
    strata : integer array, shape [G]
        Stratum (domain) of each group.
    confidence : float

    Returns
    -------
    Jackknifed
        NaN where a stratum has fewer than two groups.

    Notes
    -----
    With d the deviation of a value without a group from the mean of its stratum's, the variance is
    the sum over strata of ``(G_h - 1) / G_h`` times the sum of d^2, and the bias that of
    ``(G_h - 1)`` times the mean difference from `value` (Quenouille 1956; Efron and Stein 1981).
    The bias is taken off before the interval is laid: a plug-in information is too large by
    (rows - 1)(columns - 1) / (2 N ln 2) bits for N independent tokens, and by many times that where
    the tokens of a group are alike, often more than the interval is wide.

    The bounds are those of Student's t with ``G - strata`` degrees of freedom, corrected for the
    skewness of the groups' contributions by the monotone transformation of Hall (1992, J. R.
    Statist. Soc. B 54, 221-228): a studentised skew estimate is short of the nominal level.
    """
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    if len(sizes) == 0 or sizes.min() < 2:
        missing = np.full_like(value, np.nan)
        return Jackknifed(missing, missing.copy(), missing.copy())
    from scipy.special import stdtrit

    bias, variance, second, third = (np.zeros_like(value) for _ in range(4))
    for index, size in enumerate(sizes):
        part = without[stratum == index]
        mean = part.mean(axis=0)
        deviation = mean - part
        squares = (deviation**2).sum(axis=0)
        bias += (size - 1) * (mean - value)
        variance += (size - 1) / size * squares
        second += squares
        third += (deviation**3).sum(axis=0)
    corrected, error = value - bias, np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = np.where(second > 0, third / second**1.5, 0.0)
    reach = float(stdtrit(len(strata) - len(sizes), 0.5 + confidence / 2))
    return Jackknifed(
        corrected,
        corrected - error * _unskewed(reach, skewness),
        corrected - error * _unskewed(-reach, skewness),
    )


def _unskewed(quantile: float, skewness: Floats) -> Floats:
    """Quantile of a studentised estimate whose skewness is given; Hall (1992), g3 inverted."""
    slight = np.abs(skewness) < 1e-6
    s = np.where(slight, 1.0, skewness)
    root = np.cbrt(1.0 + s * (quantile - s / 6.0))
    result: Floats = np.where(slight, quantile, 3.0 / s * (root - 1.0))
    return result
