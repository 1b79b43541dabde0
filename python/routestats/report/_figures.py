"""The figures of a report as PNGs, each with what it shows in words."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from routestats import plots
from routestats.errors import InvalidValueError
from routestats.plots._load_by_domain import MAX_DOMAINS
from routestats.report import _html as html
from routestats.report._analysis import Analysis
from routestats.report._readings import (
    read_accuracy,
    read_affinity,
    read_differences,
    read_domains,
    read_load,
    read_paths,
    read_prediction,
    strongest_link,
)
from routestats.stats import affinity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 130
"""1,300 pixels for a figure drawn 1,000 wide, so that it stays sharp on dense screens."""
MAX_EXPERTS_DRAWN = 32


class Picture(NamedTuple):
    """A PNG, its alternative text and its reading."""

    png: bytes
    alt: str
    reading: str


class Pictures(dict[str, Picture]):
    """Pictures by file name."""

    def add(self, name: str, draw: Callable[[], Figure], alt: str, reading: str = "") -> None:
        """Draw and keep a figure."""
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=PNG_DPI)
        self[name] = Picture(buffer.getvalue(), alt, reading)

    def html(self, name: str) -> str:
        """The picture of this name for a page; empty if there is none."""
        return html.image(*self[name]) if name in self else ""


def draw_all(analysis: Analysis) -> Pictures:
    """Every figure that there are results for."""
    note = f"{analysis.trace.requests.num_rows:,} requests"
    pictures = Pictures()
    _draw_hops(analysis, pictures, note)
    _draw_patterns(analysis, pictures, note)
    _draw_engine(analysis, pictures, note)
    return pictures


def _draw_hops(analysis: Analysis, pictures: Pictures, note: str) -> None:
    pictures.add(
        "expert_load",
        lambda: plots.expert_load(analysis.load, note=note),
        "Heat map of expert load by layer, with imbalance and effective experts",
        read_load(analysis.load),
    )
    if analysis.trace.shape.num_layers > 1:
        link = strongest_link(analysis.counts)
        layer = 0 if link is None else link.layer
        experts = analysis.trace.shape.num_experts
        most = MAX_EXPERTS_DRAWN if experts > 2 * MAX_EXPERTS_DRAWN else None
        pair = affinity(analysis.counts, layer, layer + 1)
        pictures.add(
            "affinity_pair",
            lambda: plots.affinity(pair, top=most, note=note),
            "Heat map of affinity between the experts of two adjacent layers",
            read_affinity(analysis.counts),
        )
        pictures.add(
            "affinity",
            lambda: plots.affinity_grid(analysis.counts, note=note),
            "Small heat maps of affinity between experts of adjacent layers",
        )
    accuracy, compared = analysis.accuracy, analysis.of_first_choice
    if accuracy is not None and compared is not None:
        pictures.add(
            "prediction",
            lambda: plots.prediction(compared, note=note),
            "Accuracy of every predictor against the number of layers ahead",
            read_prediction(compared),
        )
        pictures.add(
            "hop_accuracy",
            lambda: plots.hop_accuracy(accuracy),
            "Matrices of prediction accuracy by source and target layer, and means by distance",
            read_accuracy(accuracy),
        )
    correlated = analysis.correlation
    if correlated is not None and np.isfinite(correlated.mean_abs).any():
        pictures.add(
            "correlation",
            lambda: plots.layer_matrix(correlated, note=note),
            "Matrix of the mean absolute correlation of experts by source and target layer",
        )


def _draw_patterns(analysis: Analysis, pictures: Pictures, note: str) -> None:
    loads = analysis.load_by_domain
    if analysis.paths:
        pictures.add(
            "path_coverage",
            lambda: plots.path_coverage(*analysis.paths.values(), note=note),
            "Share of tokens on the most frequent paths, beside routing without memory",
            read_paths(analysis.paths),
        )
        first = next(iter(analysis.paths.values()))
        pictures.add(
            "path_frequencies",
            lambda: plots.path_frequencies(first, note=note),
            "Tokens per path against the path's rank",
        )
    flow = analysis.flow
    if flow is not None and flow.length > 1:
        pictures.add(
            "path_flow",
            lambda: plots.path_flow(flow, note=note),
            "The most frequent paths as lines through the layers",
        )
    if 2 <= len(loads) <= MAX_DOMAINS:
        pictures.add(
            "load_by_domain",
            lambda: plots.load_by_domain(loads, note=note),
            "Heat maps of expert load by layer, one per domain",
            read_domains(loads),
        )
    if len({difference.domains for difference in analysis.differences}) == 1:
        pictures.add(
            "domain_divergence",
            lambda: plots.domain_divergence(*analysis.differences, note=note),
            "Divergence of expert loads between two domains by layer",
            read_differences(analysis.differences),
        )
        for each in analysis.differences:
            pictures.add(
                f"load_difference_{each.phase}",
                lambda each=each: plots.load_difference(each, note=note),  # type: ignore[misc]
                f"Difference of the loads of two domains by layer and expert, {each.phase}",
            )
    moved, repeated, segments = analysis.transfer, analysis.repetition, analysis.segments
    if moved is not None:
        pictures.add(
            "transfer",
            lambda: plots.transfer(moved, note=note),
            "Accuracy by domain trained on and domain tested on",
        )
    if repeated is not None:
        _try(
            pictures,
            "repetition",
            lambda: plots.repetition(repeated, note=note),
            "Share of consecutive tokens routed alike by layer",
        )
    if segments is not None:
        _try(
            pictures,
            "segment_routing",
            lambda: plots.segment_routing(segments, note=note),
            "Segment routing by layer, beside permuted tokens",
        )


def _draw_engine(analysis: Analysis, pictures: Pictures, note: str) -> None:
    timed, judged = analysis.timing, analysis.speculation
    ahead, sure = analysis.lookahead, analysis.confidence
    if timed is not None:
        pictures.add(
            "timing",
            lambda: plots.timing(timed),
            "Shares of a MoE layer's time by stage",
            f"Clock: {timed.clock}.",
        )
    if ahead is not None:
        pictures.add("lookahead", lambda: plots.lookahead(ahead, note=note), "Recall by distance")
    if sure is not None:
        pictures.add(
            "confidence",
            lambda: plots.confidence(sure, note=note),
            "Gate weights, and predictability by margin",
        )
    if judged is not None:
        pictures.add("speculation", lambda: plots.speculation(judged), "Speed-up by recall")


def _try(pictures: Pictures, name: str, draw: Callable[[], Figure], alt: str) -> None:
    """Draw unless the result has no value that could be drawn."""
    try:
        pictures.add(name, draw, alt)
    except InvalidValueError:
        return
