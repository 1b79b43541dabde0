"""`import routestats` is light, and has the names that the documentation promises."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator

import pytest

import routestats.models

_IMPORT = """
import sys, time
import numpy, pyarrow.parquet, pyarrow.compute
ours = time.process_time()  # of the processor: the machine may be busy
import routestats
print(time.process_time() - ours)
heavy = {"torch", "vllm", "transformers", "matplotlib", "tqdm", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_import_is_light() -> None:
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
        )
        times.append(float(done.stdout))
    assert min(times) < 0.3, times


NAMES = {
    "routestats": """
        NgramCounts PathCounts RouteCounts RouteShape RouteStatsError Trace TraceWriter
        capture count count_ngrams count_paths enable live plots stats time_stages
        verify
    """,
    "routestats.counts": """
        GroupedRows LiveCounts NgramCounts PathCounts PathKind RouteCounts count
        count_ngrams count_paths rank_hits recount sum_changes_without_groups
        why_no_cuda
    """,
    "routestats.live": "DashboardServer metrics show",
    "routestats.models": "tiny_model tiny_settings",
    "routestats.plots": """
        affinity affinity_grid confidence domain_divergence expert_load hop_accuracy
        interactive layer_matrix load_by_domain load_difference lookahead path_coverage
        path_flow path_frequencies prediction repetition segment_routing speculation
        timing transfer
    """,
    "routestats.plots.interactive": """
        Html affinity domain_difference expert_load layer_pairs load path_flow
        prediction show speculation table timing
    """,
    "routestats.report": """
        Analysis Compared PAPER_TABLES PaperRow PaperTable RunComparison analyse_run
        claim_check compare_runs compare_with paper_table summary to_dict write_report
    """,
    "routestats.stats": """
        Affinity Agreement Assumptions Calibration Coactivation Confidence Correlation
        Divergence DomainDifference Estimate ExpertDifference ExpertLoad History
        HistoryHits HopAccuracy HopMeasure Information Lookahead LookaheadHits
        LookaheadMeasure MarginCurve PartAgreement Paths Prediction Repetition
        SegmentRouting Specialization Speculation SpeculationCase StepGroup Timing
        Transfer TransferMeasure WindowPaths affinity agreement coactivation
        compare_domains confidence correlation expert_load history history_hits
        hop_accuracy information lookahead lookahead_hits paths repetition
        segment_routing specialization speculation timing transfer
    """,
    "routestats.trace": "Check Trace TraceWriter VerifyResult join sort_by_weight verify",
}
"""The public names. They are contracts: a new one is added here too, and none is taken away."""
CONSTANTS = {"PAPER_TABLES"}


@pytest.mark.parametrize("package", NAMES)
def test_public_names_are_those_that_were_promised(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(NAMES[package].split())
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        thing = getattr(module, name)
        assert callable(thing) or inspect.ismodule(thing) or name in CONSTANTS


def _public() -> Iterator[tuple[str, object]]:
    for package in NAMES:
        module = importlib.import_module(package)
        for name in module.__all__:
            yield f"{package}.{name}", getattr(module, name)


def test_public_functions_and_classes_say_what_they_are() -> None:
    lacking = []
    for name, thing in _public():
        if not (inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing)):
            continue
        text = inspect.getdoc(thing) or ""
        sections = {word for word in ("Returns", "Yields", "Raises") if f"\n{word}\n---" in text}
        takes_or_gives = inspect.isfunction(thing) and (
            inspect.signature(thing).parameters
            or inspect.signature(thing).return_annotation not in (None, "None")
        )
        if not text or (takes_or_gives and not sections):
            lacking.append(name)
        if inspect.isclass(thing):
            lacking += [
                f"{name}.{method}"
                for method, found in inspect.getmembers(thing, inspect.isfunction)
                if not method.startswith("_") and not inspect.getdoc(found)
            ]
    assert lacking == []


def test_the_former_place_of_the_built_in_model() -> None:
    from routestats.engines.tiny import tiny_model

    assert tiny_model is routestats.models.tiny_model
