"""The parts of the report and its sections, each once and in order; what all parts give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from routestats.report._analysis import Analysis, Work
from routestats.report._blocks import Block
from routestats.report._limits import MANY_EXPERTS
from routestats.report._part import AnyPart, Drawing, Finding
from routestats.report.sections.affinity import Affinity
from routestats.report.sections.coactivation import CoactivationPart
from routestats.report.sections.confidence import ConfidencePart
from routestats.report.sections.correlation import CorrelationPart
from routestats.report.sections.domain_differences import DomainDifferences
from routestats.report.sections.information import InformationPart
from routestats.report.sections.load import Load
from routestats.report.sections.load_by_domain import LoadByDomain
from routestats.report.sections.lookahead import LookaheadPart
from routestats.report.sections.paths import MostFrequentPaths, PathsPart
from routestats.report.sections.prediction import PredictionPart
from routestats.report.sections.repetition import RepetitionPart
from routestats.report.sections.segment_routing import SegmentRoutingPart
from routestats.report.sections.specialization import SpecializationPart
from routestats.report.sections.speculation import SpeculationPart
from routestats.report.sections.timing import TimingPart
from routestats.report.sections.transfer import TransferPart
from routestats.report.sections.verification import Verification
from routestats.result import Result
from routestats.trace import Trace

PARTS: tuple[AnyPart, ...] = (
    Verification(),
    Load(),
    LoadByDomain(),
    PredictionPart(),
    Affinity(),
    InformationPart(),
    PathsPart(),
    MostFrequentPaths(),
    DomainDifferences(),
    TransferPart(),
    RepetitionPart(),
    SegmentRoutingPart(),
    CorrelationPart(),
    CoactivationPart(),
    SpecializationPart(),
    TimingPart(),
    LookaheadPart(),
    ConfidencePart(),
    SpeculationPart(),
)
"""In the order in which a reader asks. They are computed in it, too: a part sees those before."""

SECTIONS = {
    "comparison": "Comparison",
    "run": "What was run",
    "verification": "Is the capture sound?",
    "load": "Load of the experts",
    "one-hop": "One hop: from a layer to the next",
    "many-hops": "Many hops: further ahead",
    "paths": "Paths through the layers",
    "domains": "Domains",
    "steadiness": "From token to token",
    "timing": "Where the time of a MoE layer goes",
    "lookahead": "How far ahead a gate can see",
    "speculation": "Whether speculation can pay",
    "missing": "Not computed",
    "definitions": "Definitions",
}
"""Titles of the page's sections by name, from top to bottom."""


def analyse(trace: Trace) -> Analysis:
    """Compute all parts of `trace`.

    Raises
    ------
    InvalidValueError
        If the trace has no rows.
    """
    work = Work(trace)
    for part in PARTS:
        found = part.compute(work)
        if found is not None:
            work.results[part.name] = found
    return Analysis(trace, work.counts, work.results, work.missing)


def found_in(analysis: Analysis, parts: Sequence[AnyPart] = PARTS) -> Iterator[tuple[AnyPart, Any]]:
    """The parts that found anything, and what."""
    for part in parts:
        found = part.of(analysis)
        if found is not None:
            yield part, found


def results(analysis: Analysis) -> dict[str, Result]:
    """All results by name."""
    return {
        name: result
        for part, found in found_in(analysis)
        for name, result in part.results(found).items()
    }


def tables(analysis: Analysis, parts: Sequence[AnyPart] = PARTS) -> dict[str, pa.Table]:
    """All tables by file name."""
    return {
        name: table
        for part, found in found_in(analysis, parts)
        for name, table in part.tables(found, analysis).items()
    }


def figures(analysis: Analysis, parts: Sequence[AnyPart] = PARTS) -> Iterator[Drawing]:
    """All figures."""
    for part, found in found_in(analysis, parts):
        yield from part.figures(found, analysis)


def findings(analysis: Analysis, parts: Sequence[AnyPart] = PARTS) -> list[Finding]:
    """What a reader wants to know first; a question whose answer was not computed is not there."""
    return [finding for part in parts for finding in part.findings(analysis)]


def restrictions(analysis: Analysis) -> list[str]:
    """Sentences on what is left out, or is less than for a model with few experts."""
    found = [
        restriction
        for part, result in found_in(analysis)
        for restriction in part.restrictions(result, analysis)
    ]
    experts = analysis.trace.shape.num_experts
    others = [restriction.text for restriction in found if not restriction.many_experts]
    many = [restriction.text for restriction in found if restriction.many_experts]
    if experts < MANY_EXPERTS or not many:
        return others
    why = f"With {experts} experts a layer this report computes less of some statistics."
    return [why, *many, *others]


def blocks(analysis: Analysis, parts: Sequence[AnyPart] = PARTS) -> dict[str, list[Block]]:
    """Blocks of every section, by its name."""
    gathered: dict[str, list[Block]] = {name: [] for name in SECTIONS}
    for part in parts:
        for name, several in part.sections(analysis).items():
            gathered[name] += several
    return gathered
