"""Which experts of a layer the tokens of an expert of the layer before choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from routestats import plots
from routestats.counts import RouteCounts
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import Cell, number, share
from routestats.report._limits import partners_listed
from routestats.report._part import Drawing, Part, Restriction, note
from routestats.stats import affinity
from routestats.stats._base.foremost import foremost

MIN_TOKENS = 100
"""Tokens that an expert needs for a link from it to be named."""
MAX_EXPERTS_DRAWN = 32
MAX_LAYERS = 40
"""Layers up to which several links of each pair are listed."""


class Link(NamedTuple):
    """Expert `source` of layer `layer` and `target` of the next; tokens, P(target | source), P."""

    layer: int
    source: int
    target: int
    tokens: int
    probability: float
    overall: float

    @property
    def lift(self) -> float:
        return self.probability - self.overall


class Affinity(Part[list[Link]]):
    """The expert pairs of each adjacent layer pair whose probability is raised most."""

    name = "affinity"

    def compute(self, work: Work) -> list[Link] | None:
        return _links(work.counts) if work.several_layers else None

    def tables(self, found: list[Link], analysis: Analysis) -> dict[str, pa.Table]:
        return {"affinity_adjacent": adjacent_affinity(analysis.counts)}

    def restrictions(self, found: list[Link], analysis: Analysis) -> Iterator[Restriction]:
        yield from partners_restriction("affinity_adjacent.csv", analysis)

    def figures(self, found: list[Link], analysis: Analysis) -> Iterator[Drawing]:
        counts = analysis.counts
        best = _strongest(found)
        layer = 0 if best is None else best.layer
        experts = counts.shape.num_experts
        most = MAX_EXPERTS_DRAWN if experts > 2 * MAX_EXPERTS_DRAWN else None
        yield Drawing(
            "affinity_pair",
            lambda: plots.affinity(
                affinity(counts, layer, layer + 1), top=most, note=note(analysis)
            ),
            "Heat map of affinity between the experts of two adjacent layers",
            _reading(best, counts),
        )
        yield Drawing(
            "affinity",
            lambda: plots.affinity_grid(counts, note=note(analysis)),
            "Small heat maps of affinity between experts of adjacent layers",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = self.of(analysis)
        if found is None:
            return {}
        return {
            "one-hop": [
                page.Heading("Conditional probabilities"),
                page.Image("affinity_pair"),
                _links_table(found, analysis.counts),
                page.Image("affinity"),
            ]
        }


def partners_restriction(table: str, analysis: Analysis) -> Iterator[Restriction]:
    """That a table lists some partners of each expert only, where it does."""
    shape = analysis.trace.shape
    listed = partners_listed(shape)
    if listed < shape.num_experts:
        yield Restriction(
            f"The table of pairs of experts {table} lists the {listed} most frequent partners of "
            f"each expert and not all {shape.num_experts}.",
            many_experts=True,
        )


def _per_pair(counts: RouteCounts) -> int:
    return 3 if counts.shape.num_layers <= MAX_LAYERS else 1


def _links(counts: RouteCounts) -> list[Link]:
    found = []
    for layer in range(counts.shape.num_layers - 1):
        source = counts.expert[layer].astype(np.float64)[:, None]
        target = counts.expert[layer + 1] / counts.tokens
        with np.errstate(invalid="ignore", divide="ignore"):
            probability = counts.pair(layer, layer + 1) / source
        lift = np.where(source >= MIN_TOKENS, probability - target, -np.inf)
        for place in np.argsort(-lift, axis=None, kind="stable")[: _per_pair(counts)]:
            e, f = (int(i) for i in np.unravel_index(place, lift.shape))
            if np.isfinite(lift[e, f]):
                overall = float(target[f])
                found.append(
                    Link(layer, e, f, int(source[e, 0]), float(probability[e, f]), overall)
                )
    return found


def _strongest(links: list[Link]) -> Link | None:
    """The largest rise of a probability; None where tokens are too few."""
    return max(links, key=lambda link: link.lift, default=None)


def _reading(best: Link | None, counts: RouteCounts) -> str:
    """The strongest link between adjacent layers, beside what the target's load alone gives."""
    if best is None:
        return f"No expert was chosen by {MIN_TOKENS} tokens: too few to name a link."
    ids = counts.layer_ids[best.layer], counts.layer_ids[best.layer + 1]
    return (
        f"The strongest link: of the {best.tokens:,} tokens that chose expert {best.source} at "
        f"layer {ids[0]}, {best.probability:.1%} chose expert {best.target} at layer {ids[1]}, "
        f"against {best.overall:.1%} of all tokens. It is the largest of many and from the same "
        "tokens; the held-out accuracy above says what such links are worth."
    )


def _links_table(links: list[Link], counts: RouteCounts) -> page.Block:
    listed = partners_listed(counts.shape)
    rows: list[page.Row] = []
    for link in links:
        ids = counts.layer_ids[link.layer], counts.layer_ids[link.layer + 1]
        rows.append(
            (
                Cell(f"{ids[0]} → {ids[1]}", (ids[0],)),
                number(link.source, "d"),
                number(link.target, "d"),
                number(link.tokens),
                share(link.probability),
                share(link.overall),
                number(link.lift * 100, "+.1f"),
            )
        )
    return page.Details(
        f"The strongest links of each pair of layers ({len(rows)}), in numbers",
        page.Table(
            "strongest-links",
            (
                "Layers",
                "Expert e",
                "Expert f of the next",
                "Tokens with e",
                "P(f given e)",
                "P(f)",
                "Difference (points)",
            ),
            rows,
            caption=f"Pairing {counts.pairing}: of the tokens with e among their experts, the "
            f"share with f among those of the next layer. The {_per_pair(counts)} largest "
            f"differences of each pair, of experts with at least {MIN_TOKENS} tokens; "
            f"{'all' if listed == counts.shape.num_experts else 'more'} pairs of experts are in "
            "tables/affinity_adjacent.csv. The largest of many is high by chance, too: what links "
            "are worth is the held-out accuracy above.",
        ),
    )


def adjacent_affinity(counts: RouteCounts) -> pa.Table:
    """Conditional probabilities of adjacent layers, of the partners that are listed.

    One row per layer pair, expert and partner. Only the rows that are kept are ever made.
    """
    partners = partners_listed(counts.shape)
    ids = np.array(counts.layer_ids)
    parts = []
    for layer in range(counts.shape.num_layers - 1):
        pair = counts.pair(layer, layer + 1)
        load = counts.expert[layer].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            probability = pair / load[:, None]
        source, target = foremost(probability, partners)
        rows = len(source)
        parts.append(
            pa.table(
                {
                    "pairing": pa.array([counts.pairing] * rows, pa.string()),
                    "source_layer": np.full(rows, ids[layer]),
                    "target_layer": np.full(rows, ids[layer + 1]),
                    "source_expert": source,
                    "target_expert": target,
                    "source_tokens": counts.expert[layer, source],
                    "tokens": pair[source, target],
                    "probability": probability[source, target],
                    "target_share": counts.expert[layer + 1, target] / counts.tokens,
                }
            )
        )
    return pa.concat_tables(parts)
