"""The load of each domain alone, and how well its routing is predicted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from routestats import plots
from routestats.plots._draw.load_panels import MAX_DOMAINS
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import NONE, Cell, number, percent, points
from routestats.report._part import Drawing, Part, Restriction, note
from routestats.result import Result
from routestats.stats import ExpertLoad, expert_load


class LoadByDomain(Part[dict[str, ExpertLoad]]):
    """The load of each domain that has tokens."""

    name = "load by domain"

    def compute(self, work: Work) -> dict[str, ExpertLoad]:
        counted = work.domain_counts.items()
        return {domain: expert_load(counts) for domain, counts in counted if counts.tokens}

    def results(self, found: dict[str, ExpertLoad]) -> dict[str, Result]:
        return {f"load, {domain}": load for domain, load in found.items()}

    def texts(self, found: dict[str, ExpertLoad], analysis: Analysis) -> list[str]:
        return [f"{domain}: {load.summary()}" for domain, load in found.items()]

    def tables(self, found: dict[str, ExpertLoad], analysis: Analysis) -> dict[str, pa.Table]:
        return {f"expert_load_{domain}": load.to_table() for domain, load in found.items()}

    def figures(self, found: dict[str, ExpertLoad], analysis: Analysis) -> Iterator[Drawing]:
        # The section on differences of domains shows it.
        if 2 <= len(found) <= MAX_DOMAINS:
            yield Drawing(
                "load_by_domain",
                lambda: plots.load_by_domain(found, note=note(analysis)),
                "Heat maps of expert load by layer, one per domain",
                _reading(found),
            )

    def restrictions(
        self, found: dict[str, ExpertLoad], analysis: Analysis
    ) -> Iterator[Restriction]:
        if len(found) > MAX_DOMAINS:
            yield Restriction(
                f"The loads of {len(found)} domains are in tables (expert_load_*.csv) only; a "
                f"figure shows {MAX_DOMAINS} at most."
            )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        return {"domains": [_domain_table(analysis)]} if several_domains(analysis) else {}


def several_domains(analysis: Analysis) -> bool:
    """Whether there is anything to compare."""
    return len(analysis.load_by_domain) > 1


def _reading(loads: dict[str, ExpertLoad]) -> str:
    """Where two domains differ most; no claim that the difference is more than chance."""
    names = list(loads)
    if len(names) != 2:
        return "Compare the panels: the same scale holds for all."
    points = (loads[names[0]].share - loads[names[1]].share) * 100
    layer, expert = (int(i) for i in np.unravel_index(np.abs(points).argmax(), points.shape))
    shares = [loads[name].share[layer, expert] for name in names]
    return (
        f"The largest difference is at expert {expert} of layer "
        f"{loads[names[0]].layer_ids[layer]}: {shares[0]:.1%} of the load in {names[0]}, "
        f"{shares[1]:.1%} in {names[1]}. Averaged over all experts and layers the shares differ by "
        f"{np.abs(points).mean():.2f} points."
    )


def _domain_table(analysis: Analysis) -> page.Block:
    per_request = analysis.trace.requests.column("domain").to_pylist()
    headers = ["Domain", "Tokens", "Requests", "Imbalance", "Effective experts"]
    accuracy = analysis.accuracy if analysis.accuracy_by_domain else None
    if accuracy is not None:
        headers += [f"Next layer: {accuracy.main.label}", "Marginal", "Gain over marginal"]
    rows: list[page.Row] = []
    for domain, load in analysis.load_by_domain.items():
        row: list[str | Cell] = [
            domain,
            number(load.tokens),
            number(per_request.count(domain)),
            number(float(load.imbalance.mean()), ".2f"),
            number(float(load.effective_experts.mean()), ".2f"),
        ]
        if accuracy is not None:
            result = analysis.accuracy_by_domain.get(domain)
            measure = None if result is None else result[accuracy.main.name]
            row += (
                [Cell(NONE)] * 3
                if measure is None
                else [
                    percent(measure.hop_by_distance, 0),
                    percent(measure.marginal_by_distance, 0),
                    points(measure.gain_by_distance, 0),
                ]
            )
        rows.append(row)
    return page.Table(
        "domains",
        headers,
        rows,
        caption="Means over layers, and over adjacent layers. Predictions are fitted on all "
        "domains and measured on the held-out prompts of one.",
    )
