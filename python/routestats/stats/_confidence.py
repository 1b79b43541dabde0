"""How sure the gates are, and how well the sure and the unsure choices can be predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import count
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import (
    MOST,
    check_choice,
    check_confidence,
    check_integer,
    check_order,
    check_trace,
)
from routestats.stats._base.estimate import (
    Estimate,
    Floats,
    percentile_interval,
    resampling_weights,
)
from routestats.stats._base.units import Units
from routestats.stats._lookahead.hits import NAMES
from routestats.stats._predictors.allowed import Allowed, choose_predictors
from routestats.stats._predictors.guesses import guesses
from routestats.trace import Trace

BATCH_ROWS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class MarginCurve:
    """Accuracy of one predictor's guess of the first choice, by the gate's margin.

    Attributes
    ----------
    predictor : str
    margin : ndarray of float64, shape [b]
        Mean margin in each bin; bins hold about equally many choices.
    choices : ndarray of int64, shape [b]
    accuracy : Estimate of shape [b]
        Share of the bin's choices that the predictor's best guess named.
    """

    predictor: str
    margin: Floats
    choices: npt.NDArray[np.int64]
    accuracy: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What one predictor said of its guesses' chances, and how they went.

    Attributes
    ----------
    predictor : str
    stated : ndarray of float64, shape [b]
        Mean probability that it gave its guess; NaN in empty bins. Bins are of equal width.
    choices : ndarray of int64, shape [b]
    accuracy : Estimate of shape [b]
        Share of the guesses that were right.
    error : float
        Expected calibration error: mean of ``|accuracy - stated|``, weighted by choices (Naeini,
        Cooper and Hauskrecht, 2015).
    """

    predictor: str
    stated: Floats
    choices: npt.NDArray[np.int64]
    accuracy: Estimate
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class Confidence(Result):
    """Statistics of gate weights, and predictability by margin; made by `confidence`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    tokens, groups : int
    test_tokens, test_groups : int
        Those that the curves were measured on.
    hop : int
        Layers between source and target of the predictions.
    margin_at : {"target", "source"}
        Whose margin the curves go by.
    level : float
        Of the intervals.
    bootstrap, seed : int
    top1_weight : Estimate of shape [L]
        Mean weight of the first choice, as applied.
    entropy_bits : Estimate of shape [L]
        Mean entropy of the kept weights, scaled to sum to 1; at most ``log2(K)``.
    margin : Estimate of shape [L]
        Mean of first less second weight, scaled likewise; 1 where K is 1.
    curves : tuple of MarginCurve
        Of the predictors of `hop_accuracy` (history as it was selected), and of lookahead where it
        was captured.
    calibration : tuple of Calibration
        Of those that give probabilities: ``marginal``, ``token_id``, ``single_hop`` and
        ``history_selected``.
    left_out : dict of str to str
        Predictors that could not be measured, each with the reason.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    tokens: int
    groups: int
    test_tokens: int
    test_groups: int
    hop: int
    margin_at: str
    level: float
    bootstrap: int
    seed: int
    top1_weight: Estimate
    entropy_bits: Estimate
    margin: Estimate
    curves: tuple[MarginCurve, ...]
    calibration: tuple[Calibration, ...]
    left_out: dict[str, str]

    def to_table(self) -> pa.Table:
        """One row per layer and statistic of its weights."""
        rows = []
        for name in ("top1_weight", "entropy_bits", "margin"):
            value, low, high = getattr(self, name)
            for index, layer in enumerate(self.layer_ids):
                bounds = [None if np.isnan(x) else float(x) for x in (low[index], high[index])]
                rows.append(
                    {
                        "layer": layer,
                        "statistic": name,
                        "value": float(value[index]),
                        "low": bounds[0],
                        "high": bounds[1],
                    }
                )
        return pa.Table.from_pylist(rows)

    def summary(self) -> str:
        """Means over the layers, and accuracy of unsure and of sure choices."""
        lines = [
            f"gate weights, {self.shape}: {self.tokens:,} tokens of {self.groups:,} prompt groups; "
            f"mean over layers: first choice {self.top1_weight.value.mean():.3f}, margin "
            f"{self.margin.value.mean():.3f}, entropy {self.entropy_bits.value.mean():.3f} of at "
            f"most {np.log2(self.shape.top_k):.3f} bits",
            f"accuracy of the guessed first choice {self.hop} ahead, by margin at the "
            f"{self.margin_at}, least sure to surest tenth where there are ten bins "
            f"(uniform guess {1 / self.shape.num_experts:.1%}):",
        ]
        for curve in self.curves:
            shares = " ".join(f"{x:6.1%}" for x in curve.accuracy.value)
            lines.append(f"  {curve.predictor:<20}{shares}")
        for one in self.calibration:
            lines.append(f"  {one.predictor}: expected calibration error {one.error:.3f}")
        lines += [f"  {name}: not measured, {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)


def confidence(
    trace: Trace,
    *,
    train: Trace | None = None,
    hop: int = 1,
    margin_at: str = "target",
    bins: int = 10,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Confidence:
    """Weights of the chosen experts, and how predictability depends on their margin.

    Parameters
    ----------
    trace : Trace
        With weights, in order.
    train : Trace, optional
        What predictors are fitted on; then the curves are measured on all of `trace`. By default
        they are fitted on four fifths of its prompts and measured on the others.
    hop : int
        Layers between source and target.
    margin_at : {"target", "source"}
        Whose margin the curves go by: that of the choice which is predicted, or the one that is
        known when predicting.
    bins : int
    bootstrap : int
        Resamples of the prompt groups; 0 for no intervals.
    seed : int
    level : float
        Of the intervals, between 0 and 1.

    Returns
    -------
    Confidence

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If an argument is wrong, or the trace has no weights or no known order.
    """
    check_trace(trace)
    check_order(trace, "confidence")
    if train is not None:
        check_trace(train, "train")
    if not trace.has_weights:
        raise InvalidValueError("trace.weights: expected gate weights, got a trace without any")
    level = check_confidence(level)
    hop, bins = check_integer("hop", hop, 1), check_integer("bins", bins, 2, MOST)
    if hop >= trace.shape.num_layers:
        raise InvalidValueError(f"hop: expected below {trace.shape.num_layers} layers, got {hop}")
    check_choice("margin_at", margin_at, ("target", "source"))
    units = Units.whole(trace)
    sums, tokens = _weight_sums(trace, units), units.tokens
    weights = resampling_weights(units.domain, resamples=bootstrap, seed=seed)

    def mean(of: Floats) -> Estimate:
        samples = None if weights is None else (weights @ of) / (weights @ tokens)[:, None]
        return percentile_interval(of.sum(axis=0) / tokens.sum(), samples, level)

    fitted, test = (train, trace) if train is not None else trace.split(test=0.2, seed=seed)
    allowed = choose_predictors("all", fitted, test, seed=seed)
    curves, calibration, measured, groups = _curves(
        allowed,
        fitted,
        test,
        hop,
        margin_at == "source",
        bins,
        bootstrap,
        seed,
        level,
    )
    return Confidence(
        shape=trace.shape,
        layer_ids=tuple(int(i) for i in trace.layer_ids),
        tokens=int(tokens.sum()),
        groups=len(tokens),
        test_tokens=measured,
        test_groups=groups,
        hop=hop,
        margin_at=margin_at,
        level=level,
        bootstrap=int(bootstrap),
        seed=int(seed),
        top1_weight=mean(sums[0]),
        entropy_bits=mean(sums[1]),
        margin=mean(sums[2]),
        curves=curves,
        calibration=calibration,
        left_out={name: why for name, why in allowed.left_out.items() if name != "history_longest"},
    )


def _margins(weights: npt.NDArray[np.float16]) -> Floats:
    """First less second weight [t, L], of weights scaled to sum to 1."""
    wide = weights.astype(np.float64)
    share = wide / wide.sum(axis=2, keepdims=True)
    if share.shape[2] == 1:
        return np.ones(share.shape[:2])
    margin: Floats = share[:, :, 0] - share[:, :, 1]
    return margin


def _margins_by_layer(trace: Trace, layers: slice) -> npt.NDArray[np.float32]:
    """Margins of these layers, [layers, T]; the weights are read in batches and not held."""
    places = range(trace.shape.num_layers)[layers]
    margins = np.empty((len(places), len(trace)), np.float32)
    row = 0
    for batch in trace.batches("weights", BATCH_ROWS):
        assert batch.weights is not None
        margins[:, row : row + len(batch)] = _margins(batch.weights[:, layers]).T
        row += len(batch)
    return margins


def _weight_sums(trace: Trace, units: Units) -> Floats:
    """Sums [3, U, L] of first weight, entropy and margin."""
    sums = np.zeros((3, len(units), trace.shape.num_layers))
    row = 0
    for batch in trace.batches("weights", BATCH_ROWS):
        assert batch.weights is not None
        mine = units.of_row[row : row + len(batch)]
        row += len(batch)
        wide = batch.weights.astype(np.float64)
        share = wide / wide.sum(axis=2, keepdims=True)
        bits = -(share * np.log2(share, out=np.zeros_like(share), where=share > 0)).sum(axis=2)
        for index, values in enumerate((wide[:, :, 0], bits, _margins(batch.weights))):
            np.add.at(sums[index], mine, values)
    return sums


class _Binned:
    """Choices, hits and sums of what is on the horizontal axis, per bin and prompt group."""

    def __init__(self, edges: Floats, groups: int) -> None:
        self._edges, self._groups = edges, groups
        self.sums = np.zeros((3, len(edges) + 1, groups))

    def add(
        self, x: npt.NDArray[np.floating], hit: npt.NDArray[np.bool_], group: npt.NDArray[np.intp]
    ) -> None:
        """Values and hits [t] of rows of the groups [t]."""
        bins, size = len(self._edges) + 1, self._groups
        place = np.searchsorted(self._edges, x, side="right") * size + group
        for index, weight in enumerate((np.ones(len(x)), hit.astype(np.float64), x)):
            flat = np.bincount(place, weight, minlength=bins * size)
            self.sums[index] += flat.reshape(bins, size)

    def choices(self) -> npt.NDArray[np.int64]:
        counted: npt.NDArray[np.int64] = self.sums[0].sum(axis=1).astype(np.int64)
        return counted

    def mean_x(self) -> Floats:
        return _ratio(self.sums[2].sum(axis=1), self.sums[0].sum(axis=1))

    def accuracy(self, weights: Floats | None, level: float) -> Estimate:
        samples = None
        if weights is not None:
            samples = _ratio(weights @ self.sums[1].T, weights @ self.sums[0].T)
        value = _ratio(self.sums[1].sum(axis=1), self.sums[0].sum(axis=1))
        return percentile_interval(value, samples, level)


def _ratio(part: Floats, whole: Floats) -> Floats:
    share: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return share


def _curves(
    allowed: Allowed,
    fitted: Trace,
    test: Trace,
    hop: int,
    at_source: bool,
    bins: int,
    bootstrap: int,
    seed: int,
    level: float,
) -> tuple[tuple[MarginCurve, ...], tuple[Calibration, ...], int, int]:
    units = Units.whole(test)
    groups, strata = units.of_row, units.domain
    targets = slice(hop, None)
    margins = _margins_by_layer(
        test, slice(None, test.shape.num_layers - hop) if at_source else targets
    )
    steps = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    inner, even = np.quantile(margins, steps).astype(np.float64), steps.astype(np.float64)
    by_margin: dict[str, _Binned] = {}
    by_chance: dict[str, _Binned] = {}
    first = test.experts[:, :, 0]
    counts = count(fitted, hops=(hop,), pairing="top1")
    for name, source, guess in guesses(
        allowed.names, counts, fitted, test, allowed.inner, hop, seed
    ):
        hit = guess.expert == first[:, source + hop]
        curve = by_margin.setdefault(name, _Binned(inner, len(strata)))
        curve.add(margins[source], hit, groups)
        if guess.chance is not None:
            calibrated = by_chance.setdefault(name, _Binned(even, len(strata)))
            calibrated.add(guess.chance, hit, groups)
    layout = test.lookahead
    if layout is not None and hop in layout.hops:
        pairs = [s + hop == t for s, t in layout.pairs(test.shape.num_layers)]
        row = 0
        for batch in test.iter_lookahead(BATCH_ROWS, ["experts", "lookahead"]):
            rows = slice(row, row + len(batch))
            row += len(batch)
            assert batch.lookahead is not None
            for index, variant in enumerate(layout.variants):
                hit = batch.lookahead[:, index, pairs, 0] == batch.experts[:, targets, 0]
                curve = by_margin.setdefault(NAMES[variant], _Binned(inner, len(strata)))
                for x, right in zip(margins, hit.T, strict=True):
                    curve.add(x[rows], right, groups[rows])
    weights = resampling_weights(strata, resamples=bootstrap, seed=seed)
    curves = tuple(
        MarginCurve(name, one.mean_x(), one.choices(), one.accuracy(weights, level))
        for name, one in by_margin.items()
    )
    calibration = []
    for name, one in by_chance.items():
        accuracy, stated, choices = one.accuracy(weights, level), one.mean_x(), one.choices()
        off = np.nansum(np.abs(accuracy.value - stated) * choices) / choices.sum()
        calibration.append(Calibration(name, stated, choices, accuracy, float(off)))
    return curves, tuple(calibration), len(test), len(strata)
