"""Whether preparing a later layer's routing early can pay, from measured times and accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.result import Result
from routestats.stats._base.checks import check_number, check_trace
from routestats.stats._hop_accuracy.accuracy import HopAccuracy, hop_accuracy
from routestats.stats._hop_accuracy.measure import HopMeasure, Prediction
from routestats.stats._lookahead.lookahead import LookaheadMeasure, lookahead
from routestats.stats._timing.result import OVERHEAD, Timing
from routestats.trace import Trace

SHOWN_HOPS = (1, 2, 4, 8, 16, 31)


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What `speculation` takes for granted.

    Attributes
    ----------
    hides : tuple of str
        Stages that can be prepared early.
    overlap : float
        Share of the time between prediction and use in which preparing goes on beside the rest.
    miss_ns : float
        What a miss costs beyond preparing it then, per layer and step if all of it misses.
    fetch_ns : float
        Time per layer and step to fetch what experts need (weights, say) that preparing early
        would hide and the measured times do not hold.
    predict_ns : float
        Cost of a prediction per layer and step. Lookahead also costs what the gate was measured
        to cost.
    worthwhile : float
        Gain from which speculation is said to pay.
    """

    hides: tuple[str, ...]
    overlap: float
    miss_ns: float
    fetch_ns: float
    predict_ns: float
    worthwhile: float


@dataclass(frozen=True, slots=True)
class SpeculationCase:
    """Expected time with one predictor at one hop and over-fetch.

    Attributes
    ----------
    predictor : str
    hop, over_fetch : int
        Layers ahead, k, and experts prepared per token, M.
    recall : float
        Measured recall@M, mean over the layer pairs of the hop.
    layer_ns : float
        Expected nanoseconds per decoder layer and step.
    speed_up : float
        Time without over time with; below 1 it is a loss.
    break_even_recall : float
        Recall from which it is none; above 1 where no recall suffices, below 0 where any does.
    """

    predictor: str
    hop: int
    over_fetch: int
    recall: float
    layer_ns: float
    speed_up: float
    break_even_recall: float


@dataclass(frozen=True, slots=True, eq=False)
class Speculation(Result):
    """The verdict; made by `speculation`.

    Attributes
    ----------
    model, steps : str
        Whose times they are, and of which kind of step.
    top_k : int
    layer_ns : float
        A decoder layer without speculation, fetching included.
    moe_ns : float
        Its MoE block, fetching included.
    prepared_ns : float
        The part of it that can be prepared early.
    gate_ns : float
    bound : float
        Speed-up of a free and perfect predictor: nothing can exceed it.
    assumptions : Assumptions
    cases : tuple of SpeculationCase
    """

    model: str
    steps: str
    top_k: int
    layer_ns: float
    moe_ns: float
    prepared_ns: float
    gate_ns: float
    bound: float
    assumptions: Assumptions
    cases: tuple[SpeculationCase, ...]

    @property
    def best(self) -> SpeculationCase:
        """The case with the largest speed-up."""
        return max(self.cases, key=lambda case: case.speed_up)

    @property
    def pays(self) -> bool:
        """Whether any case gains what is worthwhile."""
        return self.best.speed_up >= 1.0 + self.assumptions.worthwhile

    @property
    def verdict(self) -> str:
        """One or two sentences, plainly."""
        best, least = self.best, self.assumptions.worthwhile
        if self.bound < 1.0 + least:
            return (
                f"Speculation cannot pay here: what it could hide is "
                f"{self.prepared_ns / self.layer_ns:.2%} of a layer's time, so that even a perfect "
                f"and free predictor would gain {self.bound - 1:.2%}, less than the "
                f"{least:.1%} that is asked of it."
            )
        how = (
            f"{best.predictor}, {best.hop} ahead with {best.over_fetch} experts prepared "
            f"(recall {best.recall:.1%}, break-even {best.break_even_recall:.1%})"
        )
        if not self.pays:
            return (
                f"Speculation does not pay here: the best case, {how}, changes the time per layer "
                f"by a factor of {1 / best.speed_up:.4f}; a perfect and free predictor would gain "
                f"{self.bound - 1:.1%}."
            )
        return (
            f"Speculation can pay here under these assumptions: {how} gains "
            f"{best.speed_up - 1:.1%} of the possible {self.bound - 1:.1%}."
        )

    def expected_ns(
        self,
        recall: float,
        *,
        hop: int = 1,
        over_fetch: int | None = None,
        predict_ns: float | None = None,
        prepared_ns: float | None = None,
    ) -> float:
        """The formula of `speculation`, for any recall and any prepared time."""
        chosen = self.assumptions
        return _expected_ns(
            others_ns=self.layer_ns - self.prepared_ns,
            prepared_ns=self.prepared_ns if prepared_ns is None else prepared_ns,
            predict_ns=chosen.predict_ns if predict_ns is None else predict_ns,
            miss_ns=chosen.miss_ns,
            overlap=chosen.overlap,
            hop=hop,
            over_fetch=(over_fetch or self.top_k) / self.top_k,
            recall=recall,
        )

    def speed_up_at(self, recall: float, share_of_moe: float | None = None) -> float:
        """Speed-up one layer ahead at M = K if preparing took `share_of_moe` of the MoE block.

        What is not prepared keeps its measured time. By default the measured share.
        """
        prepared = self.prepared_ns
        if share_of_moe is not None:
            prepared = share_of_moe / (1.0 - share_of_moe) * (self.moe_ns - self.prepared_ns)
        whole = self.layer_ns - self.prepared_ns + prepared
        return whole / self.expected_ns(recall, prepared_ns=prepared)

    def to_table(self) -> pa.Table:
        """One row per case."""
        names = SpeculationCase.__dataclass_fields__
        return pa.Table.from_pylist(
            [{name: getattr(case, name) for name in names} for case in self.cases]
        )

    def summary(self) -> str:
        """Times, assumptions, the best predictors and the verdict."""
        chosen = self.assumptions
        lines = [
            f"{self.model}, {self.steps}: {self.layer_ns / 1e3:.1f} us per layer, of which "
            f"{', '.join(chosen.hides)}{' and fetching' * (chosen.fetch_ns > 0)} take "
            f"{self.prepared_ns / 1e3:.2f} us; at most {self.bound:.4f} times as fast",
            f"assumed: overlap {chosen.overlap:g}, a miss costs {chosen.miss_ns:g} ns more, "
            f"fetching {chosen.fetch_ns:g} ns, a prediction {chosen.predict_ns:g} ns",
            f"  {'predictor':<20}{'hop':>4}{'M':>4}{'recall':>9}{'break-even':>12}{'speed-up':>10}",
        ]
        for predictor in dict.fromkeys(case.predictor for case in self.cases):
            of = [case for case in self.cases if case.predictor == predictor]
            case = max(of, key=lambda case: case.speed_up)
            even = f"{case.break_even_recall:.1%}" if case.break_even_recall <= 1 else "never"
            lines.append(
                f"  {predictor:<20}{case.hop:>4}{case.over_fetch:>4}{case.recall:>9.1%}"
                f"{even:>12}{case.speed_up:>10.4f}"
            )
        return "\n".join([*lines, self.verdict])


def speculation(
    trace: Trace,
    timing: Timing,
    *,
    accuracy: HopAccuracy | None = None,
    phase: str = "decode",
    rows: int | None = None,
    hides: Sequence[str] = ("dispatch",),
    overlap: float = 1.0,
    miss_ns: float = 0.0,
    fetch_ns: float = 0.0,
    predict_ns: float = 0.0,
    worthwhile: float = 0.01,
    test: float = 0.2,
    seed: int = 0,
) -> Speculation:
    """Expected time per layer if the routing of layer l+k were prepared early.

    For each predictor P, hop k and over-fetch M, with r its measured recall@M::

        T0 = layer + fetch              a decoder layer without speculation
        B  = hides + fetch              what can be prepared early
        W  = overlap * k * (T0 - B)     time in which it can go on beside the rest
        E  = max(0, B * M / K - W)      what of preparing M experts does not fit into it
        T  = (T0 - B) + predict + E + (1 - r) * (B + miss)

    So a hit is prepared in time, a miss is prepared when it is known, as without speculation, and
    preparing is proportional to the experts prepared. The gate still runs, and decides: results do
    not change. The speed-up is T0 / T; it cannot exceed T0 / (T0 - B), and it is none where the
    recall is below 1 - (B - predict - E) / (B + miss).

    Parameters
    ----------
    trace : Trace
        Accuracies are measured on a held-out part of its prompts; lookahead too, where it was
        captured.
    timing : Timing
        Of the same model; see `routestats.stats.timing`.
    accuracy : HopAccuracy, optional
        Accuracies that were measured already, in place of measuring them on `trace`.
    phase : str
    rows : int, optional
        Which steps of `timing`; see `Timing.group`.
    hides : sequence of str
        Stages that can be prepared early, of gate, topk, dispatch and combine.
    overlap : float
        From 0 to 1.
    miss_ns, fetch_ns, predict_ns : float
        Per layer and step.
    worthwhile : float
        Gain from which speculation is said to pay.
    test : float
    seed : int
        Of the split of `trace`.

    Returns
    -------
    Speculation

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If an argument is wrong, or trace and timing are of different models.
    """
    check_trace(trace)
    if not isinstance(timing, Timing):
        raise InvalidTypeError(f"timing: expected a Timing, got {type(timing).__name__}")
    if tuple(trace.layer_ids) != timing.layer_ids:
        raise InvalidValueError(
            f"timing.layer_ids: expected {tuple(trace.layer_ids)} as in trace, "
            f"got {timing.layer_ids}"
        )
    hidden = _hidden(hides)
    overlap = check_number("overlap", overlap)
    if overlap > 1.0:
        raise InvalidValueError(f"overlap: expected between 0 and 1, got {overlap}")
    miss_ns = check_number("miss_ns", miss_ns)
    fetch_ns = check_number("fetch_ns", fetch_ns)
    predict_ns = check_number("predict_ns", predict_ns)
    worthwhile = check_number("worthwhile", worthwhile)
    if accuracy is not None and not isinstance(accuracy, HopAccuracy):
        raise InvalidTypeError(f"accuracy: expected a HopAccuracy, got {type(accuracy).__name__}")
    group = timing.group(phase, rows)
    prepared = sum(group.mean_part_ns(stage) for stage in hidden) + fetch_ns
    layer = group.mean_part_ns("layer") + fetch_ns
    gate = group.mean_part_ns("gate")
    assumptions = Assumptions(hidden, overlap, miss_ns, fetch_ns, predict_ns, worthwhile)
    cases = []
    for prediction, size in _recalls(trace, accuracy, test, seed):
        cost = predict_ns + gate * prediction.name.startswith("lookahead")
        for hop in SHOWN_HOPS:
            recall = (
                float(prediction.by_hop.value[hop - 1])
                if hop <= len(prediction.by_hop.value)
                else np.nan
            )
            if np.isnan(recall):
                continue
            fit = {
                "others_ns": layer - prepared,
                "prepared_ns": prepared,
                "predict_ns": cost,
                "miss_ns": miss_ns,
                "overlap": overlap,
                "hop": hop,
                "over_fetch": size / trace.shape.top_k,
            }
            expected = _expected_ns(**fit, recall=recall)
            # At recall 1 only prediction and what does not fit are left beside the others.
            fixed = _expected_ns(**fit, recall=1.0) - (layer - prepared)
            whole = prepared + miss_ns
            even = 1.0 - (prepared - fixed) / whole if whole > 0 else np.inf
            cases.append(
                SpeculationCase(
                    prediction.name, hop, size, recall, expected, layer / expected, even
                )
            )
    return Speculation(
        model=timing.model,
        steps=group.label,
        top_k=trace.shape.top_k,
        layer_ns=layer,
        moe_ns=group.mean_part_ns("moe") + fetch_ns,
        prepared_ns=prepared,
        gate_ns=gate,
        bound=layer / (layer - prepared),
        assumptions=assumptions,
        cases=tuple(cases),
    )


def _hidden(hides: Sequence[str]) -> tuple[str, ...]:
    if isinstance(hides, str) or not isinstance(hides, Sequence):
        raise InvalidTypeError(f"hides: expected names of stages, got {hides!r}")
    for stage in hides:
        if not isinstance(stage, str) or stage not in OVERHEAD:
            raise InvalidValueError(f"hides: expected some of {', '.join(OVERHEAD)}, got {stage!r}")
    return tuple(hides)


def _expected_ns(
    *,
    others_ns: float,
    prepared_ns: float,
    predict_ns: float,
    miss_ns: float,
    overlap: float,
    hop: float,
    over_fetch: float,
    recall: float,
) -> float:
    exposed = max(0.0, over_fetch * prepared_ns - overlap * hop * others_ns)
    return others_ns + predict_ns + exposed + (1.0 - recall) * (prepared_ns + miss_ns)


def _recalls(
    trace: Trace, accuracy: HopAccuracy | None, test: float, seed: int
) -> list[tuple[Prediction, int]]:
    """Every predictor with every number of experts it was measured for."""
    held_out = trace
    train = None
    if accuracy is None:
        train, held_out = trace.split(test=test, seed=seed)
        accuracy = hop_accuracy(train, held_out, bootstrap=0, top1=trace.ordered)
    elif accuracy.shape != trace.shape:
        raise InvalidValueError(f"accuracy.shape: expected {trace.shape}, got {accuracy.shape}")
    measures: list[HopMeasure | LookaheadMeasure] = [*accuracy.measures]
    if trace.lookahead is not None:
        measures += lookahead(held_out, train=train, bootstrap=0, top1=trace.ordered).measures
    return [
        (prediction, measure.size)
        for measure in measures
        if measure.size is not None
        for prediction in measure.predictions
    ]
