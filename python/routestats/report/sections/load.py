"""How even the load of the experts is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa

from routestats import plots
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import Cell, number, share
from routestats.report._part import Drawing, Finding, Part, note
from routestats.stats import ExpertLoad, expert_load

EVEN_ENOUGH = 1.25
"""Imbalance from which a layer is called uneven."""


class Load(Part[ExpertLoad]):
    """The load of all domains together."""

    name = "load"

    def compute(self, work: Work) -> ExpertLoad:
        # Of the domains' counts, so that all pairs of layers need not be counted yet: prediction
        # counts as many for itself, and lets go of them.
        return expert_load(reduce(add, work.domain_counts.values()))

    def texts(self, found: ExpertLoad, analysis: Analysis) -> list[str]:
        several = len(analysis.load_by_domain) > 1
        return [f"{'all domains: ' if several else ''}{found.summary()}"]

    def tables(self, found: ExpertLoad, analysis: Analysis) -> dict[str, pa.Table]:
        return {"expert_load": found.to_table()}

    def figures(self, found: ExpertLoad, analysis: Analysis) -> Iterator[Drawing]:
        yield Drawing(
            "expert_load",
            lambda: plots.expert_load(found, note=note(analysis)),
            "Heat map of expert load by layer, with imbalance and effective experts",
            _reading(found),
        )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        load = analysis.load
        worst = int(load.imbalance.argmax())
        uneven = int((load.imbalance >= EVEN_ENOUGH).sum())
        yield Finding(
            "How even is the load?",
            f"The busiest expert of a layer gets {load.imbalance.mean():.2f} times the mean",
            f"(even: 1.00), on average over the layers; {uneven} of {len(load.layer_ids)} layers "
            f"are at {EVEN_ENOUGH} or more, most layer {load.layer_ids[worst]} with "
            f"{load.imbalance[worst]:.2f}.",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        of = "All domains together. " if len(analysis.load_by_domain) > 1 else ""
        return {"load": [page.Image("expert_load"), _layer_table(analysis.load, of)]}


def _reading(load: ExpertLoad) -> str:
    """How even the load is, and where it is least so."""
    experts = load.shape.num_experts
    worst = int(load.imbalance.argmax())
    busiest = int(load.load[worst].argmax())
    uneven = int((load.imbalance >= EVEN_ENOUGH).sum())
    verdict = f"uneven at {uneven} of {len(load.layer_ids)} layers" if uneven else "close to even"
    text = (
        f"Load is {verdict}: the busiest expert of a layer gets {load.imbalance.mean():.2f} times "
        f"the mean load on average, at most {load.imbalance[worst]:.2f} times (expert {busiest} of "
        f"layer {load.layer_ids[worst]}). By entropy, {load.effective_experts.mean():.1f} of "
        f"{experts} experts are in use on average over the layers, "
        f"{load.effective_experts.min():.1f} at least."
    )
    unused = int((load.load == 0).sum())
    if unused:
        text += f" {unused:,} of {load.load.size:,} experts were never used in this run."
    return text


def _layer_table(load: ExpertLoad, of: str) -> page.Block:
    rows: list[page.Row] = [
        (
            Cell(str(layer), (layer,)),
            number(load.imbalance[i], ".2f"),
            number(load.effective_experts[i], ".2f"),
            number(load.entropy_bits[i], ".3f"),
            number(int(load.load[i].argmax()), "d"),
            share(load.share[i].max()),
            number(int(load.load[i].argmin()), "d"),
            share(load.share[i].min()),
        )
        for i, layer in enumerate(load.layer_ids)
    ]
    headers = (
        "Layer",
        "Imbalance",
        "Effective experts",
        "Entropy (bits)",
        "Busiest expert",
        "Its share",
        "Idlest expert",
        "Its share of load",
    )
    experts = load.shape.num_experts
    return page.Details(
        "Load of each layer, in numbers",
        page.Table(
            "load-by-layer",
            headers,
            rows,
            caption=f"{of}Even use: imbalance 1, {experts} effective experts, "
            f"{np.log2(experts):.3f} bits, a share of {1 / experts:.1%}. Pairing {load.pairing}.",
        ),
    )
