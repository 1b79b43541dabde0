"""Which experts a domain, or a token id, prefers."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._part import Part, Restriction
from routestats.report.sections.load_by_domain import several_domains
from routestats.stats import Specialization, specialization


class SpecializationPart(Part[Specialization]):
    """Shares of a domain's, and of a token id's, tokens that choose an expert."""

    name = "specialization"

    def compute(self, work: Work) -> Specialization | None:
        return work.attempt(self.name, lambda: specialization(work.trace))

    def tables(self, found: Specialization, analysis: Analysis) -> dict[str, pa.Table]:
        tables = {"specialization": found.to_table()}
        if len(found.token_ids):
            tables["specialization_token_ids"] = found.to_id_table()
        return tables

    def restrictions(self, found: Specialization, analysis: Analysis) -> Iterator[Restriction]:
        if found.ids_left_out:
            yield Restriction(
                f"Specialization of token ids is of the {len(found.token_ids):,} most frequent; "
                f"{found.ids_left_out:,} more have {found.min_tokens:,} tokens or more."
            )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.specialization
        if found is None or not several_domains(analysis):
            return {}
        return {"domains": [page.Heading("Specialization"), page.Preformatted(found.summary())]}
