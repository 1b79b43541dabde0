"""Table 5 of Mixtral of Experts: consecutive tokens that are routed alike."""

from __future__ import annotations

from routestats.report.papers import published
from routestats.report.papers.table import PaperRow, PaperTable, three_layers
from routestats.stats import repetition
from routestats.trace import Trace


def mixtral_repetition(trace: Trace) -> PaperTable:
    """Consecutive tokens that are routed alike, at the first, the middle and the last layer."""
    found = repetition(trace, top1=trace.ordered)
    layers = three_layers(trace.shape.num_layers)
    columns = [f"{kind}, layer {trace.layer_ids[i]}" for kind in ("first", "any") for i in layers]
    estimates = (found.first_choice, found.shared)

    def measured(domain: int) -> PaperRow:
        parts = [
            tuple(float(e[part][domain, layer]) * 100 for e in estimates for layer in layers)
            for part in range(3)
        ]
        return PaperRow("measured", found.domains[domain], *parts)

    rows = [measured(domain) for domain in range(len(found.domains))]
    random = (found.random_first_choice, found.random_shared)
    rows.append(
        PaperRow("random", "routed at random", tuple(r * 100 for r in random for _ in layers))
    )
    if len(layers) == len(published.MIXTRAL_LAYERS):
        for domain, (first, shared) in published.MIXTRAL_REPETITION.items():
            rows.append(PaperRow("published", f"Mixtral-8x7B, {domain}", (*first, *shared)))
    places = ", ".join(str(layer) for layer in published.MIXTRAL_LAYERS)
    return PaperTable(
        name="mixtral-repetition",
        title="Consecutive tokens that are routed alike",
        source=published.MIXTRAL,
        unit="% of pairs of consecutive tokens",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            "first: the same first choice; any: the two tokens' top-K have an expert in common.",
            f"The paper's columns are its layers {places}: the first, the middle, the last. At "
            "random its 8 experts, top-2, give 12.5 and 46.4.",
            f"Intervals: {found.confidence:.0%}, prompt groups resampled (seed {found.seed}). The "
            "paper gives none.",
        ),
    )
