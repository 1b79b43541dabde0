"""How sure the gates are."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._part import Drawing, Part, note
from routestats.stats import Confidence, confidence


class ConfidencePart(Part[Confidence]):
    """Gate weights, and what can be predicted of sure and unsure choices."""

    name = "confidence of gates"

    def compute(self, work: Work) -> Confidence | None:
        trace = work.trace
        if trace.lookahead is None or not work.several_layers:
            return None
        if not (trace.has_weights and trace.ordered):
            return None
        return work.attempt(self.name, lambda: confidence(trace, hop=1))

    def tables(self, found: Confidence, analysis: Analysis) -> dict[str, pa.Table]:
        return {"confidence": found.to_table()}

    def figures(self, found: Confidence, analysis: Analysis) -> Iterator[Drawing]:
        yield Drawing(
            "confidence",
            lambda: plots.confidence(found, note=note(analysis)),
            "Gate weights, and predictability by margin",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        # Both are of a run that was captured with lookahead.
        return {} if analysis.lookahead is None else {"lookahead": [page.Image("confidence")]}
