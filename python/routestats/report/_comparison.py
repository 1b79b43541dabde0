"""A second run in the report of the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routestats import plots
from routestats.counts import count
from routestats.errors import RouteStatsError
from routestats.report import _html as html
from routestats.report._analysis import PAIRING, SPLIT_SEED, TEST_SHARE, Analysis
from routestats.report._cells import Cell, number, percent, share
from routestats.report._compare import RunComparison, compare_runs
from routestats.report._figures import Pictures
from routestats.report._pattern_sections import difference_layers, difference_table, transfer_table
from routestats.stats import Agreement, ExpertLoad, HopAccuracy, expert_load, hop_accuracy
from routestats.trace import Trace


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A second run beside the first: how they differ, and the second's own load and accuracy."""

    comparison: RunComparison
    trace: Trace
    load: ExpertLoad
    accuracy: HopAccuracy | None


def compare_with(first: Trace, second: Trace) -> Compared:
    """Everything that the report shows of two runs.

    Raises
    ------
    InvalidValueError
        As `compare_runs`.
    """
    comparison = compare_runs(first, second)
    accuracy = None
    if second.shape.num_layers > 1:
        try:
            train, test = second.split(test=TEST_SHARE, seed=SPLIT_SEED)
            accuracy = hop_accuracy(train, test, PAIRING, top1=bool(second.ordered))
        except RouteStatsError as error:
            comparison.missing["prediction of the second run"] = str(error)
    return Compared(
        comparison, second, expert_load(count(second, hops=(), pairing=PAIRING)), accuracy
    )


def draw_compared(analysis: Analysis, compared: Compared, pictures: Pictures) -> None:
    """Add the figures of both runs."""
    first, second = compared.comparison.names
    pictures.add(
        "compare_load",
        lambda: plots.load_by_domain(
            {first: analysis.load, second: compared.load}, title="Expert load of the two runs"
        ),
        f"Heat maps of expert load by layer, of {first} and of {second}",
    )
    differences = list(compared.comparison.differences.values())
    if differences:
        pictures.add(
            "compare_divergence",
            lambda: plots.domain_divergence(
                *differences, title="At which layers the two runs are routed differently"
            ),
            "Divergence of the expert loads of the two runs by layer",
        )
        pictures.add(
            "compare_load_difference",
            lambda: plots.load_difference(differences[0]),
            f"Difference of the loads of the two runs by layer and expert, {differences[0].phase}",
        )
    for name, run, accuracy in (
        ("first", first, analysis.accuracy),
        ("second", second, compared.accuracy),
    ):
        if accuracy is not None:
            pictures.add(
                f"compare_prediction_{name}",
                lambda accuracy=accuracy, run=run: plots.prediction(  # type: ignore[misc]
                    accuracy, note=run
                ),
                f"Accuracy of every predictor against layers ahead, {name} run",
                f"{run}.",
            )


def comparison_section(analysis: Analysis, compared: Compared, pictures: Pictures) -> list[str]:
    """How the two runs differ."""
    found = compared.comparison
    first, second = found.names
    differences = tuple(found.differences.values())
    body = [
        html.heading(2, f"{first} and {second}", "comparison"),
        html.paragraph(
            f"{_size(first, analysis.trace)} {_size(second, compared.trace)} Prompts are permuted "
            "between the runs as if they were unpaired; where both hold the same prompts that is "
            "too careful, and the routing of the same tokens is what shows a difference."
        ),
    ]
    if found.agreement is not None:
        body += _same_tokens(found.agreement)
    if differences:
        body += [
            html.heading(3, "Loads and affinities"),
            difference_table(differences, "run-differences", "Runs"),
            pictures.html("compare_divergence"),
            pictures.html("compare_load"),
            pictures.html("compare_load_difference"),
            html.details(
                "The loads of each layer, in numbers",
                html.table(
                    "run-differences-by-layer",
                    ("Runs", "Phase", "Layer", "Divergence (bits)", "Prompts permuted", "p", "q"),
                    difference_layers(differences),
                    text_columns=(0, 1),
                ),
            ),
        ]
    if found.transfer is not None:
        body += [
            html.heading(3, "Prediction across the runs"),
            transfer_table(found.transfer, "run-transfer"),
        ]
    body += _predictors(analysis, compared, pictures)
    if found.missing:
        body.append(
            html.table(
                "run-missing",
                ("Not computed", "Reason"),
                list(found.missing.items()),
                text_columns=range(2),
            )
        )
    return body


def _size(name: str, trace: Trace) -> str:
    return (
        f"{name}: {len(trace):,} tokens of {trace.requests.num_rows:,} requests "
        f"({', '.join(trace.domains)})."
    )


def _same_tokens(same: Agreement) -> list[str]:
    known = not np.isnan(same.chance_first).any()
    measures = [
        ("First choice (top1)", same.same_first, same.chance_first),
        ("Whole set (any)", same.same_set, same.chance_set),
        ("Experts in common (any)", same.overlap, same.chance_overlap),
    ][0 if known else 1 :]
    headers = [text for name, _, _ in measures for text in (name, "paired at random")]
    means: list[str | Cell] = ["mean of the layers"]
    for _, estimate, chance in measures:
        means += [share(float(estimate.value.mean()), 2), share(float(chance.mean()), 2)]
    rows: list[html.Row] = [means]
    for i, layer in enumerate(same.layer_ids):
        row: list[str | Cell] = [f"layer {layer}"]
        for _, estimate, chance in measures:
            row += [percent(estimate, i, 2), share(float(chance[i]), 2)]
        rows.append(row)
    caption = (
        f"{same.tokens:,} tokens that both runs hold after the same tokens, {same.groups:,} "
        f"prompts, {same.confidence:.0%} intervals."
    )
    names = ("", *(_unique(headers)))
    return [
        html.heading(3, "The same tokens"),
        html.table("same-tokens", names, rows[:1], caption=caption),
        html.details(
            "Each layer, in numbers",
            html.table("same-tokens-by-layer", names, rows[1:], caption=caption),
        ),
    ]


def _unique(headers: list[str]) -> list[str]:
    """Headers of chance columns, which are all the same, named after what they stand beside."""
    return [
        f"{headers[i - 1].split(' (')[0]}, {text}" if text == "paired at random" else text
        for i, text in enumerate(headers)
    ]


def _predictors(analysis: Analysis, compared: Compared, pictures: Pictures) -> list[str]:
    """One layer ahead, every predictor in either run."""
    mine, theirs = analysis.accuracy, compared.accuracy
    if mine is None or theirs is None:
        return []
    first, second = compared.comparison.names
    others = {p.name: p for p in theirs.main.predictions}
    rows: list[html.Row] = [
        (
            p.label,
            *(
                share(float(one.by_hop.value[0])) if p.name == "uniform" else percent(one.by_hop, 0)
                for one in (p, others[p.name])
            ),
        )
        for p in mine.main.predictions
        if p.name in others and mine.main.name == theirs.main.name
    ]
    return [
        html.table(
            "run-predictors",
            (f"{mine.main.label}, one ahead", first, second),
            rows,
            caption="Each run by tables fitted on itself, on its own held-out prompts: "
            f"{number(mine.test_tokens).text} and {number(theirs.test_tokens).text} tokens.",
        ),
        pictures.html("compare_prediction_first"),
        pictures.html("compare_prediction_second"),
    ]
