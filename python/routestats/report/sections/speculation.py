"""Whether preparing a later layer early could pay."""

from __future__ import annotations

from collections.abc import Iterator

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import number, share
from routestats.report._part import Drawing, Finding, Part
from routestats.stats import Speculation, Timing, speculation
from routestats.stats._predictors.table import PREDICTORS


class SpeculationPart(Part[Speculation]):
    """What the predictors' recall and the measured times come to."""

    name = "speculation"

    def compute(self, work: Work) -> Speculation | None:
        timed: Timing | None = work.results.get("timing")
        if timed is None or not work.several_layers:
            return None
        if not any(group.phase == "decode" for group in timed.groups):
            return None
        return work.attempt(self.name, lambda: _judge(work, timed))

    def figures(self, found: Speculation, analysis: Analysis) -> Iterator[Drawing]:
        yield Drawing("speculation", lambda: plots.speculation(found), "Speed-up by recall")

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        judged = analysis.speculation
        if judged is not None:
            yield Finding(
                "Would speculation pay?", "Yes." if judged.pays else "No.", judged.verdict
            )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        judged = analysis.speculation
        if judged is None:
            return {}
        return {
            "speculation": [
                page.Paragraph(judged.verdict),
                page.Image("speculation"),
                page.Details(f"All {len(judged.cases)} cases, in numbers", _table(judged)),
            ]
        }


def _judge(work: Work, timed: Timing) -> Speculation:
    # Of the held-out prompts, on which the other accuracies were measured.
    _, test = work.split
    predicted = work.results.get("prediction")
    accuracy = None if predicted is None else predicted.accuracy
    return speculation(test, timed, accuracy=accuracy)


def _table(judged: Speculation) -> page.Block:
    rows: list[page.Row] = [
        (
            PREDICTORS[case.predictor].label,
            number(case.hop),
            number(case.over_fetch),
            share(case.recall),
            share(case.break_even_recall),
            number(case.speed_up, ".4f"),
        )
        for case in sorted(judged.cases, key=lambda case: -case.speed_up)
    ]
    chosen = judged.assumptions
    return page.Table(
        "speculation",
        ("Predictor", "Hop", "Experts prepared", "Recall", "Break-even", "Speed-up"),
        rows,
        caption=f"{judged.steps}: {judged.layer_ns / 1e3:.1f} µs per layer, of which "
        f"{', '.join(chosen.hides)} takes {judged.prepared_ns / 1e3:.2f} µs; at most "
        f"{judged.bound:.4f} times as fast. Assumed: overlap {chosen.overlap:g}, a miss "
        f"costs {chosen.miss_ns:g} ns more, fetching {chosen.fetch_ns:g} ns, a prediction "
        f"{chosen.predict_ns:g} ns.",
    )
