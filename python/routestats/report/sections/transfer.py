"""Whether what was learnt on one domain predicts another."""

from __future__ import annotations

from collections.abc import Iterator

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import percent, points, share
from routestats.report._part import Drawing, Part, note
from routestats.report.sections.load_by_domain import several_domains
from routestats.stats import Transfer, transfer


class TransferPart(Part[Transfer]):
    """Prediction across two domains."""

    name = "transfer"

    def compute(self, work: Work) -> Transfer | None:
        trace = work.trace
        if len(trace.domains) > 2:
            work.missing[self.name] = (
                f"the report computes it of two domains, and this run has {len(trace.domains)}; "
                "routestats.stats.transfer takes any two of them"
            )
        if len(trace.domains) != 2 or not work.several_layers:
            return None
        return work.attempt(self.name, lambda: transfer(trace, top1=trace.ordered))

    def figures(self, found: Transfer, analysis: Analysis) -> Iterator[Drawing]:
        yield Drawing(
            "transfer",
            lambda: plots.transfer(found, note=note(analysis)),
            "Accuracy by domain trained on and domain tested on",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.transfer
        if found is None or not several_domains(analysis):
            return {}
        return {"domains": [page.Image("transfer"), transfer_table(found, "transfer")]}


def transfer_table(moved: Transfer, name: str) -> page.Block:
    """Prediction by a table of the same side and by one of the other."""
    rows: list[page.Row] = []
    for measure in moved.measures:
        for tested, domain in enumerate(moved.domains):
            other = 1 - tested
            rows.append(
                [
                    measure.name.replace("_", " "),
                    domain,
                    percent(measure.hop, (tested, tested, 0)),
                    percent(measure.hop, (other, tested, 0)),
                    points(measure.loss, (tested, 0)),
                    share(float(measure.marginal.value[tested, tested, 0])),
                ]
            )
    return page.Table(
        name,
        ("Measure", "Tested on", "Trained on it", "Trained on the other", "Lost", "Marginal"),
        rows,
        text_columns=(0, 1),
        caption=f"Transfer: single hop, one layer ahead, {moved.phase or 'both phases'}; "
        f"{moved.train_tokens:,} training tokens of each, pairing {moved.pairing}.",
    )
