"""How much one layer's routing tells about another's, beside what would fake it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import GroupedRows, count
from routestats.counts._plan import check_pairing, layer_pairs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base import contingency
from routestats.stats._base.checks import (
    check_confidence,
    check_integer,
    check_order,
    check_trace,
)
from routestats.stats._base.estimate import Estimate, Floats
from routestats.stats._base.row_order import RowOrder, rows_in_order
from routestats.stats._base.units import Units
from routestats.stats._information.levels import Null, Permutable
from routestats.stats._information.without_groups import (
    Jackknifed,
    cell_sums,
    information_without_groups,
    jackknife,
)
from routestats.stats._information.without_groups import information as information_of
from routestats.trace import Trace

SPARSE_BIAS_BITS = 1 / (2 * 4 * np.log(2))  # about 4 independent tokens per cell


@dataclass(frozen=True, slots=True, eq=False)
class Information(Result):
    """Mutual information between layers; made by `information`.

    Matrices are ``[source, target]``, of shape [L, L], and NaN where the hop was not asked for.
    Arrays by hop have shape [len(hops)] and are means over the layer pairs of each hop.

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
    domains : tuple of str
        Those that the tokens come from: the strata of the jackknife.
    null_draws, seed : int
    confidence : float
    mi_bits : Estimate
        Plug-in mutual information, and a jackknife interval for the information itself. The
        plug-in value is too large, and lies above its interval where its bias is more than the
        interval is wide; the interval lies around `jackknife_bits`. NaN bounds where tokens are
        too few for one, see `information`.
    jackknife_bits : ndarray
        ``mi_bits`` less the jackknife's estimate of its bias, which sees that the tokens of a
        group are alike. NaN where a domain has fewer than two groups.
    miller_madow_bits : ndarray
        ``mi_bits`` with Miller and Madow's correction, which takes tokens for independent; to be
        read beside the plug-in value, never to be subtracted together with a null.
    request_null_bits : ndarray
        Mean over draws with tokens permuted within their request, anew for each layer: what the
        request's own load explains, and the bias of the estimator.
    token_null_bits : ndarray
        Mean over draws with tokens permuted among equal token ids over the whole trace: what the
        token's identity alone explains. NaN where token ids are not known.
    request_excess : Estimate
        ``mi_bits - request_null_bits`` in bits, with the jackknife interval of that difference:
        each group is left out of the value and of the draws. As in `mi_bits`, what is left of the
        bias is taken off the interval and not off the value.
    request_p, token_p : ndarray
        Share of draws, the trace itself among them, with at least ``mi_bits``:
        ``(1 + b) / (1 + null_draws)``, not corrected for the number of layer pairs.
    normalised : ndarray
        ``mi_bits`` over the entropy of the target; NaN for ``any``.
    cramers_v : ndarray
        Bias-corrected; NaN for ``any``.
    cramers_v_uncorrected : ndarray
        NaN for ``any``.
    mean_by_hop, jackknife_by_hop : Estimate, ndarray
        Of ``mi_bits`` and ``jackknife_bits``.
    request_null_by_hop, token_null_by_hop : ndarray
    request_excess_by_hop : Estimate
    request_p_by_hop, token_p_by_hop : ndarray
        Of the mean over the pairs of the hop.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    hops: tuple[int, ...]
    tokens: int
    groups: int
    domains: tuple[str, ...]
    null_draws: int
    seed: int
    confidence: float
    mi_bits: Estimate
    jackknife_bits: Floats
    miller_madow_bits: Floats
    request_null_bits: Floats
    token_null_bits: Floats
    request_excess: Estimate
    request_p: Floats
    token_p: Floats
    normalised: Floats
    cramers_v: Floats
    cramers_v_uncorrected: Floats
    mean_by_hop: Estimate
    jackknife_by_hop: Floats
    request_null_by_hop: Floats
    token_null_by_hop: Floats
    request_excess_by_hop: Estimate
    request_p_by_hop: Floats
    token_p_by_hop: Floats

    @property
    def excess_over_request_bits(self) -> Floats:
        """``mi_bits - request_null_bits``, [L, L]."""
        return self.request_excess.value

    @property
    def excess_over_token_bits(self) -> Floats:
        """``mi_bits - token_null_bits``, [L, L]; without an interval, see `information`."""
        return self.mi_bits.value - self.token_null_bits

    def to_table(self) -> pa.Table:
        """One row per layer pair: its layers, every value and the intervals."""
        source, target = np.nonzero(np.isfinite(self.mi_bits.value))
        matrices = {
            "mi_bits": self.mi_bits.value,
            "mi_low_bits": self.mi_bits.low,
            "mi_high_bits": self.mi_bits.high,
            "jackknife_bits": self.jackknife_bits,
            "miller_madow_bits": self.miller_madow_bits,
            "request_null_bits": self.request_null_bits,
            "token_null_bits": self.token_null_bits,
            "request_excess_bits": self.request_excess.value,
            "request_excess_low_bits": self.request_excess.low,
            "request_excess_high_bits": self.request_excess.high,
            "token_excess_bits": self.excess_over_token_bits,
            "request_p": self.request_p,
            "token_p": self.token_p,
            "normalised": self.normalised,
            "cramers_v": self.cramers_v,
            "cramers_v_uncorrected": self.cramers_v_uncorrected,
        }
        values = {name: matrix[source, target] for name, matrix in matrices.items()}
        return pa.table({"source": source, "target": target, "hop": target - source, **values})

    def summary(self) -> str:
        """A line per hop, with both nulls."""
        lines = [
            f"mutual information ({self.pairing}) in bits, {self.shape}: {self.tokens:,} tokens of "
            f"{self.groups} prompt groups, {self.null_draws} draws per null; means over layer "
            f"pairs, {self.confidence:.0%} intervals"
        ]
        for i, hop in enumerate(self.hops):
            bounds, excess_bounds = (
                estimate.bounds(i, ".4f") or "(no interval)"
                for estimate in (self.mean_by_hop, self.request_excess_by_hop)
            )
            lines.append(
                f"  hop {hop:2d}: plug-in {self.mean_by_hop.value[i]:.4f}, less its bias "
                f"{self.jackknife_by_hop[i]:.4f} {bounds}   permuted within "
                f"requests {self.request_null_by_hop[i]:.4f}, excess "
                f"{self.request_excess_by_hop.value[i]:+.4f} {excess_bounds}, p "
                f"{self.request_p_by_hop[i]:.3f}   within token ids "
                f"{self.token_null_by_hop[i]:.4f}, p {self.token_p_by_hop[i]:.3f}"
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
        Distances between layers, at least 1. Every draw of a null counts all of these hops, so
        that with many experts (E >= 64) a few of them are the wiser choice.
    null_draws : int
        Permutations per null; 0 for none (NaN).
    seed : int
        Of the permutations, 0 or more.
    confidence : float
        Level of the jackknife intervals.

    Returns
    -------
    Information

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace, or a hop, `null_draws` or `seed` no integer.
    InvalidValueError
        If it has no tokens or one layer only, a hop is out of range, or ``top1`` is asked of a
        trace whose order of experts is not known.

    Notes
    -----
    Intervals are of the delete-a-group jackknife over prompt groups, within each domain (a group
    belongs to the first domain that holds it), with the estimated bias taken off: see `jackknife`.
    They are NaN where a domain has one group only. Simulated with groups whose tokens correlate by
    0.3, nominal 95 % cover 93 to 98 % for tables of up to 8 x 8 cells
    (``bench/interval_coverage.py``). They cover 79 to 86 % where the information is hardly more
    than its own error, since it is never negative and its estimate is far from normal there: then
    read the nulls' p. With many cells and few tokens none would hold, because no bias can be
    estimated from cells that were never seen. A table of n x n cells biases the plug-in value of N
    independent tokens by (n - 1)^2 / (2 N ln 2) bits, so where the estimated bias is above
    1 / (2 * 4 ln 2) = 0.18 bits there are fewer than about 4 independent tokens per cell, and
    `mi_bits` and `mean_by_hop` have no interval (NaN): read the excess over a null, which has about
    the same bias.

    The excess over the token null has no interval of its own: permutations within a token id cross
    prompt groups, and leaving one out changes every draw.
    """
    chosen = _check(trace, pairing, hops, null_draws, seed, confidence)
    counts = count(trace, hops=chosen, pairing=pairing)
    experts = trace.experts
    units = Units.whole(trace)
    codes, strata = units.of_row, units.domain
    order = RowOrder.of(trace)
    sums = cell_sums(counts)
    mi = information_of(counts, sums)
    without = information_without_groups(experts, counts, sums, GroupedRows.of(codes))
    request, token = _nulls(
        trace, Permutable(experts, counts, rows_in_order(trace), seed), codes, order, null_draws
    )

    layers = trace.shape.num_layers
    places = layer_pairs(layers, chosen)
    by_hop = _averager(places, chosen)
    top1 = pairing == "top1"
    missing = np.full(len(places), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        entropy = contingency.entropy_bits(counts.expert[[dst for _, dst in places]])
        normalised = mi / entropy if top1 else missing

    def of_tables(statistic: Callable[[npt.NDArray[np.uint64]], Floats]) -> Floats:
        # One at a time: many large tables would be copied several times over.
        return np.array([statistic(counts.pair(src, dst)) for src, dst in places])

    def matrix(values: Floats) -> Floats:
        full = np.full((layers, layers), np.nan)
        full[tuple(np.transpose(places))] = values
        return full

    whole = jackknife(mi, without, strata, confidence)
    whole_by_hop = jackknife(by_hop @ mi, without @ by_hop.T, strata, confidence)
    excess = mi - request.mean
    # Without draws the excess is NaN, and so is everything that is computed from it.
    excess_without = without - (request.mean if request.without is None else request.without)
    excess_found = jackknife(excess, excess_without, strata, confidence)
    excess_by_hop = jackknife(by_hop @ excess, excess_without @ by_hop.T, strata, confidence)
    return Information(
        shape=trace.shape,
        layer_ids=tuple(trace.layer_ids),
        pairing=pairing,
        hops=chosen,
        tokens=counts.tokens,
        groups=len(strata),
        domains=tuple(trace.domains[int(i)] for i in np.unique(strata)),
        null_draws=int(null_draws),
        seed=int(seed),
        confidence=float(confidence),
        mi_bits=Estimate(*(matrix(part) for part in _unless_sparse(whole, mi))),
        jackknife_bits=matrix(whole.corrected),
        miller_madow_bits=matrix(of_tables(contingency.miller_madow_bits)),
        request_null_bits=matrix(request.mean),
        token_null_bits=matrix(token.mean),
        request_excess=Estimate(*(matrix(part) for part in excess_found.around(excess))),
        request_p=matrix(request.p(mi)),
        token_p=matrix(token.p(mi)),
        normalised=matrix(normalised),
        cramers_v=matrix(of_tables(contingency.cramers_v) if top1 else missing),
        cramers_v_uncorrected=matrix(
            of_tables(partial(contingency.cramers_v, corrected=False)) if top1 else missing
        ),
        mean_by_hop=_unless_sparse(whole_by_hop, by_hop @ mi),
        jackknife_by_hop=whole_by_hop.corrected,
        request_null_by_hop=by_hop @ request.mean,
        token_null_by_hop=by_hop @ token.mean,
        request_excess_by_hop=excess_by_hop.around(by_hop @ excess),
        request_p_by_hop=request.p(by_hop @ mi, by_hop),
        token_p_by_hop=token.p(by_hop @ mi, by_hop),
    )


def _unless_sparse(found: Jackknifed, value: Floats) -> Estimate:
    """`value` with its interval, except where tokens are too few for one; see `information`."""
    with np.errstate(invalid="ignore"):
        sparse = value - found.corrected > SPARSE_BIAS_BITS
    low, high = (np.where(sparse, np.nan, bound) for bound in (found.low, found.high))
    return Estimate(value, low, high)


def _check(
    trace: Trace,
    pairing: str,
    hops: Sequence[int] | str,
    null_draws: int,
    seed: int,
    confidence: float,
) -> tuple[int, ...]:
    """The hops, checked as all the other arguments are."""
    trace = check_trace(trace)
    check_pairing(pairing)
    check_confidence(confidence)
    check_integer("null_draws", null_draws, 0)
    check_integer("seed", seed, 0)
    layers = trace.shape.num_layers
    if layers < 2:
        raise InvalidValueError("trace: expected at least 2 layers, got 1")
    chosen = _hops(hops, layers)
    if pairing == "top1":
        check_order(trace, "pairing 'top1'")
    return chosen


def _hops(hops: Sequence[int] | str, layers: int) -> tuple[int, ...]:
    if isinstance(hops, str):
        if hops != "all":
            raise InvalidValueError(f"hops: expected 'all' or integers, got {hops!r}")
        return tuple(range(1, layers))
    try:
        chosen = tuple(sorted({operator.index(hop) for hop in hops}))
    except TypeError:
        raise InvalidTypeError(f"hops: expected 'all' or integers, got {hops!r}") from None
    if not chosen or chosen[0] < 1 or chosen[-1] >= layers:
        raise InvalidValueError(f"hops: expected some of 1 to {layers - 1}, got {tuple(hops)}")
    return chosen


def _averager(places: Sequence[tuple[int, int]], hops: Sequence[int]) -> Floats:
    """Matrix [hops, P] that takes the mean over the pairs of each hop."""
    distance = np.array([dst - src for src, dst in places])
    same = (distance[None, :] == np.array(hops)[:, None]).astype(np.float64)
    averager: Floats = same / same.sum(axis=1, keepdims=True)
    return averager


def _nulls(
    trace: Trace,
    permutable: Permutable,
    groups: npt.NDArray[np.intp],
    order: RowOrder,
    draws: int,
) -> tuple[Null, Null]:
    """The null within requests, and that within token ids (without draws if they are unknown)."""
    token_ids = trace.rows["token_id"].to_numpy()
    return (
        permutable.within_requests(groups, order.request, draws),
        permutable.within_token_ids(token_ids, draws if (token_ids >= 0).all() else 0),
    )
