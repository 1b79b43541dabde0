"""How well every predictor knows a later layer's experts, one layer ahead and further."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from routestats import plots
from routestats.counts import count
from routestats.errors import RouteStatsError
from routestats.plots._draw.predictors import BASELINES
from routestats.report import _blocks as page
from routestats.report._analysis import PAIRING, Analysis, Predicted, Work
from routestats.report._blocks import Cell, percent, points, share
from routestats.report._limits import hops_shown
from routestats.report._part import Drawing, Finding, Part, note
from routestats.result import Result
from routestats.stats import HopAccuracy, HopMeasure, Prediction, hop_accuracy
from routestats.stats._predictors.table import PREDICTORS

# Predictors whose accuracy is also shown for each domain alone.
QUICK = ("marginal", "single_hop")
_LEARNS = {"any": "which experts a layer's set holds", "top1": "a layer's first choice"}


class PredictionPart(Part[Predicted]):
    """All predictors, fitted on some prompts and measured on others."""

    name = "prediction"

    def compute(self, work: Work) -> Predicted | None:
        trace = work.trace
        why = ""
        if not work.several_layers:
            why = "the model has one MoE layer: there is no later layer to predict"
        elif len(np.unique(trace.row_groups())) < 2:
            why = (
                "the run has one prompt only, and a prediction is measured on prompts it was not "
                "fitted on"
            )
        if why:
            work.missing[self.name] = why
            return None
        try:
            return _predict(work)
        except RouteStatsError as error:
            work.missing[self.name] = f"the run cannot be split into two parts ({error})"
            return None

    def results(self, found: Predicted) -> dict[str, Result]:
        named = {
            "prediction of first choices": found.first_choices,
            "prediction": found.accuracy,
        }
        return {name: result for name, result in named.items() if result is not None}

    def tables(self, found: Predicted, analysis: Analysis) -> dict[str, pa.Table]:
        named = {"prediction_first_choices": found.first_choices, "prediction": found.accuracy}
        return {name: each.to_table() for name, each in named.items() if each is not None}

    def figures(self, found: Predicted, analysis: Analysis) -> Iterator[Drawing]:
        compared = found.first_choices or found.accuracy
        yield Drawing(
            "prediction",
            lambda: plots.prediction(compared, note=note(analysis)),
            "Accuracy of every predictor against the number of layers ahead",
            _read_prediction(compared),
        )
        yield Drawing(
            "hop_accuracy",
            lambda: plots.hop_accuracy(found.accuracy),
            "Matrices of prediction accuracy by source and target layer, and means by distance",
            _read_accuracy(found.accuracy),
        )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        compared = analysis.of_first_choice
        if compared is None:
            why = analysis.missing.get(self.name)
            if why:
                yield Finding("Can a later layer be predicted?", "Not measured:", f"{why}.")
            return
        measure = compared.main
        known = "first choice" if compared.pairing == "top1" else "experts"
        yield Finding(
            f"One layer ahead, from the {known} of this layer?",
            f"{percent(measure.hop_by_distance, 0).text} {measure.label}",
            f"on held-out prompts; {_baselines(measure, 1)}.",
        )
        best = best_predictor(measure, 1)
        if best.name != "single_hop":
            yield Finding(
                "… with the best predictor?",
                f"{percent(best.by_hop, 0).text}, {best.label}",
                f"(same measure; {_others(measure, best, 1)}; {_baselines(measure, 1)}).",
            )
        yield from _further(measure, [hop for hop in hops_shown(compared.shape) if hop > 1])

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        if analysis.trace.shape.num_layers < 2:
            return {}
        result, compared = analysis.accuracy, analysis.of_first_choice
        if result is None or compared is None:
            why = analysis.missing.get(self.name, "unknown why")
            said = page.Paragraph(f"Not measured: {why}.")
            return {"one-hop": [said], "many-hops": [said]}
        return {
            "one-hop": _next_layer(result),
            "many-hops": [
                page.Image("prediction"),
                *_prediction_tables(result, compared),
                page.Image("hop_accuracy"),
            ],
        }


def _predict(work: Work) -> Predicted:
    train, test = work.split
    top1 = bool(work.trace.ordered)
    overall = hop_accuracy(train, test, PAIRING, top1=top1)
    first = hop_accuracy(train, test, "top1") if top1 else None
    each = {}
    if len(overall.domains) > 1:
        fitted = count(train, hops=range(1, work.trace.shape.num_layers), pairing=PAIRING)
        for domain in overall.domains:
            side = test.filter(domain=domain)
            each[domain] = hop_accuracy(fitted, side, PAIRING, predictors=QUICK, top1=top1)
    return Predicted(overall, first, each)


def best_predictor(measure: HopMeasure, hop: int) -> Prediction:
    """The predictor with the largest value at `hop`; baselines are none."""
    known = [p for p in measure.predictions if p.name not in BASELINES]
    return max(known, key=lambda p: float(np.nan_to_num(p.by_hop.value[hop - 1], nan=-1.0)))


def _baselines(measure: HopMeasure, hop: int) -> str:
    marginal = percent(measure.marginal_by_distance, hop - 1).text
    return f"always the most used: {marginal}, a uniform guess: {measure.uniform:.1%}"


def _others(measure: HopMeasure, best: Prediction, hop: int) -> str:
    shown = [
        p
        for p in measure.predictions
        if p.name in ("token_id", "single_hop") and p.name != best.name
    ]
    return ", ".join(f"{p.label} {percent(p.by_hop, hop - 1).text}" for p in shown)


def _further(measure: HopMeasure, hops: list[int]) -> Iterator[Finding]:
    """The best predictor about half as far ahead as tables go, and as far as they go."""
    if not hops:
        return
    texts, labels, marginals = [], [], []
    for hop in dict.fromkeys((hops[len(hops) // 2], hops[-1])):
        best = best_predictor(measure, hop)
        texts.append(f"{hop} ahead: {percent(best.by_hop, hop - 1).text}")
        labels.append(best.label)
        marginals.append(percent(measure.marginal_by_distance, hop - 1).text)
    yield Finding(
        "Further ahead?",
        "; ".join(texts),
        f"by the best predictor ({' and '.join(dict.fromkeys(labels))}); marginal "
        f"{' and '.join(marginals)}, uniform {measure.uniform:.1%}.",
    )


def _read_accuracy(result: HopAccuracy) -> str:
    """Accuracy over adjacent layers, and whether it beats the marginal."""
    measure = result.main
    text = (
        f"From one layer to the next, {measure.label} on held-out prompts is "
        f"{percent(measure.hop_by_distance, 0).text}, against "
        f"{measure.marginal_by_distance.value[0]:.1%} for the marginal and {measure.uniform:.1%} "
        f"for a uniform guess: {verdict(measure)}."
    )
    gain = measure.gain_by_distance.value * 100
    if len(gain) > 1:
        text += (
            f" The gain over the marginal is {gain[0]:+.1f} points one layer ahead and "
            f"{gain[-1]:+.1f} points {len(gain)} layers ahead."
        )
    return text


def _read_prediction(result: HopAccuracy) -> str:
    """The best predictor one layer and many layers ahead, beside the marginal."""
    measure = result.main
    texts = []
    for hop in dict.fromkeys((1, len(measure.hop_by_distance.value))):
        best = best_predictor(measure, hop)
        texts.append(
            f"{hop} layer{'s' if hop > 1 else ''} ahead the best is {best.label} with "
            f"{best.by_hop.value[hop - 1]:.1%}, against "
            f"{measure.marginal_by_distance.value[hop - 1]:.1%} for the marginal"
        )
    text = "; ".join(texts)
    return text[0].upper() + text[1:] + "."


def verdict(measure: HopMeasure) -> str:
    """What the interval of the gain over adjacent layers allows to be said."""
    value, low, high = (float(part[0]) * 100 for part in measure.gain_by_distance)
    if np.isnan(low):
        return (
            f"a difference of {value:+.1f} points, for which no interval can be given (fewer than "
            "two held-out prompts in a domain)"
        )
    interval = f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    if low > 0:
        return f"a gain over the marginal of {interval}"
    if high < 0:
        return f"worse than the marginal, by {interval}"
    return f"no gain over the marginal is shown ({interval} includes 0)"


def _next_layer(result: HopAccuracy) -> list[page.Block]:
    """Single hop to the next layer, by every measure."""
    rows: list[page.Row] = [
        (
            measure.label,
            percent(measure.hop_by_distance, 0),
            percent(measure.marginal_by_distance, 0),
            share(measure.uniform),
            points(measure.gain_by_distance, 0),
        )
        for measure in result.measures
    ]
    return [
        page.Table(
            "next-layer",
            ("Measure", "Single hop", "Marginal", "Uniform", "Gain over marginal"),
            rows,
            caption=f"Mean over adjacent layers, with {result.confidence:.0%} intervals; "
            f"{result.test_tokens:,} tokens of {result.test_groups:,} held-out prompts, fitted on "
            f"{result.train_tokens:,} tokens; pairing {result.pairing}.",
        ),
        page.Paragraph(f"{result.main.label.capitalize()}: {verdict(result.main)}."),
        page.Details("Each pair of adjacent layers, in numbers", _adjacent_table(result)),
    ]


def _adjacent_table(result: HopAccuracy) -> page.Block:
    measure, ids = result.main, result.layer_ids
    rows: list[page.Row] = []
    for i in range(len(ids) - 1):
        rows.append(
            (
                Cell(f"{ids[i]} → {ids[i + 1]}", (ids[i],)),
                percent(measure.hop, (i, i + 1)),
                percent(measure.marginal, i + 1),
                points(measure.gain, (i, i + 1)),
            )
        )
    return page.Table(
        "next-layer-by-layer",
        ("Layers", "Single hop", "Marginal", "Gain over marginal"),
        rows,
        caption=f"{measure.label}; uniform {measure.uniform:.1%}.",
    )


def _prediction_tables(result: HopAccuracy, compared: HopAccuracy) -> list[page.Block]:
    """Every predictor at some hops: first choice, and the recall of as many as are chosen."""
    recall = result[f"recall_at_{result.shape.top_k}"]
    shown = {compared.main: compared, recall: result}
    tables = [_prediction_table(measure, of) for measure, of in shown.items()]
    notes = [
        f"{PREDICTORS[name].label}: guesses the marginal for {tokens / result.test_tokens:.1%} of "
        "the tokens, of which it knows nothing."
        for name, tokens in result.fallback_tokens.items()
        if tokens
    ]
    notes += [
        f"{PREDICTORS[name].label}: not measured, {why}." for name, why in result.left_out.items()
    ]
    return [*tables, *(page.Paragraph(text, "note") for text in notes)]


def _prediction_table(measure: HopMeasure, result: HopAccuracy) -> page.Block:
    hops = hops_shown(result.shape)
    rows: list[page.Row] = []
    for prediction in measure.predictions:
        exact = prediction.name == "uniform"
        cells = [
            share(float(prediction.by_hop.value[hop - 1]))
            if exact
            else percent(prediction.by_hop, hop - 1)
            for hop in hops
        ]
        rows.append([prediction.label, *cells])
    table = "prediction_first_choices" if result.pairing == "top1" else "prediction"
    all_hops = result.shape.num_layers - 1
    more = (
        f" Shown are {len(hops)} of {all_hops} distances; all are in tables/{table}.csv."
        if len(hops) < all_hops
        else ""
    )
    return page.Table(
        f"prediction-{measure.name}",
        ("Predictor", *(f"{hop} ahead" for hop in hops)),
        rows,
        caption=f"{measure.label}, means over the layer pairs of a hop, on held-out prompts; "
        f"pairing {result.pairing}: every predictor learns {_LEARNS[result.pairing]}.{more}",
    )
