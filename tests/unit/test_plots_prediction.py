"""The figure of all predictors: what is drawn, and where its names stand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import routestats as rs
from routestats.errors import InvalidValueError
from routestats.plots._prediction import LABEL_GAP, STYLES, _hop_ticks, _spread
from routestats.stats import HopAccuracy
from routestats.stats._predictors import LABELS

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
    assert list(lines) == [LABELS[name] for name in found.predictors]
    for each in found.main.predictions:
        line = lines[each.label]
        assert np.array_equal(line.get_xdata(), np.arange(1, layers))
        assert np.allclose(line.get_ydata(), each.by_hop.value * 100)
    assert len(axes.collections) == bands  # of all but the uniform guess, which is exact
    low, high = axes.get_ylim()
    assert low == 0
    assert all(np.max(line.get_ydata()) < high for line in lines.values())
    assert {text.get_text().removesuffix(" (baseline)") for text in axes.texts} == set(lines)
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    assert "top-1 accuracy" in figure.get_suptitle()
    assert "150 tokens, measured on 150 others (15 prompts)" in figure.get_supxlabel()


def test_names_stand_apart_and_in_the_order_of_the_lines() -> None:
    found = result(9)
    figure = rs.plots.prediction(found, measure="recall_at_4", note="a note")
    (axes,) = figure.axes
    assert axes.get_ylabel() == "recall@4 (%)"
    assert figure.get_supxlabel().endswith("a note")
    ends = {each.label: each.by_hop.value[-1] for each in found["recall_at_4"].predictions}
    labels = sorted(axes.texts, key=lambda text: text.xyann[1])
    heights = [text.xyann[1] for text in labels]
    assert all(b - a >= LABEL_GAP - 1e-9 for a, b in itertools.pairwise(heights))
    values = [ends[text.get_text().removesuffix(" (baseline)")] for text in labels]
    assert values == sorted(values)


def test_without_intervals_there_are_no_bands() -> None:
    figure = rs.plots.prediction(result(6, bootstrap=0))
    assert not figure.axes[0].collections
    assert "interval" not in figure.get_supxlabel()


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="measure: expected one of top1_accuracy"):
        rs.plots.prediction(result(3, bootstrap=0), measure="recall")


def test_every_predictor_has_a_style_of_its_own() -> None:
    assert set(LABELS) <= set(STYLES)
    assert len({style["color"] for style in STYLES.values()}) == len(STYLES)


def test_labels_move_no_more_than_they_must() -> None:
    assert _spread([0.1, 0.5]) == [0.1, 0.5]
    assert _spread([0.4, 0.4]) == pytest.approx([0.4 - LABEL_GAP / 2, 0.4 + LABEL_GAP / 2])
    assert _spread([]) == []


def test_hop_ticks_are_round_and_show_both_ends() -> None:
    assert _hop_ticks(1) == [1]
    assert _hop_ticks(3) == [1, 2, 3]
    ticks = _hop_ticks(31)
    assert (ticks[0], ticks[-1]) == (1, 31)
    assert min(b - a for a, b in itertools.pairwise(ticks[1:])) >= 3
