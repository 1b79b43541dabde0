"""How the experts of two layers correlate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import Cell, number
from routestats.report._part import Drawing, Part, note
from routestats.stats import Correlation, correlation


class CorrelationPart(Part[Correlation]):
    """Phi coefficients of every pair of layers."""

    name = "correlation"

    def compute(self, work: Work) -> Correlation | None:
        if not work.several_layers:
            return None
        return work.attempt(self.name, lambda: correlation(work.counts))

    def figures(self, found: Correlation, analysis: Analysis) -> Iterator[Drawing]:
        if np.isfinite(found.mean_abs).any():
            yield Drawing(
                "correlation",
                lambda: plots.layer_matrix(found, note=note(analysis)),
                "Matrix of the mean absolute correlation of experts by source and target layer",
            )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.correlation
        if found is None:
            return {}
        return {
            "one-hop": [
                page.Heading("Correlation"),
                page.Preformatted(found.summary()),
                page.Details("Phi coefficients of adjacent layers, in numbers", _table(found)),
            ],
            "many-hops": [page.Image("correlation")],
        }


def _table(found: Correlation) -> page.Block:
    rows: list[page.Row] = []
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
    return page.Table(
        "correlation",
        ("Layers", "Largest phi", "Of experts", "Mean |phi|", "If independent"),
        rows,
        text_columns=(0, 2),
        caption=f"Pairing {found.pairing}, {found.tokens:,} tokens.",
    )
