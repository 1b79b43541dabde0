"""Whether two domains are routed differently, beyond chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import comb

import numpy as np
import pyarrow as pa

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import NONE, Cell, number, percent
from routestats.report._limits import LEVEL, affinity_pairs, domain_pairs
from routestats.report._part import Drawing, Finding, Part, Restriction, note
from routestats.report.sections.load_by_domain import several_domains
from routestats.result import Result
from routestats.schema import PHASES
from routestats.stats import DomainDifference, compare_domains

Differences = tuple[DomainDifference, ...]


class DomainDifferences(Part[Differences]):
    """Pairs of domains within each phase."""

    name = "domains"

    def compute(self, work: Work) -> Differences:
        adjacent = affinity_pairs(work.trace.shape)
        found = []
        for first, second in domain_pairs(work.trace.domains):
            for phase in PHASES:
                result = work.attempt(
                    f"{first} against {second}, {phase}",
                    partial(
                        compare_domains, work.trace, first, second, phase=phase, pairs=adjacent
                    ),
                )
                if result is not None:
                    found.append(result)
        return tuple(found)

    def results(self, found: Differences) -> dict[str, Result]:
        return {f"domains, {d.domains[0]} {d.domains[1]}, {d.phase}": d for d in found}

    def tables(self, found: Differences, analysis: Analysis) -> dict[str, pa.Table]:
        return {f"difference_{'_'.join(d.domains)}_{d.phase}": d.to_table() for d in found}

    def figures(self, found: Differences, analysis: Analysis) -> Iterator[Drawing]:
        if len(_pairs(found)) != 1:
            return
        yield Drawing(
            "domain_divergence",
            lambda: plots.domain_divergence(*found, note=note(analysis)),
            "Divergence of expert loads between two domains by layer",
            _reading(found),
        )
        for each in found:
            yield Drawing(
                f"load_difference_{each.phase}",
                partial(plots.load_difference, each, note=note(analysis)),
                f"Difference of the loads of two domains by layer and expert, {each.phase}",
            )

    def restrictions(self, found: Differences, analysis: Analysis) -> Iterator[Restriction]:
        domains = analysis.trace.domains
        asked = domain_pairs(domains)
        if len(asked) < comb(len(domains), 2):
            names = ", ".join(" – ".join(pair) for pair in asked)
            yield Restriction(
                f"{len(asked)} of the {comb(len(domains), 2)} pairs of domains are compared, the "
                f"first in alphabetical order: {names}. routestats.stats.compare_domains compares "
                "any other."
            )
        if len(_pairs(found)) > 1:
            yield Restriction(
                "Figures of the difference of two domains are drawn where one pair is compared "
                "only; here the tables (difference_*.csv) hold the numbers of each pair."
            )
        if not found:
            return
        shape, layer_ids = analysis.trace.shape, analysis.load.layer_ids
        pairs = affinity_pairs(shape)
        if len(pairs) < shape.num_layers - 1:
            names = ", ".join(f"{layer_ids[a]} → {layer_ids[b]}" for a, b in pairs)
            yield Restriction(
                f"Affinity is compared between domains at {len(pairs)} of the "
                f"{shape.num_layers - 1} adjacent layer pairs ({names}); loads are compared at "
                "every layer.",
                many_experts=True,
            )
        experts = found[0].experts
        if (fewest := experts.fewest(LEVEL)) > 1:
            yield Restriction(
                f"Of the {experts.q_value.size:,} experts that domains may load differently, fewer "
                f"than {fewest:,} cannot be told from chance by {experts.permutations:,} "
                "permutations.",
                many_experts=True,
            )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        if not analysis.differences:
            return
        first = analysis.differences[0].domains
        found = [d for d in analysis.differences if d.domains == first]
        moved = analysis.transfer
        text = bits_beside(found)
        if moved is not None:
            measure = moved.measures[0]
            own, other = (percent(measure.hop, (i, 0, 0)).text for i in (0, 1))
            text += (
                f" A table learnt on {moved.domains[1]} predicts {moved.domains[0]} with {other} "
                f"({measure.name.replace('_', ' ')}), its own with {own}, the marginal with "
                f"{percent(measure.marginal, (0, 0, 0)).text}."
            )
        if (others := len(_pairs(analysis.differences)) - 1) > 0:
            text += f" {others} more pairs of domains are compared under “Domains”."
        yield Finding(f"Do {first[0]} and {first[1]} differ?", beyond(found), text)

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        if not several_domains(analysis):
            return {}
        found = analysis.differences
        blocks: list[page.Block] = []
        if found:
            blocks = [
                difference_table(found, "domain-differences", "Domains"),
                page.Details(
                    "The loads of each layer, in numbers",
                    layer_table(
                        found,
                        "domain-differences-by-layer",
                        "Domains",
                        "Jensen-Shannon divergence of the loads of each layer.",
                    ),
                ),
            ]
        blocks += [page.Image("domain_divergence"), page.Image("load_by_domain")]
        blocks += [page.Image(f"load_difference_{phase}") for phase in PHASES]
        return {"domains": blocks}


def _pairs(found: Sequence[DomainDifference]) -> set[tuple[str, str]]:
    return {difference.domains for difference in found}


def beyond(found: Sequence[DomainDifference]) -> str:
    """At how many layers and for how many experts the loads of two sides differ."""
    return "; ".join(
        f"{d.phase}: loads differ at {int((d.load.q_value <= LEVEL).sum())} of {len(d.layer_ids)} "
        f"layers and for {int(d.experts.beyond(LEVEL).sum()):,} of {d.experts.q_value.size:,} "
        "experts"
        for d in found
    )


def bits_beside(found: Sequence[DomainDifference]) -> str:
    """By how much, beside permuted prompts."""
    each = (
        f"{d.load.bits.mean():.4f} bits in {d.phase} (prompts permuted: "
        f"{d.load.null_mean_bits.mean():.4f})"
        for d in found
    )
    return f"beyond chance (q ≤ {LEVEL}): {', '.join(each)}."


def _reading(found: Sequence[DomainDifference]) -> str:
    """Where the loads of two domains differ beyond chance."""
    texts = []
    for result in found:
        layers = int((result.load.q_value <= LEVEL).sum())
        worst = int(np.nanargmax(result.load.bits))
        several = result.experts.beyond(LEVEL)
        texts.append(
            f"{result.phase.capitalize()}: the loads differ beyond chance at {layers} of "
            f"{len(result.layer_ids)} layers, most at layer {result.layer_ids[worst]} "
            f"({result.load.bits[worst]:.4f} bits, permuted prompts "
            f"{result.load.null_mean_bits[worst]:.4f}); so do those of {several.sum():,} of "
            f"{several.size:,} experts."
        )
    return " ".join(texts)


def difference_table(found: Differences, name: str, between: str) -> page.Block:
    """Loads and affinities of two sides, each beside permuted prompts."""
    rows: list[page.Row] = []
    for result in found:
        sides = f"{result.domains[0]} – {result.domains[1]}"
        several = result.experts.beyond(LEVEL)
        for what, part in (("load", result.load), ("affinity", result.affinity)):
            if len(part.bits):
                layers = int((part.q_value <= LEVEL).sum())
                rows.append(
                    [
                        sides,
                        result.phase,
                        what,
                        number(float(np.nanmean(part.bits)), ".4f"),
                        number(float(np.nanmean(part.null_mean_bits)), ".4f"),
                        Cell(f"{layers} of {len(part.bits)}", (layers,)),
                    ]
                )
        rows.append(
            [
                sides,
                result.phase,
                "load of an expert",
                Cell(NONE),
                Cell(NONE),
                Cell(f"{several.sum():,} of {several.size:,}", (int(several.sum()),)),
            ]
        )
    return page.Table(
        name,
        (
            between,
            "Phase",
            "Of",
            "Divergence (bits)",
            "Prompts permuted",
            f"Beyond chance (q ≤ {LEVEL})",
        ),
        rows,
        text_columns=(0, 1, 2),
        caption="Jensen-Shannon divergence: load over layers, affinity over "
        f"{_adjacent_pairs(found[0])}; of an expert its share of the layer's load, over all "
        f"experts of all layers. {found[0].permutations:,} permutations of prompts between the "
        "two; q is Benjamini and Hochberg's.",
    )


def _adjacent_pairs(found: DomainDifference) -> str:
    compared, every = len(found.affinity_pairs), len(found.layer_ids) - 1
    if compared == every:
        return "adjacent layers"
    return f"{compared} of the {every} adjacent layer pairs"


def layer_table(found: Differences, name: str, between: str, caption: str = "") -> page.Block:
    """A row per phase and layer."""
    rows: list[page.Row] = [
        [
            f"{result.domains[0]} – {result.domains[1]}",
            result.phase,
            Cell(str(layer), (layer,)),
            *(
                number(float(values[i]), form)
                for values, form in (
                    (result.load.bits, ".4f"),
                    (result.load.null_mean_bits, ".4f"),
                    (result.load.p_value, ".3f"),
                    (result.load.q_value, ".3f"),
                )
            ),
        ]
        for result in found
        for i, layer in enumerate(result.layer_ids)
    ]
    return page.Table(
        name,
        (between, "Phase", "Layer", "Divergence (bits)", "Prompts permuted", "p", "q"),
        rows,
        caption=caption,
        text_columns=(0, 1),
    )
