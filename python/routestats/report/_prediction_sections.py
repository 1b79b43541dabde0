"""Sections on what a layer's experts tell about later ones: one hop, and many."""

from __future__ import annotations

import numpy as np

from routestats.report import _html as html
from routestats.report._analysis import HOPS_SHOWN, Analysis
from routestats.report._cells import Cell, bits, number, percent, points, share
from routestats.report._figures import Pictures
from routestats.report._limits import partners_listed
from routestats.report._readings import MIN_TOKENS, verdict
from routestats.stats import HopMeasure

_LEARNS = {"any": "which experts a layer's set holds", "top1": "a layer's first choice"}


def one_hop_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """From a layer to the next: prediction, conditional probabilities, correlation."""
    if analysis.trace.shape.num_layers < 2:
        return []
    return [
        html.heading(2, "One hop: from a layer to the next", "one-hop"),
        *_next_layer(analysis),
        html.heading(3, "Conditional probabilities"),
        pictures.html("affinity_pair"),
        _links_table(analysis),
        pictures.html("affinity"),
        *_correlation(analysis),
    ]


def _next_layer(analysis: Analysis) -> list[str]:
    result = analysis.accuracy
    if result is None:
        return [_not_predicted(analysis)]
    rows: list[html.Row] = [
        (
            measure.label,
            percent(measure.hop_by_distance, 0),
            percent(measure.marginal_by_distance, 0),
            share(measure.uniform),
            points(measure.gain_by_distance, 0),
        )
        for measure in result.measures
    ]
    first = verdict(result.main)
    table = html.table(
        "next-layer",
        ("Measure", "Single hop", "Marginal", "Uniform", "Gain over marginal"),
        rows,
        caption=f"Mean over adjacent layers, with {result.confidence:.0%} intervals; "
        f"{result.test_tokens:,} tokens of {result.test_groups:,} held-out prompts, fitted on "
        f"{result.train_tokens:,} tokens; pairing {result.pairing}.",
    )
    each = html.details("Each pair of adjacent layers, in numbers", _adjacent_table(analysis))
    return [table, html.paragraph(f"{result.main.label.capitalize()}: {first}."), each]


def _adjacent_table(analysis: Analysis) -> str:
    assert analysis.accuracy is not None
    measure, ids = analysis.accuracy.main, analysis.accuracy.layer_ids
    rows: list[html.Row] = []
    for i in range(len(ids) - 1):
        rows.append(
            (
                Cell(f"{ids[i]} → {ids[i + 1]}", (ids[i],)),
                percent(measure.hop, (i, i + 1)),
                percent(measure.marginal, i + 1),
                points(measure.gain, (i, i + 1)),
            )
        )
    return html.table(
        "next-layer-by-layer",
        ("Layers", "Single hop", "Marginal", "Gain over marginal"),
        rows,
        caption=f"{measure.label}; uniform {measure.uniform:.1%}.",
    )


def _links_table(analysis: Analysis) -> str:
    """The expert pairs of each adjacent layer pair whose probability is raised most."""
    counts = analysis.counts
    each = 3 if counts.shape.num_layers <= 40 else 1
    listed = partners_listed(counts.shape)
    rows: list[html.Row] = []
    for layer in range(counts.shape.num_layers - 1):
        source = counts.expert[layer].astype(np.float64)[:, None]
        target = counts.expert[layer + 1] / counts.tokens
        with np.errstate(invalid="ignore", divide="ignore"):
            probability = counts.pair(layer, layer + 1) / source
        lift = np.where(source >= MIN_TOKENS, probability - target, -np.inf)
        for place in np.argsort(-lift, axis=None, kind="stable")[:each]:
            e, f = np.unravel_index(place, lift.shape)
            if not np.isfinite(lift[e, f]):
                continue
            ids = counts.layer_ids[layer], counts.layer_ids[layer + 1]
            rows.append(
                (
                    Cell(f"{ids[0]} → {ids[1]}", (ids[0],)),
                    number(int(e), "d"),
                    number(int(f), "d"),
                    number(int(source[e, 0])),
                    share(float(probability[e, f])),
                    share(float(target[f])),
                    number(float(lift[e, f]) * 100, "+.1f"),
                )
            )
    return html.details(
        f"The strongest links of each pair of layers ({len(rows)}), in numbers",
        html.table(
            "strongest-links",
            (
                "Layers",
                "Expert e",
                "Expert f of the next",
                "Tokens with e",
                "P(f given e)",
                "P(f)",
                "Difference (points)",
            ),
            rows,
            caption=f"Pairing {counts.pairing}: of the tokens with e among their experts, the "
            f"share with f among those of the next layer. The {each} largest differences of each "
            f"pair, of experts with at least {MIN_TOKENS} tokens; "
            f"{'all' if listed == counts.shape.num_experts else 'more'} pairs of experts are in "
            "tables/affinity_adjacent.csv. The largest of many is high by chance, too: what links "
            "are worth is the held-out accuracy above.",
        ),
    )


def _correlation(analysis: Analysis) -> list[str]:
    parts = []
    found, together = analysis.correlation, analysis.coactivation
    if found is not None:
        rows: list[html.Row] = []
        for i in range(found.shape.num_layers - 1):
            e, f = found.largest_experts[i, i + 1]
            rows.append(
                (
                    Cell(f"{found.layer_ids[i]} → {found.layer_ids[i + 1]}", (found.layer_ids[i],)),
                    number(float(found.largest[i, i + 1]), "+.3f"),
                    Cell(f"{e} and {f}"),
                    number(float(found.mean_abs[i, i + 1]), ".4f"),
                    number(found.independent_mean_abs, ".4f"),
                )
            )
        parts += [
            html.heading(3, "Correlation"),
            html.preformatted(found.summary()),
            html.details(
                "Phi coefficients of adjacent layers, in numbers",
                html.table(
                    "correlation",
                    ("Layers", "Largest phi", "Of experts", "Mean |phi|", "If independent"),
                    rows,
                    text_columns=(0, 2),
                    caption=f"Pairing {found.pairing}, {found.tokens:,} tokens.",
                ),
            ),
        ]
    if together is not None:
        parts += [
            html.heading(3, "Experts chosen together within a layer"),
            html.preformatted(together.summary()),
        ]
    return parts


def many_hops_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """Prediction against distance, all predictors; information by distance."""
    if analysis.trace.shape.num_layers < 2:
        return []
    body = [html.heading(2, "Many hops: further ahead", "many-hops")]
    if analysis.accuracy is None:
        body.append(_not_predicted(analysis))
    return [
        *body,
        pictures.html("prediction"),
        *_prediction_tables(analysis),
        pictures.html("hop_accuracy"),
        *_information(analysis),
        pictures.html("correlation"),
    ]


def _prediction_tables(analysis: Analysis) -> list[str]:
    """Every predictor at some hops: first choice, and the recall of as many as are chosen."""
    result, compared = analysis.accuracy, analysis.of_first_choice
    if result is None or compared is None:
        return []
    recall = result[f"recall_at_{result.shape.top_k}"]
    shown = {compared.main: compared.pairing, recall: result.pairing}
    parts = [_prediction_table(measure, pairing) for measure, pairing in shown.items()]
    notes = [
        f"{name}: guesses the marginal for {count / result.test_tokens:.1%} of the tokens, of "
        "which it knows nothing."
        for name, count in result.fallback_tokens.items()
        if count
    ]
    notes += [f"{name}: not measured, {why}." for name, why in result.left_out.items()]
    return [*parts, *(html.paragraph(note, "note") for note in notes)]


def _not_predicted(analysis: Analysis) -> str:
    return html.paragraph(f"Not measured: {analysis.missing.get('prediction', 'unknown why')}.")


def _prediction_table(measure: HopMeasure, pairing: str) -> str:
    hops = [hop for hop in HOPS_SHOWN if hop <= len(measure.hop_by_distance.value)]
    rows: list[html.Row] = []
    for prediction in measure.predictions:
        exact = prediction.name == "uniform"
        cells = [
            share(float(prediction.by_hop.value[hop - 1]))
            if exact
            else percent(prediction.by_hop, hop - 1)
            for hop in hops
        ]
        rows.append([prediction.label, *cells])
    return html.table(
        f"prediction-{measure.name}",
        ("Predictor", *(f"{hop} ahead" for hop in hops)),
        rows,
        caption=f"{measure.label}, means over the layer pairs of a hop, on held-out prompts; "
        f"pairing {pairing}: every predictor learns {_LEARNS[pairing]}.",
    )


def _information(analysis: Analysis) -> list[str]:
    """Mutual information by hop, beside both nulls."""
    found = analysis.information
    if found is None:
        return []
    top1 = found.pairing == "top1"
    rows: list[html.Row] = []
    for i, hop in enumerate(found.hops):
        row: list[str | Cell] = [
            Cell(str(hop), (hop,)),
            bits(found.mean_by_hop, i),
            number(float(found.request_null_by_hop[i]), ".4f"),
            number(float(found.token_null_by_hop[i]), ".4f"),
            number(float(found.mean_by_hop.value[i] - found.token_null_by_hop[i]), ".4f"),
            number(float(found.token_p_by_hop[i]), ".3f"),
        ]
        if top1:
            row += [
                share(float(np.nanmean(np.diagonal(found.normalised, hop)))),
                number(float(np.nanmean(np.diagonal(found.cramers_v, hop))), ".3f"),
            ]
        rows.append(row)
    headers = [
        "Layers ahead",
        "Information",
        "Permuted within requests",
        "Permuted within token ids",
        "Excess over that",
        "p of that",
    ]
    if top1:
        headers += ["Of the target’s entropy", "Cramér’s V"]
    return [
        html.heading(3, "Information"),
        html.paragraph(
            "How much the experts at one layer tell about those at another, beside two ways of "
            "breaking the link: tokens permuted within their request (what the request's load "
            "and the estimator's bias alone give), and among equal token ids (what the token's "
            "identity alone gives)."
        ),
        html.table(
            "information",
            headers,
            rows,
            caption=f"Bits, pairing {found.pairing}; means over layer pairs, "
            f"{found.confidence:.0%} jackknife intervals over {found.groups:,} prompts, "
            f"{found.null_draws} draws per null."
            + (
                " No interval where tokens are too few for one, fewer than about 4 for each pair "
                "of experts: much of the information is then the estimator's bias, which the "
                "permuted tokens show too."
                if np.isnan(found.mean_by_hop.low).any()
                else ""
            ),
        ),
    ]
