"""Whether a token goes where the one before it went."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import percent, share
from routestats.report._part import Drawing, Finding, Part, note
from routestats.stats import Repetition, repetition


class RepetitionPart(Part[Repetition]):
    """Consecutive tokens that are routed alike, by layer and domain."""

    name = "repetition"

    def compute(self, work: Work) -> Repetition | None:
        return work.attempt(self.name, lambda: repetition(work.trace, top1=work.trace.ordered))

    def figures(self, found: Repetition, analysis: Analysis) -> Iterator[Drawing]:
        # A result without a single pair of consecutive tokens has nothing to draw.
        if np.isfinite(found.shared.value).any():
            yield Drawing(
                "repetition",
                lambda: plots.repetition(found, note=note(analysis)),
                "Share of consecutive tokens routed alike by layer",
            )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        found = analysis.repetition
        if found is None:
            return
        if np.isnan(found.first_choice_all.value).all():
            estimate, random, what = found.shared_all, found.random_shared, "share an expert"
        else:
            estimate, random = found.first_choice_all, found.random_first_choice
            what = "keep the first choice"
        if np.isnan(estimate.value).all():
            return
        low, high = int(np.nanargmin(estimate.value)), int(np.nanargmax(estimate.value))
        yield Finding(
            "Does the next token go the same way?",
            f"{percent(estimate, low).text} to {percent(estimate, high).text}",
            f"of consecutive tokens {what} (layers {found.layer_ids[low]} and "
            f"{found.layer_ids[high]}, the least and the most); at random {random:.1%}.",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.repetition
        return {} if found is None else {"steadiness": [page.Image("repetition"), _table(found)]}


def _table(repeated: Repetition) -> page.Block:
    last = repeated.shape.num_layers - 1
    layers = sorted({0, last // 2, last})
    rows: list[page.Row] = []
    for d, domain in enumerate(repeated.domains):
        for label, estimate, random in (
            ("same first choice", repeated.first_choice, repeated.random_first_choice),
            ("an expert in common", repeated.shared, repeated.random_shared),
        ):
            cells = [percent(estimate, (d, layer)) for layer in layers]
            rows.append([domain, label, *cells, share(random)])
    more = (
        f" Shown are {len(layers)} of {last + 1} layers; all are in tables/repetition.csv."
        if len(layers) <= last
        else ""
    )
    return page.Table(
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
        f"{repeated.confidence:.0%} intervals.{more}",
    )
