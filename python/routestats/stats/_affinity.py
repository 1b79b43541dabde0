"""Affinity: which experts of one layer follow those of another."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import RouteCounts
from routestats.result import Result
from routestats.stats._base.checks import check_counts


@dataclass(frozen=True, slots=True, eq=False)
class Affinity(Result):
    """Affinity of one pair of layers; made by `affinity`.

    Attributes
    ----------
    src, dst : int
        Layers, 0..L-1.
    layer_ids : tuple of two int
        Their decoder-layer numbers.
    pairing : str
        ``any`` or ``top1``.
    tokens : int
        Tokens T that were counted.
    source_tokens : ndarray of uint64, shape [E]
        Tokens behind each row: those that chose the source expert.
    matrix : ndarray of float64, shape [E, E]
        ``matrix[e, f]``. ``top1``: P(f is first at `dst` | e is first at `src`), rows sum to 1.
        ``any``: P(f is chosen at `dst` | e is chosen at `src`), rows sum to K. The row of an
        expert that no token chose is NaN.
    """

    src: int
    dst: int
    layer_ids: tuple[int, int]
    pairing: str
    tokens: int
    source_tokens: npt.NDArray[np.uint64]
    matrix: npt.NDArray[np.float64]

    @property
    def target_share(self) -> npt.NDArray[np.float64]:
        """Share of all tokens that chose each target expert, [E]: affinity without a source."""
        pairs = np.nansum(self.matrix * self.source_tokens[:, None], axis=0)
        share: npt.NDArray[np.float64] = pairs / self.source_tokens.sum(dtype=np.float64)
        return share

    def to_table(self) -> pa.Table:
        """One row per pair of experts."""
        source, target = (axis.ravel() for axis in np.indices(self.matrix.shape))
        return pa.table(
            {
                "source_expert": source,
                "target_expert": target,
                "source_tokens": self.source_tokens[source],
                "affinity": self.matrix.ravel(),
                "target_share": self.target_share[target],
            }
        )

    def summary(self, top: int = 3) -> str:
        """The strongest affinities, beside the share of all tokens that the target has."""
        lines = [
            f"affinity ({self.pairing}), experts of layer {self.layer_ids[1]} given those of layer "
            f"{self.layer_ids[0]}, "
            f"{self.tokens:,} tokens; the strongest, beside the share of all tokens"
        ]
        values = np.where(np.isfinite(self.matrix), self.matrix, -1.0)
        if self.src == self.dst:
            np.fill_diagonal(values, -1.0)  # an expert goes with itself
        share = self.target_share
        for place in np.argsort(-values, axis=None, kind="stable")[:top]:
            source, target = np.unravel_index(place, values.shape)
            if values[source, target] >= 0:
                lines.append(
                    f"  expert {source} -> {target}: {values[source, target]:.1%} "
                    f"(all tokens {share[target]:.1%})"
                )
        return "\n".join(lines)


def affinity(counts: RouteCounts, src: int, dst: int) -> Affinity:
    """Affinity of the experts of layer `dst` to those of layer `src`.

    Parameters
    ----------
    counts : RouteCounts
        Must hold the hop ``abs(dst - src)``; the result has its pairing.
    src, dst : int
        Layers 0..L-1. With ``src == dst`` and pairing ``any`` it is the co-activation within the
        layer, with a diagonal of 1; ``src > dst`` looks backwards.

    Returns
    -------
    Affinity

    Raises
    ------
    InvalidTypeError
        If `counts` are none, or a layer no integer.
    InvalidValueError
        If no token was counted, a layer is out of range or the hop was not counted.

    Notes
    -----
    Pair counts over the source expert's count, as in ExFlow (arXiv 2401.08383).
    """
    counts = check_counts(counts)
    pairs = np.asarray(counts.pair(src, dst), dtype=np.float64)
    src, dst = operator.index(src), operator.index(dst)
    source_tokens = np.asarray(counts.expert[src], dtype=np.uint64)
    seen = (source_tokens > 0)[:, None]
    matrix = np.divide(pairs, source_tokens[:, None], out=np.full_like(pairs, np.nan), where=seen)
    return Affinity(
        src=src,
        dst=dst,
        layer_ids=(int(counts.layer_ids[src]), int(counts.layer_ids[dst])),
        pairing=counts.pairing,
        tokens=int(counts.tokens),
        source_tokens=source_tokens,
        matrix=matrix,
    )
