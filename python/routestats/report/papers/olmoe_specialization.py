"""Domain specialization as OLMoE has it: the expert that a domain prefers most."""

from __future__ import annotations

from routestats.report.papers import published
from routestats.report.papers.table import PaperRow, PaperTable, three_layers
from routestats.stats import specialization
from routestats.trace import Trace


def olmoe_specialization(trace: Trace) -> PaperTable:
    """The expert of three layers that each domain prefers most, beside all tokens."""
    found = specialization(trace)
    layers = three_layers(trace.shape.num_layers)
    # The expert of each layer that the domain uses most, against all tokens.
    best = (found.share.value - found.overall).argmax(axis=2)
    columns = []
    for layer in layers:
        number = trace.layer_ids[layer]
        columns += [f"layer {number}", f"{number}: all tokens", f"{number}: expert"]

    def row(domain: int) -> PaperRow:
        parts: list[list[float]] = [[], [], []]
        for layer in layers:
            expert = int(best[domain, layer])
            everyone = float(found.overall[layer, expert]) * 100
            for bounds, estimate in zip(parts, found.share, strict=True):
                bounds.append(float(estimate[domain, layer, expert]) * 100)
            parts[0] += [everyone, float(expert)]
            for bounds in parts[1:]:
                bounds += [float("nan")] * 2
        return PaperRow("measured", found.domains[domain], *(tuple(part) for part in parts))

    def uniform(origin: str, name: str, percent: float) -> PaperRow:
        blank = (float("nan"), float("nan"))
        return PaperRow(origin, name, tuple(v for _ in layers for v in (percent, *blank)))

    rows = [row(domain) for domain in range(len(found.domains))]
    rows.append(uniform("random", "uniform router, K / E", found.uniform * 100))
    rows += [
        uniform("published", f"uniform, {model}", percent)
        for model, percent in published.OLMOE_UNIFORM.items()
    ]
    return PaperTable(
        name="olmoe-specialization",
        title="The expert that a domain prefers most, by layer",
        source=published.OLMOE,
        unit="% of the domain's tokens that choose it",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            "Specialization is N(e, D) / N(D): the tokens of domain D with e among their top-K, "
            "over the tokens of D. Shown is the expert that exceeds its share of all tokens most, "
            "beside that share.",
            "Quoted of the paper are its uniform levels. In words it finds an arXiv expert of "
            "OLMoE's first layer near 100 %, and Mixtral near uniform.",
            f"Intervals: {found.confidence:.0%}, prompt groups resampled (seed {found.seed}); the "
            "expert was chosen on the same tokens, so they flatter it.",
        ),
        whole=tuple(columns[2::3]),
    )
