"""How much the experts of a layer tell about those of another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import Cell, bits, number, share
from routestats.report._limits import DRAWS, hops_shown, null_draws
from routestats.report._part import Finding, Part, Restriction
from routestats.stats import Information, information


class InformationPart(Part[Information]):
    """Mutual information by hop, beside both nulls; of first choices where they are known."""

    name = "information"

    def compute(self, work: Work) -> Information | None:
        trace = work.trace
        if not work.several_layers:
            return None
        return work.attempt(
            self.name,
            lambda: information(
                trace,
                "top1" if trace.ordered else "any",
                hops=hops_shown(trace.shape),
                null_draws=null_draws(trace.shape),
            ),
        )

    def restrictions(self, found: Information, analysis: Analysis) -> Iterator[Restriction]:
        if (draws := found.null_draws) < DRAWS:
            yield Restriction(
                f"Information permutes the tokens {draws} times and not {DRAWS}, so that its p is "
                f"{1 / (1 + draws):.2f} at the smallest.",
                many_experts=True,
            )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        found = analysis.information
        if found is None or 1 not in found.hops:
            return
        i = found.hops.index(1)
        value, token = float(found.mean_by_hop.value[i]), float(found.token_null_by_hop[i])
        yield Finding(
            "How much does a layer tell about the next?",
            f"{bits(found.mean_by_hop, i, '.3f').text} bits",
            f"of mutual information (pairing {found.pairing}). Tokens permuted within their "
            f"request leave {found.request_null_by_hop[i]:.3f}; among equal token ids "
            f"{token:.3f}: {token / value:.0%} of it is which token it is."
            if value > 0
            else f"(pairing {found.pairing}); permuted within token ids {token:.3f}.",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        found = analysis.information
        return {} if found is None else {"many-hops": _blocks(found)}


def _blocks(found: Information) -> list[page.Block]:
    headers = [
        "Layers ahead",
        "Information",
        "Permuted within requests",
        "Permuted within token ids",
        "Excess over that",
        "p of that",
    ]
    if found.pairing == "top1":
        headers += ["Of the target’s entropy", "Cramér’s V"]
    distances = found.shape.num_layers - 1
    few = (
        f" Computed for {len(found.hops)} of {distances} distances."
        if len(found.hops) < distances
        else ""
    )
    biased = (
        " No interval where tokens are too few for one, fewer than about 4 for each pair of "
        "experts: much of the information is then the estimator's bias, which the permuted tokens "
        "show too."
        if np.isnan(found.mean_by_hop.low).any()
        else ""
    )
    return [
        page.Heading("Information"),
        page.Paragraph(
            "How much the experts at one layer tell about those at another, beside two ways of "
            "breaking the link: tokens permuted within their request (what the request's load "
            "and the estimator's bias alone give), and among equal token ids (what the token's "
            "identity alone gives)."
        ),
        page.Table(
            "information",
            headers,
            _rows(found),
            caption=f"Bits, pairing {found.pairing}; means over layer pairs, "
            f"{found.confidence:.0%} jackknife intervals over {found.groups:,} prompts, "
            f"{found.null_draws} draws per null.{few}{biased}",
        ),
    ]


def _rows(found: Information) -> list[page.Row]:
    rows: list[page.Row] = []
    for i, hop in enumerate(found.hops):
        row: list[str | Cell] = [
            Cell(str(hop), (hop,)),
            bits(found.mean_by_hop, i),
            number(float(found.request_null_by_hop[i]), ".4f"),
            number(float(found.token_null_by_hop[i]), ".4f"),
            number(float(found.mean_by_hop.value[i] - found.token_null_by_hop[i]), ".4f"),
            number(float(found.token_p_by_hop[i]), ".3f"),
        ]
        if found.pairing == "top1":
            row += [
                share(float(np.nanmean(np.diagonal(found.normalised, hop)))),
                number(float(np.nanmean(np.diagonal(found.cramers_v, hop))), ".3f"),
            ]
        rows.append(row)
    return rows
