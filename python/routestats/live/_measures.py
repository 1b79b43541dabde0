"""What is worked out of a window: balance, predictability and information, layer by layer.

All figures are of one moment. Rows of one request are not independent, so figures of a window have
no intervals; those of the finished run's report have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.stats._base.contingency import entropy_bits, mutual_information_bits

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_ROWS = 16


class Predictability(NamedTuple):
    """Top-1 accuracy at layers 1 to L - 1, each shape [L - 1]; NaN while there is too little.

    Attributes
    ----------
    single_hop : ndarray of float64
        Of the first choice seen most often after the previous layer's, ties to the lowest id; of
        the marginal's where the previous layer's was never seen.
    marginal : ndarray of float64
        Of the layer's most frequent first choice, which needs no look at the token.
    tested : int
        Rows of the window's newer half. Both are measured on it and fitted on the older half.
    """

    single_hop: Floats
    marginal: Floats
    tested: int


class Information(NamedTuple):
    """Mutual information of adjacent layers' first choices over the later one's entropy, [L - 1].

    Attributes
    ----------
    ratio : ndarray of float64
        Plug-in: 0 independent, 1 determined. Few rows make it too large.
    null_ratio : ndarray of float64
        The same with the later layer's choices permuted among the window's rows: what chance gives
        with this number of rows.
    """

    ratio: Floats
    null_ratio: Floats


def imbalance(load: Ints) -> Floats:
    """Busiest expert over the mean of all E, per layer; NaN without rows."""
    with np.errstate(invalid="ignore"):
        ratio: Floats = load.max(axis=1) / load.mean(axis=1)
    return ratio


def times_even(load: Ints) -> Floats:
    """Load of every expert over its layer's mean: 1 is even; NaN without rows."""
    with np.errstate(invalid="ignore"):
        ratio: Floats = load / load.mean(axis=1, keepdims=True)
    return ratio


def predictability(first: Ints, num_experts: int) -> Predictability:
    """Fit on the older half of rows `first`, [n, L], and measure on the newer."""
    rows, layers = first.shape
    half = rows // 2
    single_hop, marginal = np.full((2, layers - 1), np.nan)
    if half < _LEAST_ROWS:
        return Predictability(single_hop, marginal, 0)
    older, newer = first[:half], first[half:]
    for target in range(1, layers):
        best = int(np.bincount(older[:, target], minlength=num_experts).argmax())
        pairs = _pair_counts(older[:, target - 1], older[:, target], num_experts)
        after = np.where(pairs.any(axis=1), pairs.argmax(axis=1), best)
        single_hop[target - 1] = np.mean(after[newer[:, target - 1]] == newer[:, target])
        marginal[target - 1] = np.mean(newer[:, target] == best)
    return Predictability(single_hop, marginal, rows - half)


def adjacent_information(first: Ints, num_experts: int, seed: int = 0) -> Information:
    """Of rows `first`, [n, L]."""
    rows, layers = first.shape
    ratio, null_ratio = np.full((2, layers - 1), np.nan)
    if rows < 2 * _LEAST_ROWS:
        return Information(ratio, null_ratio)
    random = np.random.default_rng(seed)
    for target in range(1, layers):
        source, column = first[:, target - 1], first[:, target]
        entropy = entropy_bits(np.bincount(column, minlength=num_experts))
        for values, later in ((ratio, column), (null_ratio, random.permutation(column))):
            bits = mutual_information_bits(_pair_counts(source, later, num_experts))
            if entropy > 0:
                values[target - 1] = bits / entropy
    return Information(ratio, null_ratio)


def _pair_counts(source: Ints, target: Ints, num_experts: int) -> Ints:
    codes = source * num_experts + target
    counts = np.bincount(codes, minlength=num_experts * num_experts)
    return counts.reshape(num_experts, num_experts)
