"""How far ahead a gate can see."""

from __future__ import annotations

from collections.abc import Iterator

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import percent, share
from routestats.report._part import Drawing, Finding, Part, note
from routestats.stats import Lookahead, lookahead
from routestats.stats._predictors.table import PREDICTORS


class LookaheadPart(Part[Lookahead]):
    """Gates of later layers on this layer's hidden state, where the run holds it."""

    name = "lookahead"

    def compute(self, work: Work) -> Lookahead | None:
        if work.trace.lookahead is None:
            return None
        return work.attempt(self.name, lambda: _look(work))

    def figures(self, found: Lookahead, analysis: Analysis) -> Iterator[Drawing]:
        yield Drawing(
            "lookahead",
            lambda: plots.lookahead(found, note=note(analysis)),
            "Recall by distance",
        )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        ahead = analysis.lookahead
        if ahead is None:
            return
        recall, hop, last = ahead.recall, ahead.hops[0], ahead.hops[-1]
        best = max(recall.predictions, key=lambda p: float(p.by_hop.value[hop - 1]))
        yield Finding(
            "How far ahead does a gate see?",
            f"{percent(best.by_hop, hop - 1).text} {recall.label}, {hop} ahead",
            f"({best.label}); {last} ahead {percent(best.by_hop, last - 1).text}. Marginal "
            f"{percent(recall.marginal_by_hop, hop - 1).text}, uniform {recall.uniform:.1%}.",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.lookahead
        if found is None:
            return {}
        recall = found.recall
        rows: list[page.Row] = [
            (PREDICTORS["uniform"].label, *(share(recall.uniform) for _ in found.hops)),
            (
                PREDICTORS["marginal"].label,
                *(percent(recall.marginal_by_hop, hop - 1) for hop in found.hops),
            ),
        ]
        for prediction in recall.predictions:
            cells = (percent(prediction.by_hop, hop - 1) for hop in found.hops)
            rows.append((prediction.label, *cells))
        return {
            "lookahead": [
                page.Paragraph(
                    "Gates of later layers, applied to the hidden state that enters this layer's "
                    "experts: as it is, and with the later layer's own norm before it (renormed). "
                    f"{found.tokens:,} tokens of {found.groups:,} held-out prompts; nothing is "
                    "fitted but the marginal."
                ),
                page.Table(
                    "lookahead",
                    (recall.label, *(f"{hop} ahead" for hop in found.hops)),
                    rows,
                    caption=f"Mean over the layer pairs of a hop, {found.confidence:.0%} "
                    "intervals by prompt.",
                ),
                page.Image("lookahead"),
            ]
        }


def _look(work: Work) -> Lookahead:
    train, test = work.split
    return lookahead(test, train=train, top1=work.trace.ordered)
