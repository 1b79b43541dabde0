"""Sections on paths through the layers, on domains, and on consecutive tokens."""

from __future__ import annotations

import numpy as np

from routestats.report import _html as html
from routestats.report._analysis import SEGMENT, Analysis
from routestats.report._cells import NONE, Cell, number, percent, points, share
from routestats.report._figures import Pictures
from routestats.report._limits import LEVEL
from routestats.stats import DomainDifference, Transfer

PATH_SOURCES = {
    "observed": "as it is",
    "markov": "each layer knows the one before",
    "independent": "layers independent",
}


def paths_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """How the tokens spread over paths, beside two kinds of routing without memory."""
    if not analysis.paths:
        return []
    top = next(iter(analysis.paths.values())).top
    rows: list[html.Row] = []
    for found in analysis.paths.values():
        for part in found.windows:
            for name in PATH_SOURCES:
                spread = getattr(part, name)
                rows.append(
                    [
                        found.kind,
                        part.domain,
                        PATH_SOURCES[name],
                        number(float(spread.distinct), ",.0f"),
                        number(float(spread.entropy_bits), ".2f"),
                        *(share(float(value), 2) for value in spread.coverage),
                    ]
                )
    simulations = next(iter(analysis.paths.values())).simulations
    return [
        html.heading(2, "Paths through the layers", "paths"),
        pictures.html("path_coverage"),
        html.table(
            "paths",
            (
                "Paths of",
                "Domain",
                "Routing",
                "Distinct",
                "Entropy (bits)",
                *(f"On the top {n:,}" for n in top),
            ),
            rows,
            text_columns=(0, 1, 2),
            caption=f"Paths through all layers; the two last kinds of routing are means of "
            f"{simulations} simulations.",
        ),
        pictures.html("path_frequencies"),
        pictures.html("path_flow"),
        *_most_frequent(analysis),
    ]


def _most_frequent(analysis: Analysis) -> list[str]:
    flow = analysis.flow
    if flow is None:
        return []
    rows: list[html.Row] = [
        (
            " ".join(str(int(expert)) for expert in np.ravel(path)),
            number(int(tokens)),
            share(int(tokens) / len(analysis.trace), 2),
        )
        for path, tokens in zip(flow.paths, flow.counts, strict=True)
    ]
    return [
        html.details(
            f"The {len(rows)} most frequent paths, expert by expert",
            html.table(
                "most-frequent-paths",
                ("First choices, first layer to last", "Tokens", "Of all tokens"),
                rows,
            ),
        )
    ]


def domains_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """What differs between domains, and whether prediction carries over."""
    if len(analysis.load_by_domain) < 2:
        return []
    body = [
        html.heading(2, "Domains", "domains"),
        _domain_table(analysis),
        *_differences(analysis.differences),
        pictures.html("domain_divergence"),
        pictures.html("load_by_domain"),
        *(pictures.html(name) for name in pictures if name.startswith("load_difference")),
        pictures.html("transfer"),
    ]
    if analysis.transfer is not None:
        body.append(transfer_table(analysis.transfer, "transfer"))
    if analysis.specialization is not None:
        body.append(html.heading(3, "Specialization"))
        body.append(html.preformatted(analysis.specialization.summary()))
    return body


def _domain_table(analysis: Analysis) -> str:
    per_request = analysis.trace.requests.column("domain").to_pylist()
    headers = ["Domain", "Tokens", "Requests", "Imbalance", "Effective experts"]
    predicted = bool(analysis.accuracy_by_domain) and analysis.accuracy is not None
    main = analysis.accuracy.main if analysis.accuracy is not None else None
    if predicted and main is not None:
        headers += [f"Next layer: {main.label}", "Marginal", "Gain over marginal"]
    rows: list[html.Row] = []
    for domain, load in analysis.load_by_domain.items():
        row: list[str | Cell] = [
            domain,
            number(load.tokens),
            number(per_request.count(domain)),
            number(float(load.imbalance.mean()), ".2f"),
            number(float(load.effective_experts.mean()), ".2f"),
        ]
        if predicted and main is not None:
            result = analysis.accuracy_by_domain.get(domain)
            row += (
                [Cell("–")] * 3
                if result is None
                else [
                    percent(result[main.name].hop_by_distance, 0),
                    percent(result[main.name].marginal_by_distance, 0),
                    points(result[main.name].gain_by_distance, 0),
                ]
            )
        rows.append(row)
    return html.table(
        "domains",
        headers,
        rows,
        caption="Means over layers, and over adjacent layers. Predictions are fitted on all "
        "domains and measured on the held-out prompts of one.",
    )


def _differences(found: tuple[DomainDifference, ...]) -> list[str]:
    if not found:
        return []
    layers = html.table(
        "domain-differences-by-layer",
        ("Domains", "Phase", "Layer", "Divergence (bits)", "Prompts permuted", "p", "q"),
        difference_layers(found),
        text_columns=(0, 1),
        caption="Jensen-Shannon divergence of the loads of each layer.",
    )
    return [
        difference_table(found, "domain-differences", "Domains"),
        html.details("The loads of each layer, in numbers", layers),
    ]


def difference_table(found: tuple[DomainDifference, ...], name: str, between: str) -> str:
    """Loads and affinities of two sides, each beside permuted prompts."""
    rows: list[html.Row] = []
    for result in found:
        several = result.experts.beyond(LEVEL)
        for what, part in (("load", result.load), ("affinity", result.affinity)):
            if len(part.bits):
                beyond = int((part.q_value <= LEVEL).sum())
                rows.append(
                    [
                        f"{result.domains[0]} – {result.domains[1]}",
                        result.phase,
                        what,
                        number(float(np.nanmean(part.bits)), ".4f"),
                        number(float(np.nanmean(part.null_mean_bits)), ".4f"),
                        Cell(f"{beyond} of {len(part.bits)}", (beyond,)),
                    ]
                )
        rows.append(
            [
                f"{result.domains[0]} – {result.domains[1]}",
                result.phase,
                "load of an expert",
                Cell(NONE),
                Cell(NONE),
                Cell(f"{several.sum():,} of {several.size:,}", (int(several.sum()),)),
            ]
        )
    return html.table(
        name,
        (
            between,
            "Phase",
            "Of",
            "Divergence (bits)",
            "Prompts permuted",
            f"Beyond chance (q ≤ {LEVEL})",
        ),
        rows,
        text_columns=(0, 1, 2),
        caption="Jensen-Shannon divergence: load over layers, affinity over "
        f"{_adjacent_pairs(found[0])}; of an expert its share of the layer's load, over all "
        f"experts of all layers. {found[0].permutations:,} permutations of prompts between the "
        "two; q is Benjamini and Hochberg's.",
    )


def _adjacent_pairs(found: DomainDifference) -> str:
    compared, every = len(found.affinity_pairs), len(found.layer_ids) - 1
    if compared == every:
        return "adjacent layers"
    return f"{compared} of the {every} adjacent layer pairs"


def difference_layers(found: tuple[DomainDifference, ...]) -> list[html.Row]:
    """A row per phase and layer."""
    return [
        [
            f"{result.domains[0]} – {result.domains[1]}",
            result.phase,
            Cell(str(layer), (layer,)),
            *(
                number(float(values[i]), form)
                for values, form in (
                    (result.load.bits, ".4f"),
                    (result.load.null_mean_bits, ".4f"),
                    (result.load.p_value, ".3f"),
                    (result.load.q_value, ".3f"),
                )
            ),
        ]
        for result in found
        for i, layer in enumerate(result.layer_ids)
    ]


def transfer_table(moved: Transfer, name: str) -> str:
    """Prediction by a table of the same side and by one of the other."""
    rows: list[html.Row] = []
    for measure in moved.measures:
        for tested, domain in enumerate(moved.domains):
            other = 1 - tested
            rows.append(
                [
                    measure.name.replace("_", " "),
                    domain,
                    percent(measure.hop, (tested, tested, 0)),
                    percent(measure.hop, (other, tested, 0)),
                    points(measure.loss, (tested, 0)),
                    share(float(measure.marginal.value[tested, tested, 0])),
                ]
            )
    return html.table(
        name,
        ("Measure", "Tested on", "Trained on it", "Trained on the other", "Lost", "Marginal"),
        rows,
        text_columns=(0, 1),
        caption=f"Transfer: single hop, one layer ahead, {moved.phase or 'both phases'}; "
        f"{moved.train_tokens:,} training tokens of each, pairing {moved.pairing}.",
    )


def steadiness_section(analysis: Analysis, pictures: Pictures) -> list[str]:
    """Consecutive tokens: repetition and segments."""
    parts = [
        pictures.html("repetition"),
        *_repetition(analysis),
        pictures.html("segment_routing"),
        *_segments(analysis),
    ]
    if not any(parts):
        return []
    return [html.heading(2, "From token to token", "steadiness"), *parts]


def _repetition(analysis: Analysis) -> list[str]:
    repeated = analysis.repetition
    if repeated is None:
        return []
    last = repeated.shape.num_layers - 1
    layers = sorted({0, last // 2, last})
    rows: list[html.Row] = []
    for d, domain in enumerate(repeated.domains):
        for label, estimate, random in (
            ("same first choice", repeated.first_choice, repeated.random_first_choice),
            ("an expert in common", repeated.shared, repeated.random_shared),
        ):
            cells = [percent(estimate, (d, layer)) for layer in layers]
            rows.append([domain, label, *cells, share(random)])
    return [
        html.table(
            "repetition",
            (
                "Domain",
                "Consecutive tokens with",
                *(f"Layer {repeated.layer_ids[layer]}" for layer in layers),
                "At random",
            ),
            rows,
            text_columns=(0, 1),
            caption=f"{sum(repeated.pairs):,} pairs of consecutive tokens, "
            f"{repeated.confidence:.0%} intervals.",
        )
    ]


def _segments(analysis: Analysis) -> list[str]:
    segments = analysis.segments
    if segments is None:
        return []
    rows: list[html.Row] = [
        (
            "SRP: fixed experts for a segment, F1",
            percent(segments.srp),
            share(segments.permuted_srp),
        ),
        (
            f"SCH: cache of {segments.capacity} experts a layer, hits",
            percent(segments.sch),
            share(segments.permuted_sch),
        ),
    ]
    return [
        html.table(
            "segments",
            (f"Segments of {SEGMENT} tokens", "Value", "Tokens permuted"),
            rows,
            caption=f"{segments.windows:,} windows, {segments.confidence:.0%} intervals.",
        )
    ]
