"""Mutual information without each prompt group in turn.

A percentile bootstrap of a plug-in information is biased upward (resampling repeats rows and so
makes cells emptier), therefore intervals come from the delete-a-group jackknife.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from routestats.stats._intervals import Estimate, Floats
from routestats.stats._tables import xlog2x

Codes = npt.NDArray[np.integer]


def information_without_groups(
    source: Codes, target: Codes, groups: Codes, num_groups: int, num_experts: int
) -> Floats:
    """Mutual information in bits of two layers with each group left out.

    Only the cells that a group touches change, so this costs one pass over the tokens and not one
    for every group.

    Parameters
    ----------
    source, target : integer arrays, shape [T, k]
        Experts whose k x k pairs count.
    groups : integer array, shape [T]
        Group of each token, 0..num_groups-1.

    Returns
    -------
    ndarray of float64, shape [num_groups]
    """
    slots = source.shape[1]
    cells = num_experts**2
    pair = (source[:, :, None].astype(np.int64) * num_experts + target[:, None, :]).reshape(-1)
    group = np.repeat(groups.astype(np.int64), slots * slots)
    touched, count = np.unique(group * cells + pair, return_counts=True)
    owner, cell = np.divmod(touched, cells)
    row, column = np.divmod(cell, num_experts)

    def change(of: npt.NDArray[np.int64], width: int) -> tuple[Floats, float]:
        """Change of the sum of x log x over a margin without each group, and the sum itself."""
        by_group = np.bincount(owner * width + of, count, num_groups * width)
        whole = np.bincount(of, count, width)
        kept = xlog2x(np.maximum(whole - by_group.reshape(num_groups, width), 0))
        full = xlog2x(whole)
        return kept.sum(axis=1) - full.sum(), float(full.sum())

    table = np.bincount(cell, count, cells)
    before, after = xlog2x(table[cell]), xlog2x(table[cell] - count)
    joint = xlog2x(table).sum() + np.bincount(owner, after - before, num_groups)
    row_change, row_sum = change(row, num_experts)
    column_change, column_sum = change(column, num_experts)
    total = count.sum() - np.bincount(owner, count, num_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        margins = row_sum + row_change + column_sum + column_change
        information: Floats = (joint - margins) / total + np.log2(total)
    return information


def jackknife_interval(value: Floats, without: Floats, confidence: float) -> Estimate:
    """`value` [...] with a normal interval from its values without each group [G, ...].

    The variance is ``(G - 1) / G`` times the sum of squared deviations (Efron and Stein, 1981).
    NaN bounds with fewer than two groups.
    """
    groups = len(without)
    if groups < 2:
        missing = np.full_like(value, np.nan)
        return Estimate(value, missing, missing.copy())
    spread = without - without.mean(axis=0)
    error = np.sqrt((groups - 1) / groups * (spread**2).sum(axis=0))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * error
    return Estimate(value, value - reach, value + reach)
