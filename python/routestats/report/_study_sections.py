"""The sections of the report on prediction, information, paths, domains and steadiness."""

from __future__ import annotations

import numpy as np

from routestats.report import _html as html
from routestats.report._analysis import HOPS_SHOWN, SEGMENT, Analysis
from routestats.stats import DomainDifference, HopMeasure
from routestats.stats._intervals import Estimate

LEVEL = 0.05
PATH_SOURCES = {
    "observed": "as it is",
    "markov": "each layer knows the one before",
    "independent": "layers independent",
}


def percent(estimate: Estimate, place: int | tuple[int, ...] = (), decimals: int = 1) -> str:
    """One entry of `estimate` in percent, with its interval where it has one."""
    value, low, high = (float(np.asarray(part)[place]) * 100 for part in estimate)
    if np.isnan(value):
        return "–"
    if np.isnan(low):
        return f"{value:.{decimals}f}%"
    return f"{value:.{decimals}f}% [{low:.{decimals}f}, {high:.{decimals}f}]"


def prediction_tables(analysis: Analysis) -> list[str]:
    """Every predictor at some hops: first choice, and the recall of as many as are chosen."""
    result = analysis.accuracy
    if result is None:
        return []
    recall = result[f"recall_at_{result.shape.top_k}"]
    parts = [_prediction_table(measure) for measure in dict.fromkeys((result.main, recall))]
    notes = [
        f"{name}: guesses the marginal for {count / result.test_tokens:.1%} of the tokens, of "
        "which it knows nothing."
        for name, count in result.fallback_tokens.items()
        if count
    ]
    notes += [f"{name}: not measured, {why}." for name, why in result.left_out.items()]
    return [*parts, *(html.paragraph(note, "note") for note in notes)]


def _prediction_table(measure: HopMeasure) -> str:
    hops = [hop for hop in HOPS_SHOWN if hop <= len(measure.hop_by_distance.value)]
    rows = []
    for prediction in measure.predictions:
        exact = prediction.name == "uniform"
        cells = [
            f"{prediction.by_hop.value[hop - 1]:.1%}"
            if exact
            else percent(prediction.by_hop, hop - 1)
            for hop in hops
        ]
        rows.append([prediction.label, *cells])
    return html.table(
        ("Predictor", *(f"{hop} ahead" for hop in hops)),
        rows,
        caption=f"{measure.label}, means over the layer pairs of a hop.",
    )


def information_section(analysis: Analysis) -> list[str]:
    """Mutual information by hop, beside both nulls."""
    found = analysis.information
    if found is None:
        return []
    rows = []
    for i, hop in enumerate(found.hops):
        excess = found.request_excess_by_hop
        rows.append(
            [
                str(hop),
                f"{found.mean_by_hop.value[i]:.4f}",
                f"{found.request_null_by_hop[i]:.4f}",
                _bits(excess, i),
                f"{found.token_null_by_hop[i]:.4f}",
                f"{found.mean_by_hop.value[i] - found.token_null_by_hop[i]:.4f}",
                f"{found.token_p_by_hop[i]:.3f}",
            ]
        )
    return [
        html.heading(2, "Information"),
        html.paragraph(
            "How much the experts at one layer tell about those at another, beside two ways of "
            "breaking the link: tokens permuted within their request (what the request's load "
            "and the estimator's bias alone give), and among equal token ids (what the token's "
            "identity alone gives)."
        ),
        html.table(
            (
                "Layers ahead",
                "Information",
                "within requests",
                "excess over that",
                "within token ids",
                "excess over that",
                "p of that",
            ),
            rows,
            caption=f"Bits, pairing {found.pairing}; means over layer pairs, "
            f"{found.confidence:.0%} jackknife intervals over {found.groups:,} prompts, "
            f"{found.null_draws} draws per null.",
        ),
    ]


def _bits(estimate: Estimate, place: int) -> str:
    value, low, high = (float(part[place]) for part in estimate)
    return f"{value:.4f}" if np.isnan(low) else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def differences_section(analysis: Analysis) -> list[str]:
    """Pairs of domains, within each phase."""
    if not analysis.differences:
        return []
    rows = []
    for found in analysis.differences:
        for what, part in (("load", found.load), ("affinity", found.affinity)):
            if len(part.bits):
                rows.append(
                    [
                        f"{found.domains[0]} – {found.domains[1]}",
                        found.phase,
                        what,
                        f"{np.nanmean(part.bits):.4f}",
                        f"{np.nanmean(part.null_mean_bits):.4f}",
                        f"{int((part.q_value <= LEVEL).sum())} of {len(part.bits)}",
                    ]
                )
    parts = [
        html.table(
            (
                "Domains",
                "Phase",
                "Of",
                "Divergence (bits)",
                "prompts permuted",
                f"beyond chance (q ≤ {LEVEL})",
            ),
            rows,
            text_columns=(0, 1, 2),
            caption="Jensen-Shannon divergence: load over layers, affinity over adjacent layers. "
            f"{_permutations(analysis.differences)} q is Benjamini and Hochberg's.",
        )
    ]
    moved = analysis.transfer
    if moved is None:
        return parts
    rows = []
    for measure in moved.measures:
        for tested, domain in enumerate(moved.domains):
            other = 1 - tested
            rows.append(
                [
                    measure.name.replace("_", " "),
                    domain,
                    percent(measure.hop, (tested, tested, 0)),
                    percent(measure.hop, (other, tested, 0)),
                    percent(measure.loss, (tested, 0)),
                    f"{measure.marginal.value[tested, tested, 0]:.1%}",
                ]
            )
    parts.append(
        html.table(
            (
                "Measure",
                "Tested on",
                "trained on it",
                "trained on the other",
                "lost",
                "marginal",
            ),
            rows,
            text_columns=(0, 1),
            caption=f"Transfer: single hop, one layer ahead, {moved.phase or 'both phases'}; "
            f"{moved.train_tokens:,} training tokens of each domain.",
        )
    )
    return parts


def _permutations(differences: tuple[DomainDifference, ...]) -> str:
    return f"{differences[0].permutations:,} permutations of prompts between the domains;"


def paths_section(analysis: Analysis) -> list[str]:
    """How the tokens spread over paths, beside two kinds of routing without memory."""
    if not analysis.paths:
        return []
    top = next(iter(analysis.paths.values())).top
    rows = []
    for found in analysis.paths.values():
        for part in found.windows:
            for name in ("observed", "markov", "independent"):
                spread = getattr(part, name)
                rows.append(
                    [
                        found.kind,
                        part.domain,
                        PATH_SOURCES[name],
                        f"{spread.distinct:,.0f}",
                        f"{spread.entropy_bits:.2f}",
                        *(f"{share:.2%}" for share in spread.coverage),
                    ]
                )
    simulations = next(iter(analysis.paths.values())).simulations
    return [
        html.table(
            (
                "Paths of",
                "Domain",
                "Routing",
                "Distinct",
                "Entropy (bits)",
                *(f"on the top {n:,}" for n in top),
            ),
            rows,
            text_columns=(0, 1, 2),
            caption=f"Paths through all layers; the two last kinds of routing are means of "
            f"{simulations} simulations.",
        )
    ]


def steadiness_section(analysis: Analysis) -> list[str]:
    """Consecutive tokens: repetition and segments."""
    parts = []
    repeated, segments = analysis.repetition, analysis.segments
    if repeated is not None:
        last = repeated.shape.num_layers - 1
        layers = sorted({0, last // 2, last})
        rows = []
        for d, domain in enumerate(repeated.domains):
            for label, estimate, random in (
                ("same first choice", repeated.first_choice, repeated.random_first_choice),
                ("an expert in common", repeated.shared, repeated.random_shared),
            ):
                cells = [percent(estimate, (d, layer)) for layer in layers]
                rows.append([domain, label, *cells, f"{random:.1%}"])
        parts.append(
            html.table(
                (
                    "Domain",
                    "Consecutive tokens with",
                    *(f"layer {repeated.layer_ids[layer]}" for layer in layers),
                    "at random",
                ),
                rows,
                text_columns=(0, 1),
                caption=f"{sum(repeated.pairs):,} pairs of consecutive tokens, "
                f"{repeated.confidence:.0%} intervals.",
            )
        )
    if segments is not None:
        lines = [
            (
                "SRP: fixed experts for a segment, F1",
                percent(segments.srp),
                f"{segments.permuted_srp:.1%}",
            ),
            (
                f"SCH: cache of {segments.capacity} experts a layer, hits",
                percent(segments.sch),
                f"{segments.permuted_sch:.1%}",
            ),
        ]
        parts.append(
            html.table(
                (f"Segments of {SEGMENT} tokens", "Value", "tokens permuted"),
                lines,
                caption=f"{segments.windows:,} windows, {segments.confidence:.0%} intervals.",
            )
        )
    return [html.heading(2, "Steadiness from token to token"), *parts] if parts else []


def links_section(analysis: Analysis) -> list[str]:
    """Correlation, co-activation and specialization in words; the tables are in the CSV files."""
    parts = [
        found.summary()
        for found in (analysis.correlation, analysis.coactivation, analysis.specialization)
        if found is not None
    ]
    if not parts:
        return []
    return [html.heading(2, "Links between experts"), *(html.preformatted(text) for text in parts)]


def missing_section(analysis: Analysis) -> list[str]:
    """What could not be computed, and why."""
    rows = [(name, why) for name, why in analysis.missing.items() if name != "prediction"]
    if not rows:
        return []
    return [
        html.heading(2, "Not computed"),
        html.table(("Part", "Reason"), rows, text_columns=range(2)),
    ]
