"""Divergences of two domains beside what permuted prompts give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from routestats.result import Result
from routestats.stats._base.estimate import Floats
from routestats.stats._compare_domains.expert_difference import adjusted

DIVERGENCE_COLUMNS = ("bits", "null_mean_bits", "p_value", "q_value")


@dataclass(frozen=True, slots=True, eq=False)
class Divergence(Result):
    """Observed divergences and what permuted prompts give.

    Attributes
    ----------
    bits : ndarray, shape [n]
        Jensen-Shannon divergence in bits.
    null_mean_bits : ndarray, shape [n]
        Mean under permutation of prompt groups between the domains.
    p_value : ndarray, shape [n]
        ``(1 + b) / (1 + B)``, b the permutations that reach the observed value.
    q_value : ndarray, shape [n]
        Benjamini and Hochberg's adjusted p over the n. Values without a divergence have no p.
    """

    bits: Floats
    null_mean_bits: Floats
    p_value: Floats
    q_value: Floats

    def to_table(self) -> pa.Table:
        """One row per question."""
        return pa.table({name: getattr(self, name) for name in DIVERGENCE_COLUMNS})

    def summary(self, level: float = 0.05, places: str = "places") -> str:
        """One line: the mean, that of the null, and how many are beyond chance."""
        if not np.isfinite(self.bits).any():
            return "divergence not known"
        return (
            f"divergence {np.nanmean(self.bits):.4f} bits (permuted prompts "
            f"{np.nanmean(self.null_mean_bits):.4f}), beyond chance in "
            f"{int((self.q_value <= level).sum())} of {len(self.bits)} {places} at q <= {level}"
        )


def tested(divergences: list[Floats]) -> Divergence:
    """Observed value (index 0) against the permuted ones, for each of n questions."""
    if not divergences:
        none = np.empty(0)
        return Divergence(none, none, none, none)
    values = np.stack(divergences)
    observed, null = values[:, 0], values[:, 1:]
    # Equal sums in another order differ in the last digits: these reach the observed value too.
    # So does a permutation without a value: it cannot speak for a difference.
    reach = (~(null < observed[:, None] - 1e-12)).sum(axis=1)
    p = np.where(np.isnan(observed), np.nan, (1 + reach) / (1 + null.shape[1]))
    valued = np.isfinite(null)
    mean = np.divide(
        np.where(valued, null, 0.0).sum(axis=1),
        valued.sum(axis=1),
        out=np.full_like(p, np.nan),
        where=valued.any(axis=1),
    )
    return Divergence(observed, mean, p, adjusted(p))
