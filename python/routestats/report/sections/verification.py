"""Whether the data are sound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._part import Finding, Part
from routestats.result import Result
from routestats.trace import VerifyResult, verify


class Verification(Part[VerifyResult]):
    """What was checked about the data. The text and the JSON have it in places of their own."""

    name = "verification"

    def compute(self, work: Work) -> VerifyResult:
        return verify(work.trace)

    def results(self, found: VerifyResult) -> dict[str, Result]:
        return {}

    def tables(self, found: VerifyResult, analysis: Analysis) -> dict[str, pa.Table]:
        return {}

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        trace, result = analysis.trace, analysis.verification
        failed = [check.name for check in result.checks if not check.ok]
        totals = trace.info.get("totals")
        dropped = totals.get("dropped_rows") if isinstance(totals, dict) else None
        drops = f", {dropped:,} dropped" if dropped is not None else ""
        text = (
            f"{len(trace):,} tokens of {trace.requests.num_rows:,} requests "
            f"({len(np.unique(trace.row_groups())):,} different prompts; "
            f"{', '.join(trace.domains)}){drops}."
        )
        if failed:
            answer = f"No: {', '.join(failed)} failed."
        elif not result.complete:
            answer = (
                f"As far as it goes: {len(result.checks)} checks pass, but the run is incomplete."
            )
        else:
            answer = f"Yes: all {len(result.checks)} checks pass."
        bad = bool(failed) or not result.complete
        yield Finding("Can the data be trusted?", answer, text, bad)

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        result = analysis.verification
        outcome = "The run passes all checks." if result.ok else "The run FAILS at least one check."
        if not result.complete:
            outcome += " It is incomplete."
        rows = [(c.name, "ok" if c.ok else "FAILED", c.detail) for c in result.checks]
        return {
            "verification": [
                page.Paragraph(outcome),
                page.Table(
                    "verification",
                    ("Check", "Outcome", "Detail"),
                    rows,
                    text_columns=range(3),
                    bad="FAILED",
                ),
            ]
        }
