"""Held-out prediction of a layer's experts: from earlier layers, and by what else is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import RouteCounts, count
from routestats.counts._history import check_context
from routestats.counts._plan import check_pairing, pair_layers
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import (
    by_name,
    check_confidence,
    check_flag,
    check_integer,
    check_sides,
)
from routestats.stats._base.estimate import resampling_weights
from routestats.stats._history.hits import measure_history
from routestats.stats._hop_accuracy.measure import HopMeasure, estimate_measure
from routestats.stats._hop_accuracy.text import measures_table, table_by_hop
from routestats.stats._predictors.allowed import choose_predictors
from routestats.stats._predictors.hits import Hits, Tally, hop_hits
from routestats.stats._predictors.measure import Measure
from routestats.stats._predictors.table import ALWAYS
from routestats.stats._predictors.token_hits import previous_token_hits, token_id_hits
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class HopAccuracy(Result):
    """How well layers predict later ones; made by `hop_accuracy`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
        ``any``: predicted from the source layer's set; ``top1``: from its first choice.
    domains : tuple of str
        Those that the test tokens come from.
    train_tokens, test_tokens : int
    test_groups : int
        Prompt groups on the test side, the units that are resampled.
    confidence : float
        Level of the intervals, e.g. 0.95.
    bootstrap, seed : int
    measures : tuple of HopMeasure
        Top-1 accuracy (unless left out), recall at K, 2K and 4K where below E, exact set.
    predictors : tuple of str
        Those that were measured, in the order of ``measure.predictions``.
    left_out : dict of str to str
        Of ``predictors="all"`` those that could not be measured, each with the reason.
    fallback_tokens : dict of str to int
        Test tokens for which a predictor knew no more than the marginal, and guessed it: of
        ``token_id`` those of an id that training never saw, of ``previous_token`` those without a
        row one position before in their request.
    history_context : str or None
        ``set`` or ``top1``: what history looked at; None without history.
    history_order, history_support : ndarray of int64, shape [L, L], or None
        Of ``history_selected``: most layers of context, and least training tokens that share it,
        chosen for each ``[source, target]``; 0 where target <= source. None without history.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    domains: tuple[str, ...]
    train_tokens: int
    test_tokens: int
    test_groups: int
    confidence: float
    bootstrap: int
    seed: int
    measures: tuple[HopMeasure, ...]
    predictors: tuple[str, ...]
    left_out: dict[str, str]
    fallback_tokens: dict[str, int]
    history_context: str | None
    history_order: npt.NDArray[np.int64] | None
    history_support: npt.NDArray[np.int64] | None

    def __getitem__(self, name: str) -> HopMeasure:
        return by_name("measure", self.measures, name)

    @property
    def main(self) -> HopMeasure:
        """Top-1 accuracy, or recall at K where top-1 was left out."""
        return self.measures[0]

    def to_table(self) -> pa.Table:
        """One row per measure, predictor and layer pair, and one per measure, predictor and hop.

        Columns ``measure, predictor, kind, source, target, hop, value, low, high, gain, gain_low,
        gain_high``. `kind` is ``pair``, with layers as indices 0..L-1, or ``hop``, the mean over
        all pairs of that hop, without layers. Values are shares of 1, gains over the marginal.
        """
        return measures_table(self.measures)

    def summary(self) -> str:
        """Every predictor at hops 1, 2, 4, 8, 16 and 31, where they exist, with intervals."""
        lines = [
            f"prediction of later layers ({self.pairing}), {self.shape}: fitted on "
            f"{self.train_tokens:,} tokens, measured on {self.test_tokens:,} of "
            f"{self.test_groups:,} prompt groups",
            f"in %, means over the layer pairs of a hop{self._interval_note()}",
        ]
        recall = self[Measure.recall(self.shape.top_k).name]
        for measure in dict.fromkeys((self.main, recall)):
            lines += table_by_hop(measure)
        if self.history_context is not None:
            known = "sets" if self.history_context == "set" else "first choices"
            lines.append(f"  history: by the {known} of all layers up to the source")
        lines += [
            f"  {name}: {count / self.test_tokens:.1%} of the tokens fell back to the marginal"
            for name, count in self.fallback_tokens.items()
            if count
        ]
        lines += [f"  {name}: not measured, {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)

    def _interval_note(self) -> str:
        if np.isnan(self.main.hop_by_distance.low).all():
            return ", no intervals"
        return f" [{self.confidence:.0%} intervals]"


def hop_accuracy(
    train: Trace | RouteCounts,
    test: Trace,
    pairing: str = "any",
    *,
    predictors: str | Iterable[str] = "all",
    history_context: str | None = None,
    top1: bool = True,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> HopAccuracy:
    """Predict layers' experts by every predictor; fitted on `train`, measured on `test`.

    ``single_hop`` predicts every layer from every earlier one: the score of expert f at the target
    layer, given the set S of a token at the source layer, is the sum over e in S of the affinity
    A[e, f] in the training counts. With pairing ``any`` S is the token's top-K set and A its
    co-selection; with ``top1`` both are of first choices. Ties go to the lowest id. An expert that
    training never saw contributes the marginal instead. What it is worth shows beside

    - ``uniform``: a guess drawn evenly;
    - ``marginal``: the experts that training used most at the target layer;
    - ``token_id``: those that training tokens of the same id used most there, or the marginal for
      an id that training never saw;
    - ``previous_token``: those that the token one position before chose there, in its order, then
      the others in the order of the marginal; the marginal alone for a request's first token and
      after a gap in the positions. It is fitted on nothing;
    - ``history_longest`` and ``history_selected``: by all layers up to the source, the longest
      context that training saw, or the order and support that did best on a part of `train`
      (see `history`). The first overfits, so naming one of the two measures both.

    Parameters
    ----------
    train : Trace or RouteCounts
        Counts must have the named pairing and hold all hops.
    test : Trace
        Tokens that `train` does not hold, of other prompts: see `Trace.split`.
    pairing : str
        ``any`` or ``top1``: what is known of the source layer, of equal token ids and of the
        previous token. The measures are the same.
    predictors : "all" or iterable of str
        Names as above. ``uniform``, ``marginal`` and ``single_hop`` are always measured; ``all``
        leaves out what cannot be, and says so (`HopAccuracy.left_out`).
    history_context : "set", "top1" or None
        Whether history looks at the layers' sets or at their first choices. By default sets with
        pairing ``any``, first choices with ``top1``. Of many experts hardly a set occurs twice,
        and first choices tell more.
    top1 : bool
        Whether to measure top-1 accuracy, which needs to know each token's first choice. Pass
        False for a trace whose order of experts is not known.
    bootstrap : int
        Resamples of the prompt groups of `test`; 0 for no intervals.
    seed : int
        Of the resampling, and of the inner split that history is selected on.
    confidence : float
        Level of the percentile intervals, between 0 and 1.

    Returns
    -------
    HopAccuracy

    Raises
    ------
    InvalidTypeError
        If `test` is no trace, `train` neither trace nor counts, `bootstrap` or `seed` no integer,
        or a predictor no name.
    InvalidValueError
        If there is one layer only, a side is empty, the two sides differ in shape or layers, the
        counts have another pairing, first choices are needed and not known, a row of `test` has an
        expert twice in one layer, a predictor does not exist, or ``token_id`` or history was named
        and cannot be measured (`train` is counts or has one prompt group, or token ids are not
        known).

    Notes
    -----
    Recall at M is the part of a token's K experts that is among the M best scores. The intervals
    are conditional on the fit: they resample prompt groups of the test side, within each domain
    (a group belongs to the domain of its first row). They are NaN where a domain has fewer than
    two groups. Rounding: scores are compared in fixed point, to 40 binary digits where they fit.
    ``token_id``, ``previous_token`` and history hold the experts in memory, the others read in
    chunks.
    """
    if not isinstance(train, (Trace, RouteCounts)):
        raise InvalidTypeError(
            f"train: expected a Trace or RouteCounts, got {type(train).__name__}"
        )
    if not isinstance(test, Trace):
        raise InvalidTypeError(f"test: expected a Trace, got {type(test).__name__}")
    confidence = check_confidence(confidence)
    check_integer("bootstrap", bootstrap, 0)
    seed = check_integer("seed", seed, 0)
    check_pairing(pairing)
    top1 = check_flag("top1", top1)
    context = check_context(
        ("set" if pairing == "any" else "top1") if history_context is None else history_context
    )
    _check_traces(train, test, need_order=top1 or "top1" in (pairing, history_context))
    names, left_out, inner = choose_predictors(predictors, train, test, seed=seed)
    if not set(names) <= set(ALWAYS):
        # Decoded once a side and held, so that the passes below read memory.
        for side in (train, test):
            if isinstance(side, Trace):
                _ = side.experts
    fitted = train
    if not isinstance(fitted, RouteCounts):
        fitted = count(fitted, hops=range(1, test.shape.num_layers), pairing=pairing)
    if fitted.pairing != pairing:
        raise InvalidValueError(f"train.pairing: expected {pairing!r}, got {fitted.pairing!r}")
    if fitted.tokens == 0:
        raise InvalidValueError("train: expected at least 1 token, got 0")

    tally = Tally.of(test, top1=top1)
    weights = resampling_weights(tally.strata, resamples=bootstrap, seed=seed)
    hits: dict[str, Hits] = {}
    fallback: dict[str, int] = {}
    hits["single_hop"], hits["marginal"] = hop_hits(fitted, test, tally)
    if "token_id" in names and isinstance(train, Trace):
        hits["token_id"], fallback["token_id"] = token_id_hits(fitted, train, test, tally)
    if "previous_token" in names:
        hits["previous_token"], fallback["previous_token"] = previous_token_hits(
            fitted, test, tally
        )
    order = support = None
    if inner is not None and isinstance(train, Trace):
        history = measure_history(
            train, test, inner, context=context, measures=tally.measures, seed=seed
        )
        hits["history_longest"], hits["history_selected"] = history.longest, history.selected
        order = _matrix(history.selected_order, test.shape)
        support = _matrix(history.selected_support, test.shape)
    measures = tuple(
        estimate_measure(index, tally, hits, names, weights, confidence, test.shape)
        for index in range(len(tally.measures))
    )
    domains = test.domains
    return HopAccuracy(
        shape=test.shape,
        layer_ids=tuple(int(i) for i in test.layer_ids),
        pairing=pairing,
        domains=tuple(domains[int(i)] for i in np.unique(tally.strata)),
        train_tokens=int(fitted.tokens),
        test_tokens=int(tally.tokens.sum()),
        test_groups=len(tally.tokens),
        confidence=float(confidence),
        bootstrap=int(bootstrap),
        seed=int(seed),
        measures=measures,
        predictors=names,
        left_out=left_out,
        fallback_tokens=fallback,
        history_context=None if order is None else context,
        history_order=order,
        history_support=support,
    )


def _matrix(of_pairs: npt.NDArray[np.int64], shape: RouteShape) -> npt.NDArray[np.int64]:
    """Values of the layer pairs as [L, L], 0 where target <= source."""
    matrix = np.zeros((shape.num_layers, shape.num_layers), dtype=np.int64)
    matrix[pair_layers(shape.num_layers)] = of_pairs
    return matrix


def _check_traces(train: Trace | RouteCounts, test: Trace, *, need_order: bool) -> None:
    check_sides(train, test)
    for name, side in (("train", train), ("test", test)):
        if isinstance(side, RouteCounts):
            continue
        if len(side) == 0:
            raise InvalidValueError(f"{name}: expected at least 1 token, got 0")
        if need_order and not side.ordered:
            raise InvalidValueError(
                f"{name}.ordered: expected experts in order of weight, which first choices need, "
                "got a trace of unknown order (pairing='any' with top1=False does without)"
            )
