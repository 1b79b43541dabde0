"""Co-activation: which experts of one layer are chosen together?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import RouteCounts
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import check_counts, check_integer, check_sets
from routestats.stats._base.estimate import Floats
from routestats.stats._base.foremost import foremost


@dataclass(frozen=True, slots=True, eq=False)
class Coactivation(Result):
    """Experts chosen together within a layer; made by `coactivation`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
        ``any``: all pairs of a token's K experts.
    tokens : int
    load : ndarray of uint64, shape [L, E]
        Tokens that chose each expert.
    matrix : ndarray of float64, shape [L, E, E]
        ``[l, i, j]``: of the tokens that chose i, the share that chose j too. The diagonal is 1;
        the row of an expert that no token chose is NaN.
    independent : ndarray of float64, shape [L, E, E]
        The same if the K - 1 experts beside i fell on the others in proportion to their loads.
    strongest : ndarray of int64, shape [L, N, 2]
        The pairs (i, j) of the largest shares of each layer, the lowest ids first among equals;
        -1 where a layer has fewer pairs.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    tokens: int
    load: npt.NDArray[np.uint64]
    matrix: Floats
    independent: Floats
    strongest: npt.NDArray[np.int64]

    def to_table(self, partners: int | None = None) -> pa.Table:
        """One row per layer and ordered pair of different experts.

        With `partners`, only as many of the largest shares of each expert: no row of another is
        made.
        """
        layers, experts, _ = self.matrix.shape
        others = experts - 1 if partners is None else partners
        chosen = []
        for matrix in self.matrix:
            shares = matrix.copy()
            np.fill_diagonal(shares, -np.inf)
            chosen.append(foremost(shares, others))
        first, second = (np.concatenate(part) for part in zip(*chosen, strict=True))
        layer = np.repeat(np.arange(layers), [len(part[0]) for part in chosen])
        return pa.table(
            {
                "layer": layer,
                "layer_id": np.array(self.layer_ids)[layer],
                "expert": first,
                "other": second,
                "tokens": self.load[layer, first],
                "share": self.matrix[layer, first, second],
                "independent": self.independent[layer, first, second],
            }
        )

    def summary(self, layers: int = 5) -> str:
        """The strongest pair of each of the `layers` layers whose strongest pair is strongest."""
        lines = [
            f"co-activation ({self.pairing}), {self.shape}: {self.tokens:,} tokens; the strongest "
            f"pairs, beside what independence at the same loads would give"
        ]
        pairs = self.strongest[:, 0]
        known = np.flatnonzero(pairs[:, 0] >= 0)
        shares = self.matrix[known, pairs[known, 0], pairs[known, 1]]
        for layer in known[np.argsort(-shares, kind="stable")][:layers]:
            i, j = pairs[layer]
            lines.append(
                f"  layer {self.layer_ids[layer]:2d}: of the tokens of expert {i}, "
                f"{self.matrix[layer, i, j]:.1%} chose expert {j} too "
                f"(independent {self.independent[layer, i, j]:.1%})"
            )
        return "\n".join(lines)


def coactivation(counts: RouteCounts, *, top: int = 5) -> Coactivation:
    """Shares of tokens that chose a second expert of the same layer, given a first.

    Parameters
    ----------
    counts : RouteCounts
        Of pairing ``any``, with hop 0.
    top : int
        How many pairs of each layer are listed as the strongest.

    Returns
    -------
    Coactivation

    Raises
    ------
    InvalidTypeError
        If `counts` are none, or `top` is no integer.
    InvalidValueError
        If the pairing is another, hop 0 was not counted, K is 1, no token was counted, or a token
        holds an expert twice at a layer.

    Notes
    -----
    ``C[l, l][i, j] / n[l, i]``, equation 6 of OLMoE (arXiv 2409.02060), over all pairs of the K
    experts. Under independence a token of i has its K - 1 other experts spread by load:
    ``(K - 1) n[l, j] / sum of n[l, f] over f != i``, whose rows sum to K - 1 as those of `matrix`
    do off the diagonal.
    """
    top = check_integer("top", top, 1)
    shape = check_counts(counts).shape
    if counts.pairing != "any":
        raise InvalidValueError(
            f"counts.pairing: expected 'any', a first choice has no other beside it, got "
            f"{counts.pairing!r}"
        )
    if shape.top_k < 2:
        raise InvalidValueError(f"counts.shape.top_k: expected at least 2, got {shape.top_k}")
    if 0 not in counts.hops:
        raise InvalidValueError(f"counts.hops: expected 0 among them, got {counts.hops}")
    check_sets(counts)
    load = np.asarray(counts.expert, dtype=np.uint64)
    both = np.stack([counts.pair(layer, layer) for layer in range(shape.num_layers)])
    tokens = load.astype(np.float64)[:, :, None]
    seen = np.broadcast_to(tokens > 0, both.shape)
    matrix = np.divide(both, tokens, out=np.full(both.shape, np.nan), where=seen)

    others = tokens.sum(axis=1, keepdims=True) - tokens
    weight = np.broadcast_to(tokens.transpose(0, 2, 1), both.shape)
    independent = np.divide(
        (shape.top_k - 1) * weight, others, out=np.full(both.shape, np.nan), where=seen
    )
    diagonal = np.arange(shape.num_experts)
    independent[:, diagonal, diagonal] = matrix[:, diagonal, diagonal]
    return Coactivation(
        shape=shape,
        layer_ids=tuple(int(i) for i in counts.layer_ids),
        pairing=counts.pairing,
        tokens=int(counts.tokens),
        load=load,
        matrix=matrix,
        independent=independent,
        strongest=_strongest(matrix, top),
    )


def _strongest(matrix: Floats, top: int) -> npt.NDArray[np.int64]:
    layers, side, _ = matrix.shape
    values = np.where(np.isfinite(matrix), matrix, -1.0)
    values[:, np.arange(side), np.arange(side)] = -1.0
    flat = values.reshape(layers, -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :top]
    found = np.take_along_axis(flat, order, axis=1) >= 0
    pairs = np.stack((order // side, order % side), axis=2)
    listed: npt.NDArray[np.int64] = np.where(found[:, :, None], pairs, -1).astype(np.int64)
    return listed
