"""Which experts two domains load differently, of all experts of all layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.result import Result
from routestats.stats._base.estimate import Floats

EXPERT_COLUMNS = ("difference", "null_mean_abs", "p_value", "q_value")
# Of shares. Equal sums in another order differ in their last digits only.
_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class ExpertDifference(Result):
    """Differences of every expert's share of load, and what permuted prompts give.

    Attributes
    ----------
    layer_ids : tuple of int, length L
    difference : ndarray, shape [L, E]
        Share of the layer's load in the first domain less that in the second.
    null_mean_abs : ndarray, shape [L, E]
        Mean absolute difference under permutation of prompt groups between the domains.
    p_value : ndarray, shape [L, E]
        Two-sided: ``(1 + b) / (1 + B)``, b the permutations whose absolute difference reaches the
        observed one.
    q_value : ndarray, shape [L, E]
        Benjamini and Hochberg's adjusted p over all L x E. (The differences of a layer sum to 0,
        and so are not independent, as the method supposes them to be.)
    permutations : int
        B. The smallest p is ``1 / (1 + B)``: see `fewest`.
    """

    layer_ids: tuple[int, ...]
    difference: Floats
    null_mean_abs: Floats
    p_value: Floats
    q_value: Floats
    permutations: int

    def to_table(self) -> pa.Table:
        """One row per layer (index, not decoder-layer number) and expert."""
        layer, expert = (axis.ravel() for axis in np.indices(self.difference.shape))
        columns = {name: getattr(self, name).ravel() for name in EXPERT_COLUMNS}
        return pa.table({"layer": layer, "expert": expert, **columns})

    def beyond(self, level: float = 0.05) -> npt.NDArray[np.bool_]:
        """Whether each expert [L, E] differs beyond chance: q at most `level`."""
        found: npt.NDArray[np.bool_] = self.q_value <= level
        return found

    def fewest(self, level: float = 0.05) -> int:
        """How many experts must differ for any to be told from chance, whatever their effects.

        The i-th smallest p has ``q <= p * L * E / i``, and no p is below ``1 / (1 + B)``.
        """
        return ceil(self.q_value.size / (level * (1 + self.permutations)))

    def summary(self, level: float = 0.05) -> str:
        """One line: how many experts are beyond chance, and the largest difference of those."""
        beyond = self.beyond(level)
        text = f"{int(beyond.sum())} of {beyond.size} experts beyond chance at q <= {level}"
        if not beyond.any():
            if (fewest := self.fewest(level)) > 1:
                text += (
                    f" (with {self.permutations:,} permutations, fewer than {fewest:,} cannot be "
                    "told from it)"
                )
            return text
        size = np.where(beyond, np.abs(self.difference), -1.0)
        layer, expert = np.unravel_index(int(size.argmax()), size.shape)
        return (
            f"{text}, most expert {expert} of layer {self.layer_ids[layer]}: "
            f"{100 * self.difference[layer, expert]:+.1f} points (permuted prompts "
            f"{100 * self.null_mean_abs[layer, expert]:.1f})"
        )


def permuted_differences(first: Floats, total: Floats) -> tuple[Floats, Floats, Floats]:
    """Each expert of a layer: its difference of shares, the null's mean size, and p.

    Parameters
    ----------
    first : ndarray, shape [1 + B, E]
        Choices on the first side of each labelling, the observed one first.
    total : ndarray, shape [E]
        Choices on both sides.

    Returns
    -------
    difference, null_mean_abs, p_value : ndarray, shape [E]
    """
    second = total - first
    difference = first / first.sum(axis=1, keepdims=True)
    difference -= second / second.sum(axis=1, keepdims=True)
    null = np.abs(difference[1:])
    reach = (null >= np.abs(difference[0]) - _TOLERANCE).sum(axis=0)
    return difference[0], null.mean(axis=0), (1 + reach) / (1 + len(null))


def adjusted(p: Floats) -> Floats:
    """Benjamini and Hochberg's adjusted p over all values that are known; NaN for the others."""
    from scipy.stats import false_discovery_control

    q = np.full_like(p, np.nan)
    if (known := np.isfinite(p)).any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q
