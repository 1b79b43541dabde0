"""The user's model in the tables that papers printed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from routestats.counts import count
from routestats.errors import InvalidValueError
from routestats.report.papers import published
from routestats.report.papers.table import PaperRow, PaperTable
from routestats.stats import repetition, segment_routing, specialization
from routestats.stats._base.estimate import Estimate
from routestats.stats._base.units import Runs, Units
from routestats.trace import Trace

NOT_GIVEN = "The paper prints no figures of this table that could stand here."


def paper_table(trace: Trace, name: str) -> PaperTable:
    """One of the published tables, with this trace in it.

    Parameters
    ----------
    trace : Trace
    name : {"mixtral-repetition", "olmoe-specialization", "exflow-affinity", "srp"}

    Returns
    -------
    PaperTable

    Raises
    ------
    InvalidValueError
        If there is no such table, or the trace does not have what it needs.
    """
    if name not in _TABLES:
        raise InvalidValueError(f"table: expected one of {', '.join(_TABLES)}, got {name!r}")
    return _TABLES[name](trace)


def _mixtral_repetition(trace: Trace) -> PaperTable:
    found = repetition(trace, top1=trace.ordered)
    layers = _three_layers(trace.shape.num_layers)
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


def _olmoe_specialization(trace: Trace) -> PaperTable:
    found = specialization(trace)
    layers = _three_layers(trace.shape.num_layers)
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


def _exflow_affinity(trace: Trace) -> PaperTable:
    if trace.shape.num_layers < 2:
        raise InvalidValueError("trace: expected at least 2 layers, got 1")
    pairing = "top1" if trace.ordered else "any"
    experts = trace.experts
    whole = _adjacent(trace, experts, pairing)
    everyone = count(trace, hops=(1,), pairing=pairing).expert.astype(np.float64)
    source, target = everyone[:-1], everyone[1:]
    # Weighted by how often each source expert is chosen.
    weight = source / source.sum(axis=1, keepdims=True)
    strongest = (np.nan_to_num(whole).max(axis=2) * weight).sum(axis=1)
    baseline = target.max(axis=1) / len(trace)
    layers = sorted({0, (trace.shape.num_layers - 2) // 2, trace.shape.num_layers - 2})
    columns = [f"{trace.layer_ids[i]} to {trace.layer_ids[i + 1]}" for i in layers]

    def row(origin: str, name: str, values: npt.NDArray[np.float64]) -> PaperRow:
        picked = [float(values[i]) for i in layers]
        return PaperRow(origin, name, tuple(v * 100 for v in (*picked, float(values.mean()))))

    rows = [
        row("measured", "most likely next expert, given this one", strongest),
        row("random", "most likely next expert, whatever this one", baseline),
    ]
    rng = np.random.default_rng(0)
    for tokens in published.EXFLOW_TOKENS:
        if tokens < len(trace):
            some = np.sort(rng.permutation(len(trace))[:tokens])
            part = _adjacent(trace, experts[some], pairing)
            error = np.abs(np.nan_to_num(part) - np.nan_to_num(whole)).mean(axis=2)
            rows.append(
                row("measured", f"mean error, {tokens:,} tokens", (error * weight).sum(axis=1))
            )
    rows.sort(key=lambda row: row.origin == "random")
    few, many = published.EXFLOW_TOKENS
    return PaperTable(
        name="exflow-affinity",
        title="Affinity of adjacent layers",
        source=published.EXFLOW,
        unit="%, layers by number, and the mean over all adjacent layers",
        columns=(*columns, "all"),
        rows=tuple(rows),
        notes=(
            f"Affinity is P(expert at the next layer | expert at this one), pairing {pairing}; "
            "experts weigh as they are used.",
            f"The paper finds {few:,} to {many:,} tokens enough to estimate it: the mean error is "
            "the difference per cell between a table of so many tokens, drawn at random (seed 0), "
            f"and that of all {len(trace):,}. {NOT_GIVEN}",
        ),
    )


def _srp(trace: Trace) -> PaperTable:
    longest = int(Runs.of(trace, Units.of(trace)).lengths.max())
    if longest < published.SRP_TOKENS:
        raise InvalidValueError(
            f"table srp: expected a request of at least {published.SRP_TOKENS} consecutive "
            f"positions, as long as the paper's segments; the longest run is {longest}"
        )
    found = segment_routing(trace, m=published.SRP_TOKENS)

    def row(name: str, estimate: Estimate) -> PaperRow:
        value, low, high = ((float(part) * 100,) for part in estimate)
        return PaperRow("measured", name, value, low, high)

    info = trace.info.get("model")
    name = str(info.get("name", "this model")) if isinstance(info, dict) else "this model"
    rows = [
        row(name, found.srp),
        PaperRow("random", "its tokens permuted", (found.permuted_srp * 100,)),
        *(PaperRow("published", model, (value,)) for model, value in published.SRP.items()),
    ]
    return PaperTable(
        name="srp",
        title=f"Segment routing best performance over {published.SRP_TOKENS} tokens",
        source=published.OFFLOADING,
        unit="F1, %",
        columns=("SRP",),
        rows=tuple(rows),
        notes=(
            f"Here {found.windows:,} windows of {len(trace):,} tokens; the paper's corpus has "
            "22,528 texts of 512 tokens.",
            "A model with a larger K / E scores higher by that alone: compare with the permuted "
            "tokens.",
            f"Interval: {found.confidence:.0%}, prompt groups resampled (seed {found.seed}).",
        ),
    )


def _adjacent(
    trace: Trace, experts: npt.NDArray[np.integer], pairing: str
) -> npt.NDArray[np.float64]:
    """Affinity [L - 1, E, E] of adjacent layers; NaN rows for experts that were not chosen."""
    shape = trace.shape
    counts = count(experts, num_experts=shape.num_experts, hops=(1,), pairing=pairing)
    pairs = np.stack([counts.pair(i, i + 1) for i in range(shape.num_layers - 1)])
    load = counts.expert[:-1, :, None].astype(np.float64)
    none = np.full(pairs.shape, np.nan)
    affinity: npt.NDArray[np.float64] = np.divide(pairs, load, out=none, where=load > 0)
    return affinity


def _three_layers(layers: int) -> list[int]:
    """The first, the middle and the last."""
    return sorted({0, (layers - 1) // 2, layers - 1})


_TABLES: dict[str, Callable[[Trace], PaperTable]] = {
    "mixtral-repetition": _mixtral_repetition,
    "olmoe-specialization": _olmoe_specialization,
    "exflow-affinity": _exflow_affinity,
    "srp": _srp,
}

PAPER_TABLES = tuple(_TABLES)
"""Names that `paper_table` knows."""
