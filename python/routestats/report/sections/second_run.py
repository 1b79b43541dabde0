"""A second run in the report of the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from routestats import plots
from routestats.counts import count
from routestats.errors import RouteStatsError
from routestats.report import _blocks as page
from routestats.report._analysis import PAIRING, SPLIT_SEED, TEST_SHARE, Analysis
from routestats.report._blocks import Cell, number, percent, share
from routestats.report._compare_runs import RunComparison, compare_runs
from routestats.report._part import Drawing, Finding, Part
from routestats.report.sections.domain_differences import (
    beyond,
    bits_beside,
    difference_table,
    layer_table,
)
from routestats.report.sections.transfer import transfer_table
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


class SecondRun(Part[Compared]):
    """How the two runs differ. What was found is given, and is of no run's own analysis."""

    name = "comparison"

    def __init__(self, compared: Compared) -> None:
        self.compared = compared

    def of(self, analysis: Analysis) -> Compared:
        return self.compared

    def tables(self, found: Compared, analysis: Analysis) -> dict[str, pa.Table]:
        comparison = found.comparison
        tables = {f"compare_{name}": part.to_table() for name, part in comparison.parts.items()}
        if found.accuracy is not None:
            tables["compare_prediction"] = found.accuracy.to_table()
        return tables

    def figures(self, found: Compared, analysis: Analysis) -> Iterator[Drawing]:
        first, second = found.comparison.names
        yield Drawing(
            "compare_load",
            lambda: plots.load_by_domain(
                {first: analysis.load, second: found.load}, title="Expert load of the two runs"
            ),
            f"Heat maps of expert load by layer, of {first} and of {second}",
        )
        differences = list(found.comparison.differences.values())
        if differences:
            yield Drawing(
                "compare_divergence",
                lambda: plots.domain_divergence(
                    *differences, title="At which layers the two runs are routed differently"
                ),
                "Divergence of the expert loads of the two runs by layer",
            )
        for each in differences:
            yield Drawing(
                f"compare_load_difference_{each.phase}",
                partial(plots.load_difference, each),
                f"Difference of the loads of the two runs by layer and expert, {each.phase}",
            )
        for place, run, accuracy in (
            ("first", first, analysis.accuracy),
            ("second", second, found.accuracy),
        ):
            if accuracy is not None:
                yield Drawing(
                    f"compare_prediction_{place}",
                    partial(plots.prediction, accuracy, note=run),
                    f"Accuracy of every predictor against layers ahead, {place} run",
                    f"{run}.",
                )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        comparison = self.compared.comparison
        first, second = comparison.names
        if comparison.agreement is not None:
            answer, text = _same(comparison.agreement)
        else:
            answer = "The same tokens cannot be compared"
            text = f"({comparison.missing['agreement']})."
        loads = list(comparison.differences.values())
        if loads:
            text += f" By {beyond(loads)}, {bits_beside(loads)}"
        if comparison.transfer is not None:
            measure = comparison.transfer.measures[0]
            own, other = (percent(measure.hop, (i, 1, 0)).text for i in (1, 0))
            text += (
                f" A table learnt on {first} predicts {second} with {other} "
                f"({measure.name.replace('_', ' ')}), its own with {own}, the marginal with "
                f"{percent(measure.marginal, (1, 1, 0)).text}."
            )
        yield Finding(f"Does {second} route as {first}?", answer, text)

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = self.compared.comparison
        first, second = found.names
        differences = tuple(found.differences.values())
        blocks: list[page.Block] = [
            page.Paragraph(
                f"{_size(first, analysis.trace)} {_size(second, self.compared.trace)} Prompts are "
                "permuted between the runs as if they were unpaired; where both hold the same "
                "prompts that is too careful, and the routing of the same tokens is what shows a "
                "difference."
            )
        ]
        if found.agreement is not None:
            blocks += _same_tokens(found.agreement)
        if differences:
            blocks += [
                page.Heading("Loads and affinities"),
                difference_table(differences, "run-differences", "Runs"),
                page.Image("compare_divergence"),
                page.Image("compare_load"),
                *(page.Image(f"compare_load_difference_{each.phase}") for each in differences),
                page.Details(
                    "The loads of each layer, in numbers",
                    layer_table(differences, "run-differences-by-layer", "Runs"),
                ),
            ]
        if found.transfer is not None:
            blocks += [
                page.Heading("Prediction across the runs"),
                transfer_table(found.transfer, "run-transfer"),
            ]
        blocks += _predictors(analysis, self.compared)
        if found.missing:
            missing = list(found.missing.items())
            blocks.append(
                page.Table(
                    "run-missing", ("Not computed", "Reason"), missing, text_columns=range(2)
                )
            )
        return {self.name: blocks}


def _size(name: str, trace: Trace) -> str:
    return (
        f"{name}: {len(trace):,} tokens of {trace.requests.num_rows:,} requests "
        f"({', '.join(trace.domains)})."
    )


def _same(same: Agreement) -> tuple[str, str]:
    """How often the same tokens go the same way: the answer, and what stands beside it."""
    parts = []
    if not np.isnan(same.chance_first).any():
        parts.append(
            f"first choices are the same for {same.same_first.value.mean():.1%} of them "
            f"(paired at random: {same.chance_first.mean():.1%})"
        )
    parts.append(
        f"the whole set for {same.same_set.value.mean():.1%} ({same.chance_set.mean():.1%})"
    )
    worst = int(same.overlap.value.argmin())
    return (
        f"{same.overlap.value.mean():.1%} of the experts of the same tokens are the same",
        f"(paired at random: {same.chance_overlap.mean():.1%}); least at layer "
        f"{same.layer_ids[worst]}, {percent(same.overlap, worst).text}. Of {same.tokens:,} "
        f"common tokens, {'; '.join(parts)}.",
    )


def _same_tokens(same: Agreement) -> list[page.Block]:
    """The same by layer, each measure beside what tokens paired at random give."""
    known = not np.isnan(same.chance_first).any()
    measures = [
        ("First choice (top1)", same.same_first, same.chance_first),
        ("Whole set (any)", same.same_set, same.chance_set),
        ("Experts in common (any)", same.overlap, same.chance_overlap),
    ][0 if known else 1 :]
    headers = [""]
    means: list[str | Cell] = ["mean of the layers"]
    for name, estimate, chance in measures:
        headers += [name, f"{name.split(' (')[0]}, paired at random"]
        means += [share(float(estimate.value.mean()), 2), share(float(chance.mean()), 2)]
    rows: list[page.Row] = []
    for i, layer in enumerate(same.layer_ids):
        row: list[str | Cell] = [f"layer {layer}"]
        for _, estimate, chance in measures:
            row += [percent(estimate, i, 2), share(float(chance[i]), 2)]
        rows.append(row)
    caption = (
        f"{same.tokens:,} tokens that both runs hold after the same tokens, {same.groups:,} "
        f"prompts, {same.confidence:.0%} intervals."
    )
    return [
        page.Heading("The same tokens"),
        page.Table("same-tokens", headers, [means], caption=caption),
        page.Details(
            "Each layer, in numbers",
            page.Table("same-tokens-by-layer", headers, rows, caption=caption),
        ),
    ]


def _predictors(analysis: Analysis, compared: Compared) -> list[page.Block]:
    """One layer ahead, every predictor in either run."""
    mine, theirs = analysis.accuracy, compared.accuracy
    if mine is None or theirs is None:
        return []
    first, second = compared.comparison.names
    others = {p.name: p for p in theirs.main.predictions}
    rows: list[page.Row] = [
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
        page.Table(
            "run-predictors",
            (f"{mine.main.label}, one ahead", first, second),
            rows,
            caption="Each run by tables fitted on itself, on its own held-out prompts: "
            f"{number(mine.test_tokens).text} and {number(theirs.test_tokens).text} tokens.",
        ),
        page.Image("compare_prediction_first"),
        page.Image("compare_prediction_second"),
    ]
