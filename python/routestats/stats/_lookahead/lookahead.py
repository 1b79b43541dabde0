"""How well the gates of later layers choose when they are given this layer's hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from routestats.counts import count
from routestats.counts._plan import layer_pairs, pair_layers
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import by_name, check_confidence, check_trace
from routestats.stats._base.estimate import (
    Estimate,
    Floats,
    percentile_interval,
    resampling_weights,
)
from routestats.stats._hop_accuracy.measure import Prediction
from routestats.stats._hop_accuracy.text import SCHEMA, SHOWN_HOPS, cells_by_hop
from routestats.stats._lookahead.hits import LookaheadHits, lookahead_hits, marginal_hits
from routestats.stats._predictors.hits import Hits
from routestats.stats._predictors.measure import Measure
from routestats.stats._predictors.table import PREDICTORS
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class LookaheadMeasure:
    """One measure of `Lookahead`. All values are shares of 1.

    Attributes
    ----------
    name : str
        ``top1_accuracy``, ``recall_at_<M>`` or ``exact_set``.
    label : str
        The same for people.
    size : int or None
        M of a recall, else None.
    uniform : float
        What guessing at random reaches.
    marginal : Estimate of shape [L]
        What the experts used most at each target layer reach; NaN at layer 0.
    marginal_by_hop : Estimate of shape [L - 1]
        Its mean over the captured pairs of each hop.
    predictions : tuple of Prediction
        ``lookahead`` and, where it was captured, ``lookahead_renormed``: NaN for pairs and hops
        that were not captured.
    """

    name: str
    label: str
    size: int | None
    uniform: float
    marginal: Estimate
    marginal_by_hop: Estimate
    predictions: tuple[Prediction, ...]

    def __getitem__(self, predictor: str) -> Prediction:
        return by_name("predictor", self.predictions, predictor)


@dataclass(frozen=True, slots=True, eq=False)
class Lookahead(Result):
    """Recall and accuracy of later gates on earlier hidden states; made by `lookahead`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    hops : tuple of int
        Those that were captured.
    ranks : int
        Experts kept of each prediction.
    domains : tuple of str
    tokens, groups : int
        Tokens measured, and the prompt groups that are resampled.
    marginal_of : str
        What the marginal was fitted on: ``train``, or ``same tokens``, which favours it.
    confidence : float
    bootstrap, seed : int
    measures : tuple of LookaheadMeasure
        Top-1 accuracy (unless left out), recall at K, 2K and 4K as far as ranks were kept, exact
        set.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    hops: tuple[int, ...]
    ranks: int
    domains: tuple[str, ...]
    tokens: int
    groups: int
    marginal_of: str
    confidence: float
    bootstrap: int
    seed: int
    measures: tuple[LookaheadMeasure, ...]

    def __getitem__(self, name: str) -> LookaheadMeasure:
        return by_name("measure", self.measures, name)

    @property
    def recall(self) -> LookaheadMeasure:
        """Recall at K."""
        return self[Measure.recall(self.shape.top_k).name]

    def to_table(self) -> pa.Table:
        """Rows as `HopAccuracy.to_table` has them, of the pairs and hops that were captured."""
        rows = []
        for measure in self.measures:
            for prediction in measure.predictions:
                start = {"measure": measure.name, "predictor": prediction.name}
                # As one reads a matrix, row by row.
                for s, t in sorted(layer_pairs(self.shape.num_layers, self.hops)):
                    values = _cells(prediction.matrix, prediction.gain, (s, t))
                    place = {"kind": "pair", "source": s, "target": t, "hop": t - s}
                    rows.append({**start, **place, **values})
                for hop in self.hops:
                    values = _cells(prediction.by_hop, prediction.gain_by_hop, (hop - 1,))
                    rows.append({**start, "kind": "hop", "hop": hop, **values})
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def summary(self) -> str:
        """Recall at K by hop, beside its baselines."""
        few = len(self.hops) <= len(SHOWN_HOPS)
        shown = [hop for hop in self.hops if few or hop in SHOWN_HOPS]
        measure = self.recall
        lines = [
            f"later gates on this layer's hidden state, {self.shape}: {self.tokens:,} tokens of "
            f"{self.groups:,} prompt groups; {measure.label} in %, means over the layer pairs of "
            f"a hop",
            f"  {'':21s}" + "".join(f"  {f'hop {hop}':<16s}" for hop in shown).rstrip(),
            f"  {'uniform guess':21s}"
            + "".join(f"  {measure.uniform * 100:<16.1f}" for _ in shown).rstrip(),
            f"  {f'marginal ({self.marginal_of})':21s}"
            + cells_by_hop(measure.marginal_by_hop, shown),
        ]
        lines += [
            f"  {prediction.label:21s}{cells_by_hop(prediction.by_hop, shown)}"
            for prediction in measure.predictions
        ]
        return "\n".join(lines)


def _cells(value: Estimate, gain: Estimate, at: tuple[int, ...]) -> dict[str, float | None]:
    names = ("value", "low", "high", "gain", "gain_low", "gain_high")
    parts = [float(part[at]) for part in (*value, *gain)]
    return {n: None if np.isnan(x) else x for n, x in zip(names, parts, strict=True)}


def lookahead(
    trace: Trace,
    *,
    train: Trace | None = None,
    top1: bool = True,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Lookahead:
    """How often gate l+k, applied to the hidden state of layer l, names what layer l+k chooses.

    ``lookahead`` applies it to the hidden state as it enters layer l's experts (Eliseev and Mazur,
    *Fast Inference of Mixture-of-Experts Language Models with Offloading*, arXiv 2312.17238);
    ``lookahead_renormed`` to the same residual under the norm of layer l+k in place of that of
    layer l. Nothing is fitted.

    Parameters
    ----------
    trace : Trace
        Captured with ``--lookahead``, or ``rs.capture(..., lookahead=H)``.
    train : Trace, optional
        What the marginal, the baseline, is fitted on. By default the same tokens, which favours
        the baseline.
    top1 : bool
        Whether to measure top-1 accuracy, which needs to know each token's first choice.
    bootstrap : int
        Resamples of the prompt groups; 0 for no intervals.
    seed : int
    confidence : float

    Returns
    -------
    Lookahead

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If an argument is wrong, or the trace has no lookahead.
    """
    check_trace(trace)
    confidence = check_confidence(confidence)
    fitted = trace if train is None else check_trace(train, "train")
    if fitted.shape != trace.shape:
        raise InvalidValueError(f"train.shape: expected {trace.shape}, got {fitted.shape}")
    sums = lookahead_hits(trace, top1=top1)
    layout = trace.lookahead
    assert layout is not None
    load = count(fitted, hops=(0,), pairing="any").expert
    marginal = marginal_hits(trace, sums.tally, load)
    weights = resampling_weights(sums.tally.strata, resamples=bootstrap, seed=seed)
    domains = trace.domains
    return Lookahead(
        shape=trace.shape,
        layer_ids=tuple(int(i) for i in trace.layer_ids),
        hops=layout.hops,
        ranks=layout.ranks,
        domains=tuple(domains[int(i)] for i in np.unique(sums.tally.strata)),
        tokens=int(sums.tally.tokens.sum()),
        groups=len(sums.tally.tokens),
        marginal_of="same tokens" if train is None else "train",
        confidence=confidence,
        bootstrap=int(bootstrap),
        seed=int(seed),
        measures=tuple(
            _measure(index, sums, marginal, weights, confidence, trace.shape)
            for index in range(len(sums.tally.measures))
        ),
    )


def _measure(
    index: int,
    sums: LookaheadHits,
    marginal: Hits,
    weights: Floats | None,
    level: float,
    shape: RouteShape,
) -> LookaheadMeasure:
    tally, layers = sums.tally, shape.num_layers
    measure = tally.measures[index]
    source, target = pair_layers(layers)
    in_hop = np.zeros((len(source), layers - 1))
    in_hop[np.arange(len(source)), target - source - 1] = sums.captured
    cells = in_hop.sum(axis=0)
    there = sums.captured

    def shares(hits: Hits, drawn: Floats) -> Floats:
        scale = (drawn @ tally.tokens)[:, None] * measure.most(shape.top_k)
        of: Floats = drawn @ hits[index] / scale
        return of

    def by_hop(of_pairs: Floats) -> Floats:
        mean: Floats = np.divide(
            of_pairs @ in_hop, cells, out=np.full((len(of_pairs), layers - 1), np.nan),
            where=cells > 0,
        )  # fmt: skip
        return mean

    whole = np.ones((1, len(tally.tokens)))
    base = [None if d is None else shares(marginal, d) for d in (whole, weights)]
    assert base[0] is not None

    def estimate(pick: list[Floats | None]) -> Estimate:
        assert pick[0] is not None
        return percentile_interval(pick[0][0], pick[1], level)

    def matrix(flat: Estimate) -> Estimate:
        parts = [np.full((layers, layers), np.nan) for _ in flat]
        for part, values in zip(parts, flat, strict=True):
            part[source[there], target[there]] = values[there]
        return Estimate(*parts)

    predictions = []
    for name, hits in sums.hits.items():
        own = [None if d is None else shares(hits, d) for d in (whole, weights)]
        less = [
            None if o is None or b is None else o - b[:, target - 1]
            for o, b in zip(own, base, strict=True)
        ]
        predictions.append(
            Prediction(
                name=name,
                label=PREDICTORS[name].label,
                matrix=matrix(estimate(own)),
                gain=matrix(estimate(less)),
                by_hop=estimate([None if o is None else by_hop(o) for o in own]),
                gain_by_hop=estimate([None if o is None else by_hop(o) for o in less]),
            )
        )
    per_target = estimate(base)
    at_pairs = [None if b is None else by_hop(b[:, target - 1]) for b in base]
    return LookaheadMeasure(
        name=measure.name,
        label=measure.label,
        size=measure.size,
        uniform=measure.uniform(shape),
        marginal=Estimate(*(np.concatenate(([np.nan], part)) for part in per_target)),
        marginal_by_hop=estimate(at_pairs),
        predictions=tuple(predictions),
    )
