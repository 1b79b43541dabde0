"""Do two runs route the same tokens alike?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError, NoCommonTokensError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import check_confidence, checked_experts
from routestats.stats._base.estimate import (
    Estimate,
    Floats,
    resampling_weights,
)
from routestats.stats._base.row_order import RowOrder
from routestats.stats._base.units import Units, share_estimate
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Agreement(Result):
    """How often two runs route the same token alike; made by `agreement`.

    All shares are of 1, per layer, and their intervals resample prompt groups.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : dict from measure to str
        ``same_first`` is over first choices (``top1``), the others over all choices (``any``).
    tokens, groups : int
        Tokens that both runs hold after the same tokens, and their prompt groups.
    confidence : float
    bootstrap, seed : int
    same_first : Estimate of shape [L]
        Share of tokens with the same first choice; NaN where the order is not known.
    same_set : Estimate of shape [L]
        Share of tokens with the same K experts.
    overlap : Estimate of shape [L]
        Mean share of the K experts that are common.
    chance_first, chance_set, chance_overlap : ndarray, shape [L]
        What the same tokens of the two runs would give if they were paired at random; see Notes.
        `chance_first` is NaN where the order is not known.

    Notes
    -----
    The chance of two independent draws from the two runs' own distributions over these tokens, at
    each layer, which is the chance agreement of Cohen's kappa (Cohen, Educational and Psychological
    Measurement 20, 1960, 37-46): ``sum over e of p(e) q(e)`` for first choices, with p and q the
    shares of first choices in either run; ``sum over S of p(S) q(S)`` for sets, with p and q the
    shares of tokens that have just the set S; ``K * sum over e of p(e) q(e)`` for the overlap, with
    shares of all choices. If both runs used all sets evenly, `chance_set` would be
    ``1 / C(E, K)``.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: dict[str, str]
    tokens: int
    groups: int
    confidence: float
    bootstrap: int
    seed: int
    same_first: Estimate
    same_set: Estimate
    overlap: Estimate
    chance_first: Floats
    chance_set: Floats
    chance_overlap: Floats

    def to_table(self) -> pa.Table:
        """One row per layer."""
        columns: dict[str, object] = {"layer_id": list(self.layer_ids)}
        for name in ("same_first", "same_set", "overlap"):
            estimate = getattr(self, name)
            columns |= {
                name: estimate.value,
                f"{name}_low": estimate.low,
                f"{name}_high": estimate.high,
            }
        for name in ("first", "set", "overlap"):
            columns[f"chance_{name}"] = getattr(self, f"chance_{name}")
        return pa.table(columns)

    def summary(self) -> str:
        """Means over layers, and the layer that differs most."""
        worst = int(self.overlap.value.argmin())
        firsts = (
            "first choice not known"
            if np.isnan(self.chance_first).any()
            else f"first choice (top1) {self.same_first.value.mean():.2%} (chance "
            f"{self.chance_first.mean():.2%})"
        )
        sets = f"{self.same_set.value.mean():.2%} (chance {self.chance_set.mean():.2%})"
        overlap = f"{self.overlap.value.mean():.2%} (chance {self.chance_overlap.mean():.2%})"
        return (
            f"same routing of the same {self.tokens:,} tokens ({self.groups} prompt groups), mean "
            f"over layers: {firsts}, whole set (any) {sets}, overlap (any) {overlap}; least at "
            f"layer {self.layer_ids[worst]}, overlap {self.overlap.value[worst]:.2%}"
        )


def agreement(
    first: Trace,
    second: Trace,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Agreement:
    """Compare the routing of the tokens that two runs have in common.

    Two runs of one model on the same prompts, say before and after quantisation, hold the same
    token where the request's prompt group, the position and all tokens up to it are equal. So
    text that was written differently is compared up to the first difference.

    Parameters
    ----------
    first, second : Trace
        Of one shape; token ids must be known. Of several samples of a prompt the first is taken.
    bootstrap : int
        Resamples of the prompt groups, within each domain of `first`; 0 for no intervals.
    seed : int
    confidence : float
        Level of the percentile intervals.

    Returns
    -------
    Agreement

    Raises
    ------
    InvalidTypeError
        If either is no trace.
    InvalidValueError
        If the shapes or layers differ, token ids are unknown, or an id is not below E.
    NoCommonTokensError
        If no token is common; an InvalidValueError, too.

    Notes
    -----
    Intervals are NaN where a domain has one prompt group only.
    """
    for name, trace in (("first", first), ("second", second)):
        if not isinstance(trace, Trace):
            raise InvalidTypeError(f"{name}: expected a Trace, got {type(trace).__name__}")
    confidence = check_confidence(confidence)
    for what in ("shape", "layer_ids"):
        mine, theirs = getattr(first, what), getattr(second, what)
        if mine != theirs:
            raise InvalidValueError(f"second.{what}: expected {mine} as in first, got {theirs}")
    rows, others, groups = _common_rows(first, second)
    if len(rows) == 0:
        raise NoCommonTokensError("second: expected tokens that first holds too, got none")
    mine, theirs = checked_experts(first)[rows], checked_experts(second)[others]
    units = Units.by_code(groups, RowOrder.of(first).domain[rows])
    weights = resampling_weights(units.domain, resamples=bootstrap, seed=seed)

    def share(hits: npt.NDArray[np.number]) -> Estimate:
        return share_estimate(_sums(hits, units), units.tokens, weights, confidence)

    size = first.shape.top_k
    common = np.zeros(mine.shape[:2])
    for slot in range(size):
        common += (theirs == mine[:, :, slot : slot + 1]).any(axis=2)
    ordered = first.ordered and second.ordered
    same_first = (mine[:, :, 0] == theirs[:, :, 0]).astype(np.float64)
    if not ordered:
        same_first[:] = np.nan
    loads = [_shares(part, first.shape.num_experts) for part in (mine, theirs)]
    firsts = [_shares(part[:, :, :1], first.shape.num_experts) for part in (mine, theirs)]
    chance = (firsts[0] * firsts[1]).sum(axis=1)
    return Agreement(
        shape=first.shape,
        layer_ids=tuple(first.layer_ids),
        pairing={"same_first": "top1", "same_set": "any", "overlap": "any"},
        tokens=len(rows),
        groups=len(units),
        confidence=confidence,
        bootstrap=bootstrap,
        seed=seed,
        same_first=share(same_first),
        same_set=share(common == size),
        overlap=share(common / size),
        chance_first=chance if ordered else np.full_like(chance, np.nan),
        chance_set=_equal_sets(mine, theirs),
        chance_overlap=(loads[0] * loads[1]).sum(axis=1) * size,
    )


def _sums(values: npt.NDArray[np.number], units: Units) -> Floats:
    """Sums [U, ...] over the rows of each unit; rows are sorted by unit."""
    starts = np.concatenate(([0], np.cumsum(units.tokens[:-1])))
    sums: Floats = np.add.reduceat(values.astype(np.float64), starts, axis=0)
    return sums


def _shares(experts: npt.NDArray[np.integer], num_experts: int) -> Floats:
    """Shares [L, E] of the choices of each layer."""
    layers = experts.shape[1]
    loads = [
        np.bincount(experts[:, layer].ravel(), minlength=num_experts) for layer in range(layers)
    ]
    shares: Floats = np.stack(loads) / (len(experts) * experts.shape[2])
    return shares


def _equal_sets(mine: npt.NDArray[np.integer], theirs: npt.NDArray[np.integer]) -> Floats:
    """Chance [L] that a row of `mine` and one of `theirs` have the same set, whatever the token."""
    tokens, layers, size = mine.shape
    chance = np.empty(layers)
    for layer in range(layers):
        sets = np.sort(np.concatenate((mine[:, layer], theirs[:, layer])), axis=1)
        # Rows as single values, which sort far faster than rows of an axis.
        whole = np.ascontiguousarray(sets).view(np.dtype((np.void, sets.itemsize * size)))
        _, codes = np.unique(whole.ravel(), return_inverse=True)
        counts = [np.bincount(part, minlength=codes.max() + 1) for part in np.split(codes, 2)]
        chance[layer] = (counts[0].astype(np.float64) * counts[1]).sum() / float(tokens) ** 2
    return chance


def _common_rows(
    first: Trace, second: Trace
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Rows of either trace that hold the same token after the same tokens, and their groups."""
    numbers: dict[str, int] = {}
    sides = [_Rows(trace, numbers) for trace in (first, second)]
    _, left, right = np.intersect1d(
        sides[0].keys, sides[1].keys, assume_unique=True, return_indices=True
    )
    rows, others = sides[0].rows[left], sides[1].rows[right]
    groups = sides[0].keys[left] >> 32
    # Sorted by group and position: equal up to a row while no row of its group before differs.
    differs = sides[0].token_ids[rows] != sides[1].token_ids[others]
    before = np.cumsum(differs)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    base = np.zeros(len(groups), np.int64)
    if len(starts):
        at_start = before[starts] - differs[starts]
        base = np.repeat(at_start, np.diff(np.append(starts, len(groups))))
    keep = before - base == 0
    return rows[keep], others[keep], groups[keep]


class _Rows:
    """The rows of the first request of each prompt group, keyed by group and position."""

    def __init__(self, trace: Trace, numbers: dict[str, int]) -> None:
        table, order = trace.requests, RowOrder.of(trace)
        group_of = dict(
            zip(table["request_id"].to_pylist(), table["group"].to_pylist(), strict=True)
        )
        number = np.full(len(order.names), -1)
        taken: set[int] = set()
        for place, request in enumerate(order.names):
            group = group_of.get(request)
            if group is None or numbers.get(group) in taken:
                continue
            number[place] = numbers.setdefault(group, len(numbers))
            taken.add(int(number[place]))
        groups = number[order.request]
        rows = trace.rows
        self.token_ids = rows["token_id"].to_numpy()
        if (self.token_ids < 0).any():
            raise InvalidValueError("token_ids: expected to be known, got -1")
        self.rows = np.flatnonzero(groups >= 0)
        self.keys = (groups[self.rows] << 32) | rows["position"].to_numpy()[self.rows]
