"""Transfer: does what was learnt on one domain predict another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from routestats.counts import RouteCounts
from routestats.counts._plan import check_pairing, pair_layers
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.schema import PHASES
from routestats.shape import RouteShape
from routestats.stats._base.checks import (
    MOST,
    by_name,
    check_choice,
    check_confidence,
    check_flag,
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
from routestats.stats._base.row_order import rows_in_order
from routestats.stats._base.units import Units, stack_estimates
from routestats.stats._compare_domains.compare import two_domains
from routestats.stats._predictors.hits import Hits, Tally, hop_hits
from routestats.stats._predictors.measure import TOP1, Measure
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class TransferMeasure:
    """One measure of `Transfer`; all values are shares of 1.

    Attributes
    ----------
    name : str
        ``top1_accuracy`` or ``recall_at_<K>``.
    label : str
        The same for people.
    uniform : float
        What guessing at random reaches.
    hop : Estimate of shape [2, 2, L - 1]
        Single hop, ``[trained on, tested on, k - 1]``: means over the layer pairs k apart.
    marginal : Estimate of shape [2, 2, L - 1]
        The marginal baseline of the same training tokens, over the same targets.
    loss : Estimate of shape [2, L - 1]
        Per domain tested on: trained on itself less trained on the other (paired).
    """

    name: str
    label: str
    uniform: float
    hop: Estimate
    marginal: Estimate
    loss: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Transfer(Result):
    """Prediction within and across two domains; made by `transfer`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    pairing : str
        ``any``: predicted from the source layer's set; ``top1``: from its first choice.
    domains : tuple of two str
    phase : str or None
        None: both phases.
    train_tokens : int
        Tokens that each of the two was trained on.
    train_groups, test_tokens, test_groups : tuple of two int
        Of each domain; the tests are held out from both trainings.
    test_share, confidence : float
    bootstrap, seed : int
    measures : tuple of TransferMeasure
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    domains: tuple[str, str]
    phase: str | None
    train_tokens: int
    train_groups: tuple[int, int]
    test_tokens: tuple[int, int]
    test_groups: tuple[int, int]
    test_share: float
    confidence: float
    bootstrap: int
    seed: int
    measures: tuple[TransferMeasure, ...]

    def __getitem__(self, name: str) -> TransferMeasure:
        return by_name("measure", self.measures, name)

    def to_table(self) -> pa.Table:
        """One row per measure, domain trained on, domain tested on and hop."""
        rows = []
        for measure in self.measures:
            for place in np.ndindex(measure.hop.value.shape):
                values = {
                    name + suffix: float(part[place])
                    for name, estimate in (("hop", measure.hop), ("marginal", measure.marginal))
                    for suffix, part in zip(("_share", "_low", "_high"), estimate, strict=True)
                }
                rows.append(
                    {
                        "measure": measure.name,
                        "trained_on": self.domains[place[0]],
                        "tested_on": self.domains[place[1]],
                        "hop": place[2] + 1,
                        **values,
                    }
                )
        return pa.Table.from_pylist(rows)

    def summary(self) -> str:
        """The 2 x 2 of each measure over adjacent layers."""
        lines = [
            f"transfer, single hop ({self.pairing}), {self.shape}, "
            f"{self.phase or 'prefill and decode'}: trained on {self.train_tokens:,} tokens of "
            f"each domain; means over adjacent layers, {self.confidence:.0%} intervals (bootstrap "
            f"{self.bootstrap}, seed {self.seed})"
        ]
        for measure in self.measures:
            lines.append(f"  {measure.name}, uniform {measure.uniform:.1%}")
            for tested, domain in enumerate(self.domains):
                for trained in (tested, 1 - tested):
                    value = measure.hop.text((trained, tested, 0))
                    baseline = measure.marginal.value[trained, tested, 0]
                    lines.append(
                        f"    on {domain} from {self.domains[trained]}: {value}   marginal "
                        f"{baseline:.1%}"
                    )
                loss = measure.loss.text((tested, 0))
                lines.append(f"    on {domain} lost by training elsewhere: {loss}")
        return "\n".join(lines)


def transfer(
    trace: Trace,
    first: str | None = None,
    second: str | None = None,
    pairing: str = "any",
    *,
    phase: str | None = "prefill",
    top1: bool = True,
    test: float = 0.2,
    bootstrap: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Transfer:
    """Train single-hop prediction on each of two domains and test it on both, held out.

    Parameters
    ----------
    trace : Trace
    first, second : str, optional
        Domains; by default the two that the trace has.
    pairing : str
        ``any`` or ``top1``.
    phase : str or None
        ``prefill``, ``decode``, or None for both: domains differ in how much of either they have.
    top1 : bool
        Whether to measure top-1 accuracy. Pass False, with pairing ``any``, for a trace whose
        order of experts is not known.
    test : float
        Share of each domain's prompt groups that is held out.
    bootstrap : int
        Resamples of the prompt groups of each test; 0 for no intervals.
    seed : int
        Of the split, the choice of training groups and the resampling.
    confidence : float

    Returns
    -------
    Transfer

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace, or `bootstrap` or `seed` no integer.
    InvalidValueError
        If a domain is unknown, or has fewer than two prompt groups in the phase, there is one
        layer only, first choices are needed and not known, or an argument is out of range.

    Notes
    -----
    A prompt that both domains hold is on the same side in both, so no test prompt was trained on.
    Both trainings have equally many tokens, as a table fitted on more is better by that alone:
    prompt groups are drawn in random order until the smaller domain's number is reached, and of
    the last group only as many rows are taken as are missing, by request and position. Predictors,
    measures and intervals are those of `hop_accuracy`.
    """
    trace = check_trace(trace)
    confidence = check_confidence(confidence)
    bootstrap = check_integer("bootstrap", bootstrap, 0, MOST)
    seed = check_integer("seed", seed, 0)
    check_pairing(pairing)
    if phase is not None:
        check_choice("phase", phase, PHASES, none=" or None")
    top1 = check_flag("top1", top1)
    if trace.shape.num_layers < 2:
        raise InvalidValueError("trace: expected at least 2 layers to predict between, got 1")
    if top1 or pairing == "top1":
        check_order(trace, "top1=True" if top1 else "pairing 'top1'")
    names = two_domains(trace, first, second)
    part = trace.filter(domain=names) if phase is None else trace.filter(domain=names, phase=phase)
    for name in names:
        groups = len(Units.whole(part.filter(domain=name)))
        if groups < 2:
            raise InvalidValueError(
                f"{name}: expected at least 2 prompt groups in {phase or 'the trace'}, to train on "
                f"and to hold out, got {groups}"
            )
    train, held_out = part.split(test=test, seed=seed)
    trains = [_side(train, name, "train on") for name in names]
    tests = [_side(held_out, name, "hold out") for name in names]
    tokens = min(len(side) for side in trains)
    tallies = [Tally.of(side, top1=top1) for side in tests]

    def trained(side: Trace) -> tuple[list[tuple[Hits, Hits]], int]:
        # A fit goes when it was measured: two of many experts would take twice the memory.
        fit, groups = _fit(side, pairing, tokens, np.random.default_rng(seed))
        pairs = zip(tests, tallies, strict=True)
        return [hop_hits(fit, side, tally) for side, tally in pairs], groups

    hits, train_groups = zip(*(trained(side) for side in trains), strict=True)
    return Transfer(
        shape=trace.shape,
        layer_ids=tuple(trace.layer_ids),
        pairing=pairing,
        domains=names,
        phase=phase,
        train_tokens=tokens,
        train_groups=train_groups,
        test_tokens=(len(tests[0]), len(tests[1])),
        test_groups=(len(tallies[0].tokens), len(tallies[1].tokens)),
        test_share=float(test),
        confidence=confidence,
        bootstrap=int(bootstrap),
        seed=seed,
        measures=_measures(hits, tallies, trace.shape, bootstrap, seed, confidence),
    )


def _side(part: Trace, name: str, purpose: str) -> Trace:
    side = part.filter(domain=name)
    if len(side) == 0:
        raise InvalidValueError(
            f"{name}: expected prompts to {purpose} that the other domain does not share, got none"
        )
    return side


def _fit(
    side: Trace, pairing: str, tokens: int, rng: np.random.Generator
) -> tuple[RouteCounts, int]:
    """Counts of `tokens` tokens of groups in random order, and how many groups they are of."""
    codes, in_order = Units.whole(side).of_row, rows_in_order(side)
    place = rng.permutation(codes.max() + 1)[codes]
    taken = in_order[np.argsort(place[in_order], kind="stable")][:tokens]
    chosen = np.zeros(len(codes), bool)
    chosen[taken] = True
    counts = RouteCounts.empty(
        side.shape,
        hops=range(1, side.shape.num_layers),
        pairing=pairing,
        layer_ids=side.layer_ids,
    )
    row = 0
    for batch in side.iter_experts():
        counts.update(batch[chosen[row : row + len(batch)]])
        row += len(batch)
    return counts, len(np.unique(codes[taken]))


def _measures(
    hits: Sequence[list[tuple[Hits, Hits]]],
    tallies: list[Tally],
    shape: RouteShape,
    bootstrap: int,
    seed: int,
    confidence: float,
) -> tuple[TransferMeasure, ...]:
    """Shares by hop of each (trained on, tested on); draws of a test are shared by both fits."""
    weights = [
        resampling_weights(tally.strata, resamples=bootstrap, seed=seed) for tally in tallies
    ]
    measures = []
    for measure in (TOP1, Measure.recall(shape.top_k)):
        if measure not in tallies[0].measures:
            continue
        cells = [
            [_Cell.of(hits[a][b], tallies[b], measure, weights[b], shape) for b in range(2)]
            for a in range(2)
        ]

        def grid(kind: str, cells: list[list[_Cell]] = cells) -> Estimate:
            rows = ([getattr(cell, kind).estimate(confidence) for cell in row] for row in cells)
            return stack_estimates(stack_estimates(row) for row in rows)

        losses = [cells[b][b].hop.less(cells[1 - b][b].hop) for b in range(2)]
        measures.append(
            TransferMeasure(
                name=measure.name,
                label=measure.label,
                uniform=measure.uniform(shape),
                hop=grid("hop"),
                marginal=grid("marginal"),
                loss=stack_estimates(loss.estimate(confidence) for loss in losses),
            )
        )
    return tuple(measures)


class _Drawn(NamedTuple):
    """A value [L - 1] and its resamples [B, L - 1]."""

    value: Floats
    samples: Floats | None

    def less(self, other: _Drawn) -> _Drawn:
        if self.samples is None or other.samples is None:
            return _Drawn(self.value - other.value, None)
        return _Drawn(self.value - other.value, self.samples - other.samples)

    def estimate(self, confidence: float) -> Estimate:
        return percentile_interval(self.value, self.samples, confidence)


class _Cell(NamedTuple):
    """Shares by hop of one training and one test."""

    hop: _Drawn
    marginal: _Drawn

    @classmethod
    def of(
        cls,
        hits: tuple[Hits, Hits],
        tally: Tally,
        measure: Measure,
        weights: Floats | None,
        shape: RouteShape,
    ) -> _Cell:
        hop, marginal = _by_hop(hits, tally, measure, np.ones((1, len(tally.tokens))), shape)
        if weights is None:
            return cls(_Drawn(hop[0], None), _Drawn(marginal[0], None))
        hops, marginals = _by_hop(hits, tally, measure, weights, shape)
        return cls(_Drawn(hop[0], hops), _Drawn(marginal[0], marginals))


def _by_hop(
    hits: tuple[Hits, Hits], tally: Tally, measure: Measure, drawn: Floats, shape: RouteShape
) -> tuple[Floats, Floats]:
    """Mean shares [n, L - 1] over the layer pairs of each hop: single hop, marginal."""
    index = tally.measures.index(measure)
    source, target = pair_layers(shape.num_layers)
    same = (target - source - 1)[:, None] == np.arange(shape.num_layers - 1)
    average = same / same.sum(axis=0)
    scale = (drawn @ tally.tokens)[:, None] * measure.most(shape.top_k)
    hop, marginal = (drawn @ part[index] / scale for part in hits)
    return hop @ average, marginal[:, target - 1] @ average
