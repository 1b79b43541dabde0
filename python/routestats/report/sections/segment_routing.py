"""How well fixed experts, and a small cache, serve all tokens of a segment."""

from __future__ import annotations

from collections.abc import Iterator

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import percent, share
from routestats.report._part import Drawing, Part, note
from routestats.report._segments import check_segments
from routestats.stats import SegmentRouting, segment_routing

SEGMENT = 16


class SegmentRoutingPart(Part[SegmentRouting]):
    """SRP and SCH over segments of `SEGMENT` tokens, beside permuted tokens."""

    name = "segment routing"

    def compute(self, work: Work) -> SegmentRouting | None:
        return work.attempt(self.name, lambda: _route(work))

    def figures(self, found: SegmentRouting, analysis: Analysis) -> Iterator[Drawing]:
        yield Drawing(
            "segment_routing",
            lambda: plots.segment_routing(found, note=note(analysis)),
            "Segment routing by layer, beside permuted tokens",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.segments
        if found is None:
            return {}
        rows: list[page.Row] = [
            (
                "SRP: fixed experts for a segment, F1",
                percent(found.srp),
                share(found.permuted_srp),
            ),
            (
                f"SCH: cache of {found.capacity} experts a layer, hits",
                percent(found.sch),
                share(found.permuted_sch),
            ),
        ]
        table = page.Table(
            "segments",
            (f"Segments of {found.m} tokens", "Value", "Tokens permuted"),
            rows,
            caption=f"{found.windows:,} windows, {found.confidence:.0%} intervals.",
        )
        return {"steadiness": [page.Image("segment_routing"), table]}


def _route(work: Work) -> SegmentRouting:
    check_segments("trace", work.trace, SEGMENT, whose="the report's")
    return segment_routing(work.trace, m=SEGMENT)
