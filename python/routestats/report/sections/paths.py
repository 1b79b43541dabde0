"""How the tokens spread over the paths through all layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from routestats import plots
from routestats.counts import PathCounts, count_paths
from routestats.report import _blocks as page
from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import number, share
from routestats.report._part import Drawing, Finding, Part, note
from routestats.result import Result
from routestats.stats import Paths, paths

KINDS = ("top1", "set")
FLOW_PATHS = 12
ROUTING = {
    "observed": "as it is",
    "markov": "each layer knows the one before",
    "independent": "layers independent",
}


class PathsPart(Part[dict[str, Paths]]):
    """Paths of first choices and of sets, beside two kinds of routing without memory."""

    name = "paths"

    def compute(self, work: Work) -> dict[str, Paths]:
        found = {}
        for kind in KINDS:
            result = work.attempt(f"paths, {kind}", partial(paths, work.trace, kind=kind))
            if result is not None:
                found[kind] = result
        return found

    def results(self, found: dict[str, Paths]) -> dict[str, Result]:
        return {f"paths, {kind}": result for kind, result in found.items()}

    def tables(self, found: dict[str, Paths], analysis: Analysis) -> dict[str, pa.Table]:
        return {f"paths_{kind}": result.to_table() for kind, result in found.items()}

    def figures(self, found: dict[str, Paths], analysis: Analysis) -> Iterator[Drawing]:
        if not found:
            return
        yield Drawing(
            "path_coverage",
            lambda: plots.path_coverage(*found.values(), note=note(analysis)),
            "Share of tokens on the most frequent paths, beside routing without memory",
            _reading(found),
        )
        yield Drawing(
            "path_frequencies",
            lambda: plots.path_frequencies(next(iter(found.values())), note=note(analysis)),
            "Tokens per path against the path's rank",
        )

    def findings(self, analysis: Analysis) -> Iterator[Finding]:
        if not analysis.paths:
            return
        found = next(iter(analysis.paths.values()))
        part, n = found.windows[0], len(found.top) - 1
        kind = "first choices" if found.kind == "top1" else "sets"
        yield Finding(
            "Do few paths carry most tokens?",
            f"The top {found.top[n]:,} carry {part.observed.coverage[n]:.1%} of the tokens",
            f"({part.observed.distinct:,.0f} different paths of {kind} through all layers); "
            f"{part.markov.coverage[n]:.1%} if each layer knew only the one before it, "
            f"{part.independent.coverage[n]:.1%} if the layers were independent.",
        )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        if not analysis.paths:
            return {}
        return {
            "paths": [
                page.Image("path_coverage"),
                _table(analysis.paths),
                page.Image("path_frequencies"),
            ]
        }


class MostFrequentPaths(Part[PathCounts]):
    """The most frequent paths of first choices themselves."""

    name = "most frequent paths"

    def compute(self, work: Work) -> PathCounts | None:
        return count_paths(work.trace, top=FLOW_PATHS) if work.trace.ordered else None

    def results(self, found: PathCounts) -> dict[str, Result]:
        return {}

    def figures(self, found: PathCounts, analysis: Analysis) -> Iterator[Drawing]:
        if found.length > 1:
            yield Drawing(
                "path_flow",
                lambda: plots.path_flow(found, note=note(analysis)),
                "The most frequent paths as lines through the layers",
            )

    def sections(self, analysis: Analysis) -> dict[str, list[page.Block]]:
        flow = analysis.flow
        if flow is None or not analysis.paths:
            return {}
        rows: list[page.Row] = [
            (
                " ".join(str(int(expert)) for expert in np.ravel(path)),
                number(int(tokens)),
                share(int(tokens) / len(analysis.trace), 2),
            )
            for path, tokens in zip(flow.paths, flow.counts, strict=True)
        ]
        table = page.Table(
            "most-frequent-paths",
            ("First choices, first layer to last", "Tokens", "Of all tokens"),
            rows,
        )
        title = f"The {len(rows)} most frequent paths, expert by expert"
        return {"paths": [page.Image("path_flow"), page.Details(title, table)]}


def _reading(found: dict[str, Paths]) -> str:
    """How many paths there are, and what the most frequent carry, beside the nulls."""
    texts = []
    for result in found.values():
        part = result.windows[0]
        most = len(result.top) - 1
        kind = "first choices" if result.kind == "top1" else "whole sets"
        texts.append(
            f"By {kind}, {part.tokens:,} tokens take {part.observed.distinct:,.0f} different paths "
            f"through all layers; the {result.top[most]:,} most frequent carry "
            f"{part.observed.coverage[most]:.1%} of the tokens, against "
            f"{part.markov.coverage[most]:.1%} if each layer knew only the one before it, and "
            f"{part.independent.coverage[most]:.1%} if none knew another."
        )
    return " ".join(texts)


def _table(several: dict[str, Paths]) -> page.Block:
    first = next(iter(several.values()))
    rows: list[page.Row] = []
    for found in several.values():
        for part in found.windows:
            for name, routing in ROUTING.items():
                spread = getattr(part, name)
                rows.append(
                    [
                        found.kind,
                        part.domain,
                        routing,
                        number(float(spread.distinct), ",.0f"),
                        number(float(spread.entropy_bits), ".2f"),
                        *(share(float(value), 2) for value in spread.coverage),
                    ]
                )
    return page.Table(
        "paths",
        (
            "Paths of",
            "Domain",
            "Routing",
            "Distinct",
            "Entropy (bits)",
            *(f"On the top {n:,}" for n in first.top),
        ),
        rows,
        text_columns=(0, 1, 2),
        caption="Paths through all layers; the two last kinds of routing are means of "
        f"{first.simulations} simulations.",
    )
