"""Correlation: does choosing one expert go with choosing another at another layer?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import RouteCounts
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import check_counts, check_pairs, check_sets
from routestats.stats._base.estimate import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Correlation(Result):
    """Phi coefficients of the choices of experts; made by `correlation`.

    Matrices over layers are ``[source, target]`` and hold both triangles; they are NaN where the
    hop was not counted and where no coefficient exists. Within one layer an expert is not paired
    with itself.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
        ``any``: of "e is chosen"; ``top1``: of "e is the first choice".
    tokens : int
    largest : ndarray of float64, shape [L, L]
        The coefficient of greatest absolute value, with its sign.
    largest_experts : ndarray of int64, shape [L, L, 2]
        Its experts at source and target (the first of equals); -1 where there is none.
    mean_abs : ndarray of float64, shape [L, L]
        Mean absolute coefficient over the pairs of experts that have one.
    independent_mean_abs : float
        About what `mean_abs` would be between layers if tokens were independent of one another and
        the layers of each other: ``sqrt(2 / (pi * T))``.
    pairs : ndarray of int64, shape [P, 2]
        Layer pairs whose coefficients were asked for.
    matrices : ndarray of float64, shape [P, E, E]
        Their coefficients ``[e at source, f at target]``; NaN for an expert that all or no tokens
        chose.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    tokens: int
    largest: Floats
    largest_experts: npt.NDArray[np.int64]
    mean_abs: Floats
    independent_mean_abs: float
    pairs: npt.NDArray[np.int64]
    matrices: Floats

    def to_table(self) -> pa.Table:
        """One row per layer pair with source <= target."""
        source, target = np.nonzero(np.triu(np.isfinite(self.largest)))
        experts = self.largest_experts[source, target]
        return pa.table(
            {
                "source": source,
                "target": target,
                "hop": target - source,
                "largest": self.largest[source, target],
                "source_expert": experts[:, 0],
                "target_expert": experts[:, 1],
                "mean_abs": self.mean_abs[source, target],
            }
        )

    def summary(self) -> str:
        """A line on the mean by hop, and one on the largest coefficient between layers."""
        lines = [f"correlation (phi, {self.pairing}), {self.shape}: {self.tokens:,} tokens"]
        hops = [(k, np.diagonal(self.mean_abs, k)) for k in range(self.shape.num_layers)]
        known = [(k, float(np.nanmean(v))) for k, v in hops if np.isfinite(v).any()]
        shown = [pair for pair in known if pair[0] in (0, 1, 2, 4, 8, 16) or pair is known[-1]]
        means = ", ".join(f"{value:.3f} at hop {hop}" for hop, value in shown)
        lines.append(
            f"  mean absolute {means or 'not known'} (independent tokens: about "
            f"{self.independent_mean_abs:.4f})"
        )
        between = np.abs(np.triu(self.largest, 1))
        if np.nanmax(between, initial=0.0) > 0:
            src, dst = np.unravel_index(int(np.nanargmax(between)), between.shape)
            e, f = self.largest_experts[src, dst]
            lines.append(
                f"  largest {self.largest[src, dst]:+.3f}: expert {e} of layer "
                f"{self.layer_ids[src]} with expert {f} of layer {self.layer_ids[dst]}"
            )
        return "\n".join(lines)


def correlation(counts: RouteCounts, *, pairs: Iterable[tuple[int, int]] = ()) -> Correlation:
    """Phi (Pearson) coefficients of the indicators "e in S(t, l1)" and "f in S(t, l2)".

    Parameters
    ----------
    counts : RouteCounts
        Of either pairing; the hops that it holds are filled in. With hop 0 among them, tokens that
        hold an expert twice are found.
    pairs : iterable of (int, int)
        Layer pairs whose full [E, E] coefficients are kept.

    Returns
    -------
    Correlation

    Raises
    ------
    InvalidTypeError
        If `counts` are none, or `pairs` no pairs of integers.
    InvalidValueError
        If no token was counted, a token holds an expert twice at a layer, or a layer pair is out
        of range or was not counted.

    Notes
    -----
    With T tokens, n and n' of them choosing e and f, and C choosing both:
    ``(T C - n n') / sqrt(n (T - n) n' (T - n'))``. An expert that all or no tokens chose has no
    variance, and no coefficient.
    """
    check_sets(check_counts(counts))
    wanted = check_pairs("pairs", pairs)
    layers = counts.shape.num_layers
    largest, mean_abs = np.full((layers, layers), np.nan), np.full((layers, layers), np.nan)
    largest_experts = np.full((layers, layers, 2), -1, np.int64)
    for hop in counts.hops:
        for src in range(layers - hop):
            dst = src + hop
            size, where, mean = _extremes(_phi(counts, src, dst), within=hop == 0)
            for row, column, experts in ((src, dst, where), (dst, src, where[::-1])):
                largest[row, column], mean_abs[row, column] = size, mean
                largest_experts[row, column] = experts
    matrices = [_phi(counts, src, dst) for src, dst in wanted]
    side = counts.shape.num_experts
    return Correlation(
        shape=counts.shape,
        layer_ids=tuple(int(i) for i in counts.layer_ids),
        pairing=counts.pairing,
        tokens=int(counts.tokens),
        largest=largest,
        largest_experts=largest_experts,
        mean_abs=mean_abs,
        independent_mean_abs=float(np.sqrt(2 / (np.pi * counts.tokens))),
        pairs=np.array(wanted, np.int64).reshape(-1, 2),
        matrices=np.stack(matrices) if matrices else np.empty((0, side, side)),
    )


def _phi(counts: RouteCounts, src: int, dst: int) -> Floats:
    """Coefficients [E, E]; NaN where an indicator is constant."""
    both = counts.pair(src, dst).astype(np.float64)
    tokens = float(counts.tokens)
    first, second = (counts.expert[layer].astype(np.float64) for layer in (src, dst))
    spread = np.outer(first * (tokens - first), second * (tokens - second))
    phi: Floats = np.divide(
        tokens * both - np.outer(first, second),
        np.sqrt(spread),
        out=np.full_like(both, np.nan),
        where=spread > 0,
    )
    return phi


def _extremes(phi: Floats, *, within: bool) -> tuple[float, tuple[int, int], float]:
    """The coefficient of greatest absolute value, its experts, and the mean absolute one."""
    size = np.abs(phi)
    if within:
        np.fill_diagonal(size, np.nan)
    known = np.isfinite(size)
    if not known.any():
        return float("nan"), (-1, -1), float("nan")
    row, column = np.unravel_index(int(np.nanargmax(size)), size.shape)
    return float(phi[row, column]), (int(row), int(column)), float(size[known].mean())
