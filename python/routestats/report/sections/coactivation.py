"""Which experts of a layer are chosen together."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._limits import partners_listed
from routestats.report._part import Part, Restriction
from routestats.report.sections.affinity import partners_restriction
from routestats.stats import Coactivation, coactivation


class CoactivationPart(Part[Coactivation]):
    """Pairs of experts within a layer."""

    name = "co-activation"

    def compute(self, work: Work) -> Coactivation | None:
        if work.trace.shape.top_k < 2:
            return None
        return work.attempt(self.name, lambda: coactivation(work.counts))

    def tables(self, found: Coactivation, analysis: Analysis) -> dict[str, pa.Table]:
        return {"coactivation": found.to_table(partners_listed(found.shape))}

    def restrictions(self, found: Coactivation, analysis: Analysis) -> Iterator[Restriction]:
        yield from partners_restriction("coactivation.csv", analysis)

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.coactivation
        # It stands beside what is said of one hop, which a single layer has not.
        if found is None or analysis.trace.shape.num_layers < 2:
            return {}
        return {
            "one-hop": [
                page.Heading("Experts chosen together within a layer"),
                page.Preformatted(found.summary()),
            ]
        }
