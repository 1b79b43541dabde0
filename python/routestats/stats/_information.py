"""How much one layer's routing tells about another's, beside what would fake it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import RouteCounts, count
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape
from routestats.stats import _tables
from routestats.stats._intervals import Estimate, Floats
from routestats.stats._jackknife import information_without_groups, jackknife_interval
from routestats.stats._result import Result
from routestats.stats._shuffle import ShuffleWithin
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Information(Result):
    """Mutual information between layers; made by `information`.

    Matrices are ``[source, target]``, of shape [L, L], and NaN where the hop was not asked for.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
        ``top1``: of first choices. ``any``: of the table of all K x K pairs, normalised; its cells
        are not independent, so that it is no information about sets and is not normalised.
    hops : tuple of int
    tokens, groups : int
        Tokens, and prompt groups, which the jackknife leaves out one at a time.
    null_draws, seed : int
    confidence : float
    mi_bits : Estimate
        Plug-in mutual information with its jackknife interval.
    miller_madow_bits : ndarray
        The same with Miller and Madow's correction; to be read beside the plug-in value, never to
        be subtracted together with a null.
    request_null_bits : ndarray
        Mean over draws with tokens permuted within their request, anew for each layer: what the
        request's own load explains, and the bias of the estimator.
    token_null_bits : ndarray
        Mean over draws with tokens permuted among equal token ids over the whole trace: what the
        token's identity alone explains. NaN where token ids are not known.
    normalised : ndarray
        ``mi_bits`` over the entropy of the target; NaN for ``any``.
    cramers_v : ndarray
        Bias-corrected; NaN for ``any``.
    mean_by_hop : Estimate of shape [len(hops)]
        Mean of ``mi_bits`` over the layer pairs of each hop, with its jackknife interval.
    request_null_by_hop, token_null_by_hop : ndarray, shape [len(hops)]
        Means of the nulls over the same pairs.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    hops: tuple[int, ...]
    tokens: int
    groups: int
    null_draws: int
    seed: int
    confidence: float
    mi_bits: Estimate
    miller_madow_bits: Floats
    request_null_bits: Floats
    token_null_bits: Floats
    normalised: Floats
    cramers_v: Floats
    mean_by_hop: Estimate
    request_null_by_hop: Floats
    token_null_by_hop: Floats

    @property
    def excess_over_request_bits(self) -> Floats:
        """``mi_bits - request_null_bits``, [L, L]."""
        return self.mi_bits.value - self.request_null_bits

    @property
    def excess_over_token_bits(self) -> Floats:
        """``mi_bits - token_null_bits``, [L, L]."""
        return self.mi_bits.value - self.token_null_bits

    def to_table(self) -> pa.Table:
        """One row per layer pair: its layers, every value and the interval."""
        source, target = np.nonzero(np.isfinite(self.mi_bits.value))
        matrices = {
            "mi_bits": self.mi_bits.value,
            "mi_low_bits": self.mi_bits.low,
            "mi_high_bits": self.mi_bits.high,
            "miller_madow_bits": self.miller_madow_bits,
            "request_null_bits": self.request_null_bits,
            "token_null_bits": self.token_null_bits,
            "normalised": self.normalised,
            "cramers_v": self.cramers_v,
        }
        values = {name: matrix[source, target] for name, matrix in matrices.items()}
        return pa.table({"source": source, "target": target, "hop": target - source, **values})

    def summary(self) -> str:
        """A line per hop, with both nulls."""
        lines = [
            f"mutual information ({self.pairing}), {self.shape}: {self.tokens:,} tokens of "
            f"{self.groups} prompt groups, {self.null_draws} draws per null; means over layer pairs"
        ]
        for i, hop in enumerate(self.hops):
            value, low, high = (part[i] for part in self.mean_by_hop)
            lines.append(
                f"  hop {hop:2d}: {value:.4f} bits [{low:.4f}, {high:.4f}]   within requests "
                f"permuted {self.request_null_by_hop[i]:.4f}   within token ids permuted "
                f"{self.token_null_by_hop[i]:.4f}"
            )
        return "\n".join(lines)


def information(
    trace: Trace,
    pairing: str = "top1",
    *,
    hops: Sequence[int] | str = (1,),
    null_draws: int = 10,
    seed: int = 0,
    confidence: float = 0.95,
) -> Information:
    """Mutual information between layers, with two nulls, corrections and intervals.

    Parameters
    ----------
    trace : Trace
        Its experts are held in memory.
    pairing : str
        ``top1`` or ``any``.
    hops : sequence of int, or "all"
        Distances between layers, at least 1.
    null_draws : int
        Permutations per null; 0 for none (NaN).
    seed : int
        Of the permutations.
    confidence : float
        Level of the jackknife intervals.

    Returns
    -------
    Information

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace.
    InvalidValueError
        If it has no tokens or one layer only, a hop is out of range, or ``top1`` is asked of a
        trace whose order of experts is not known.

    Notes
    -----
    The interval is of the plug-in value; an excess over a null has about the same width.
    """
    if not isinstance(trace, Trace):
        raise InvalidTypeError(f"trace: expected a Trace, got {type(trace).__name__}")
    if not 0.0 < confidence < 1.0:
        raise InvalidValueError(f"confidence: expected between 0 and 1, got {confidence}")
    if null_draws < 0:
        raise InvalidValueError(f"null_draws: expected at least 0, got {null_draws}")
    chosen = _hops(hops, trace.shape.num_layers)
    if len(trace) == 0:
        raise InvalidValueError("trace: expected at least 1 token, got 0")
    if pairing == "top1" and not trace.ordered:
        raise InvalidValueError(
            "trace.ordered: expected experts in order of weight, which pairing 'top1' needs, got "
            "a trace of unknown order"
        )
    counts = count(trace, hops=chosen, pairing=pairing)
    stack, places = _stack(counts, chosen)
    groups = np.unique(trace.row_groups(), return_inverse=True)[1]
    without = _without_groups(trace, pairing, places, groups)
    mi = _tables.mutual_information_bits(stack)
    by_hop = _averager(places, chosen)
    request, token = _nulls(trace, pairing, chosen, null_draws, seed)

    top1 = pairing == "top1"
    missing = np.full(len(places), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        normalised = mi / _tables.entropy_bits(stack.sum(axis=-2)) if top1 else missing

    def matrix(values: Floats) -> Floats:
        layers = trace.shape.num_layers
        full = np.full((layers, layers), np.nan)
        full[tuple(np.transpose(places))] = values
        return full

    return Information(
        shape=trace.shape,
        layer_ids=tuple(trace.layer_ids),
        pairing=pairing,
        hops=chosen,
        tokens=counts.tokens,
        groups=len(without),
        null_draws=null_draws,
        seed=seed,
        confidence=confidence,
        mi_bits=Estimate(*(matrix(part) for part in jackknife_interval(mi, without, confidence))),
        miller_madow_bits=matrix(_tables.miller_madow_bits(stack)),
        request_null_bits=matrix(request),
        token_null_bits=matrix(token),
        normalised=matrix(normalised),
        cramers_v=matrix(_tables.cramers_v(stack) if top1 else missing),
        mean_by_hop=jackknife_interval(by_hop @ mi, without @ by_hop.T, confidence),
        request_null_by_hop=by_hop @ request,
        token_null_by_hop=by_hop @ token,
    )


def _hops(hops: Sequence[int] | str, layers: int) -> tuple[int, ...]:
    if layers < 2:
        raise InvalidValueError("trace: expected at least 2 layers, got 1")
    if isinstance(hops, str):
        if hops != "all":
            raise InvalidValueError(f"hops: expected 'all' or integers, got {hops!r}")
        return tuple(range(1, layers))
    chosen = tuple(sorted({int(hop) for hop in hops}))
    if not chosen or chosen[0] < 1 or chosen[-1] >= layers:
        raise InvalidValueError(f"hops: expected some of 1 to {layers - 1}, got {tuple(hops)}")
    return chosen


def _stack(
    counts: RouteCounts, hops: Sequence[int]
) -> tuple[npt.NDArray[np.uint64], list[tuple[int, int]]]:
    """Tables [P, E, E] of all pairs of these hops, and the pairs."""
    layers = counts.shape.num_layers
    places = [(src, src + hop) for hop in hops for src in range(layers - hop)]
    return np.stack([counts.pair(src, dst) for src, dst in places]), places


def _averager(places: Sequence[tuple[int, int]], hops: Sequence[int]) -> Floats:
    """Matrix [hops, P] that takes the mean over the pairs of each hop."""
    distance = np.array([dst - src for src, dst in places])
    same = (distance[None, :] == np.array(hops)[:, None]).astype(np.float64)
    averager: Floats = same / same.sum(axis=1, keepdims=True)
    return averager


def _without_groups(
    trace: Trace, pairing: str, places: Sequence[tuple[int, int]], groups: npt.NDArray[np.intp]
) -> Floats:
    slots = trace.shape.top_k if pairing == "any" else 1
    # One layer after the other in memory: each is read for many pairs.
    columns = np.ascontiguousarray(trace.experts[:, :, :slots].transpose(1, 0, 2))
    num_groups = int(groups.max()) + 1
    without = np.empty((num_groups, len(places)))
    for i, (src, dst) in enumerate(places):
        without[:, i] = information_without_groups(
            columns[src], columns[dst], groups, num_groups, trace.shape.num_experts
        )
    return without


def _nulls(
    trace: Trace, pairing: str, hops: Sequence[int], draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Means over draws of the information of permuted tokens: within requests, within ids."""
    rows = trace.rows
    requests = rows["request_id"].combine_chunks()
    request_codes = requests.indices.to_numpy() if len(rows) else np.empty(0, np.int32)
    token_ids = rows["token_id"].to_numpy()
    rng = np.random.default_rng(seed)

    def mean(classes: npt.NDArray[np.integer]) -> Floats:
        shuffle = ShuffleWithin(classes)
        found = [missing]
        for _ in range(draws):
            counts = count(
                shuffle(trace.experts, rng),
                num_experts=trace.shape.num_experts,
                hops=hops,
                pairing=pairing,
            )
            found.append(_tables.mutual_information_bits(_stack(counts, hops)[0]))
        values: Floats = np.mean(found[1:] or found, axis=0)
        return values

    missing = np.full(sum(trace.shape.num_layers - hop for hop in hops), np.nan)
    token = mean(token_ids) if (token_ids >= 0).all() else missing
    return mean(request_codes), token
