"""The figure of all predictors: what is drawn, and how it is named."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.plots._prediction import _hop_ticks
from routestats.stats import HopAccuracy
from routestats.stats._predictors.table import FITTED, PREDICTORS

pytest.importorskip("matplotlib")


def result(layers: int, bootstrap: int = 30) -> HopAccuracy:
    rng = np.random.default_rng(layers)
    experts = rng.random((300, layers, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8)
    ids = [f"r{i // 10}" for i in range(300)]
    both = rs.Trace.from_arrays(
        experts, num_experts=8, request_ids=ids, token_ids=rng.integers(0, 9, 300), ordered=True
    )
    return rs.stats.hop_accuracy(*both.split(test=0.5), bootstrap=bootstrap)


@pytest.mark.parametrize(("layers", "bands"), [(9, 6), (3, 6)])
def test_every_predictor_is_drawn_with_its_values_and_named(layers: int, bands: int) -> None:
    found = result(layers)
    figure = rs.plots.prediction(found)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == [PREDICTORS[name].label for name in found.predictors]
    for each in found.main.predictions:
        line = lines[each.label]
        assert np.array_equal(line.get_xdata(), np.arange(1, layers))
        assert np.allclose(line.get_ydata(), each.by_hop.value * 100)
    assert len(axes.collections) == bands  # of all but the uniform guess, which is exact
    low, high = axes.get_ylim()
    assert low == 0
    assert all(np.max(line.get_ydata()) < high for line in lines.values())
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    assert "top-1 accuracy" in figure.get_suptitle()
    assert "150 tokens, measured on 150 others (15 prompts)" in figure.get_supxlabel()


def test_the_legend_is_in_the_order_of_the_lines_at_hop_1() -> None:
    found = result(9)
    figure = rs.plots.prediction(found, measure="recall_at_4", note="a note")
    (axes,) = figure.axes
    assert axes.get_ylabel() == "recall@4 (%)"
    assert figure.get_supxlabel().endswith("a note")
    legend: Any = axes.get_legend()
    starts = {each.label: each.by_hop.value[0] for each in found["recall_at_4"].predictions}
    entries = [text.get_text().split("  ") for text in legend.get_texts()]
    names = [name.removesuffix(" (baseline)") for _, name in entries]
    assert set(names) == set(starts)
    assert [starts[name] for name in names] == sorted(starts.values(), reverse=True)
    assert [value for value, _ in entries] == [f"{starts[name]:.1%}" for name in names]
    baselines = {name.removesuffix(" (baseline)") for _, name in entries if "baseline" in name}
    assert baselines == {"uniform guess", "marginal"}
    # Each entry shows the colour of its own line.
    colours = {line.get_label(): line.get_color() for line in axes.get_lines()}
    assert [handle.get_color() for handle in legend.legend_handles] == [colours[n] for n in names]


def test_without_intervals_there_are_no_bands() -> None:
    figure = rs.plots.prediction(result(6, bootstrap=0))
    assert not figure.axes[0].collections
    assert "interval" not in figure.get_supxlabel()


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="measure: expected one of top1_accuracy"):
        rs.plots.prediction(result(3, bootstrap=0), measure="recall")


def test_every_predictor_of_the_figure_has_a_colour_of_its_own() -> None:
    found = result(9, bootstrap=0)
    assert set(found.predictors) == set(FITTED)
    (axes,) = rs.plots.prediction(found).axes
    assert len({line.get_color() for line in axes.get_lines()}) == len(FITTED)


def test_hop_ticks_are_round_and_show_both_ends() -> None:
    assert _hop_ticks(1) == [1]
    assert _hop_ticks(3) == [1, 2, 3]
    ticks = _hop_ticks(31)
    assert (ticks[0], ticks[-1]) == (1, 31)
    assert min(b - a for a, b in itertools.pairwise(ticks[1:])) >= 3
