"""Figures of domains, of consecutive tokens and of segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plots_cases import colour_centre, legend_texts
from stats_cases import make_trace

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure


@pytest.fixture(scope="module")
def trace() -> rs.Trace:
    return make_trace(11, layers=4, prompts=5, length=14)[0]


def axes_of_ones_own() -> Any:
    return Figure(figsize=(5, 4)).add_subplot()


def test_a_load_difference_is_of_the_first_less_the_second(trace: rs.Trace) -> None:
    result = rs.stats.compare_domains(trace, permutations=99, hops=())
    figure = rs.plots.load_difference(result, note="a note")
    axes, bar = figure.axes
    images: Any = axes.get_images()
    image, veil = images
    first, second = (
        rs.stats.expert_load(rs.count(trace.filter(domain=name), hops=(), pairing="any")).share
        for name in "ab"
    )
    assert np.allclose(image.get_array(), 100 * (first - second))
    assert image.norm.vmin == -image.norm.vmax
    assert image.norm.vmax == pytest.approx(np.percentile(np.abs(100 * (first - second)), 99.5))
    assert bar.get_ylabel() == "share of load, a less b\n(percentage points)"
    (dots,) = axes.get_lines()
    beyond = np.flatnonzero(result.load.q_value <= 0.05)
    assert np.array_equal(dots.get_ydata(), beyond)
    chance = ~result.experts.beyond(0.05)
    assert np.array_equal(~np.ma.getmaskarray(veil.get_array()), chance)
    assert veil.get_alpha() > 0.5
    assert legend_texts(axes) == [
        f"expert: may be chance (q > 0.05): {chance.sum()} of 20",
        f"layer: differs beyond chance (q ≤ 0.05): {len(beyond)} of 4",
    ]
    assert "Which experts a uses more than b (prefill)" in figure.get_suptitle()
    assert "99 permutations of prompts" in figure.get_supxlabel()


def test_only_layers_that_differ_are_marked() -> None:
    rng = np.random.default_rng(0)
    experts = rng.integers(0, 4, (600, 3, 1)).astype(np.uint8)
    experts[300:, 1] = rng.integers(0, 2, (300, 1))
    ids = [f"r{i // 20}" for i in range(600)]
    trace = rs.Trace.from_arrays(
        experts,
        num_experts=4,
        request_ids=ids,
        domain={f"r{n}": "ab"[n >= 15] for n in range(30)},
    )
    result = rs.stats.compare_domains(trace, permutations=199, hops=())
    axes = axes_of_ones_own()
    assert rs.plots.load_difference(result, ax=axes) is axes
    assert axes.get_lines()[0].get_ydata().tolist() == [1]
    shown = np.ma.getmaskarray(axes.get_images()[1].get_array())
    assert shown[1].all()
    assert not shown[[0, 2]].any()
    divergence: Any = rs.plots.domain_divergence(result, ax=axes_of_ones_own())
    heights = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in divergence.patches}
    assert [heights[layer] for layer in range(3)] == pytest.approx(result.load.bits)


def test_a_transfer_matrix_shows_values_intervals_and_baselines(trace: rs.Trace) -> None:
    result = rs.stats.transfer(trace, bootstrap=50, test=0.4)
    figure = rs.plots.transfer(result, "recall_at_2", hop=2)
    matrix, loss, bar = figure.axes
    shown = result["recall_at_2"]
    value = 100 * shown.hop.value[:, :, 1]
    (image,) = matrix.get_images()
    assert np.allclose(np.asarray(image.get_array()), value)
    marginal = 100 * shown.marginal.value[:, :, 1]
    assert colour_centre(matrix) == pytest.approx(marginal.mean())
    texts = {text.get_position(): text.get_text().split("\n") for text in matrix.texts}
    for trained, tested in np.ndindex(2, 2):
        first, second, third = texts[tested, trained]
        assert first == f"{value[trained, tested]:.1f}%"
        low, high = (100 * part[trained, tested, 1] for part in (shown.hop.low, shown.hop.high))
        assert second == f"[{low:.1f}, {high:.1f}]"
        assert third == f"marginal {marginal[trained, tested]:.1f}%"
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == ("tested on", "trained on")
    assert [label.get_text() for label in matrix.get_xticklabels()] == ["a", "b"]
    assert bar.get_ylabel().startswith("recall@2 (%)")
    lines = {line.get_label(): line for line in loss.get_lines()}
    for tested, domain in enumerate("ab"):
        assert np.allclose(lines[f"tested on {domain}"].get_ydata(), 100 * shown.loss.value[tested])
    assert (np.asarray(lines["nothing lost"].get_ydata()) == 0).all()
    axes = axes_of_ones_own()
    assert rs.plots.transfer(result, ax=axes) is axes
    assert axes.get_title() == "Transfer: top-1 accuracy, hop 1"


def test_repetition_has_a_line_per_domain_and_the_random_share(trace: rs.Trace) -> None:
    result = rs.stats.repetition(trace, bootstrap=50)
    figure = rs.plots.repetition(result)
    for axes, estimate, random in zip(
        figure.axes, (result.first_choice, result.shared), (1 / 5, 1 - 3 / 10), strict=True
    ):
        *lines, baseline = axes.get_lines()
        assert [line.get_label() for line in lines] == ["a", "b"]
        for d, line in enumerate(lines):
            assert np.array_equal(line.get_xdata(), range(4))
            assert np.allclose(line.get_ydata(), 100 * estimate.value[d])
        assert baseline.get_label() == f"at random, {100 * random:.1f}%"
        assert np.allclose(baseline.get_ydata(), 100 * random)
        assert len(axes.collections) == 2
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylabel() == "pairs of tokens (%)"
    bare = rs.stats.repetition(trace, top1=False, bootstrap=0)
    (axes,) = rs.plots.repetition(bare).axes
    assert axes.get_title() == "consecutive tokens with an expert in common"
    assert not axes.collections
    axes = axes_of_ones_own()
    assert rs.plots.repetition(result, "shared", ax=axes) is axes
    assert np.allclose(axes.get_lines()[0].get_ydata(), 100 * result.shared.value[0])


def test_segments_are_drawn_by_window_and_by_layer(trace: rs.Trace) -> None:
    results = [rs.stats.segment_routing(trace, m, bootstrap=30) for m in (4, 2)]
    srp, sch = rs.plots.segment_routing(*results).axes
    four, two = results
    real, permuted = srp.get_lines()
    assert np.array_equal(real.get_xdata(), [2, 4])
    assert np.allclose(real.get_ydata(), [100 * float(two.srp.value), 100 * float(four.srp.value)])
    assert np.allclose(permuted.get_ydata(), [100 * two.permuted_srp, 100 * four.permuted_srp])
    assert permuted.get_label() == "tokens permuted"
    lines = sch.get_lines()
    for place, result in enumerate((two, four)):
        line, beside = lines[2 * place : 2 * place + 2]
        assert line.get_label() == f"m = {result.m}"
        assert np.allclose(line.get_ydata(), 100 * result.sch_by_layer.value)
        assert np.allclose(beside.get_ydata(), 100 * result.permuted_sch_by_layer)
    assert "tokens permuted" in legend_texts(sch)
    srp, sch = rs.plots.segment_routing(four).axes
    assert np.allclose(srp.get_lines()[0].get_ydata(), 100 * four.srp_by_layer.value)
    axes = axes_of_ones_own()
    assert rs.plots.segment_routing(four, measure="sch", ax=axes) is axes
    assert axes.get_ylabel() == "SCH: cache hits (%)"


def test_what_cannot_be_drawn_is_refused(trace: rs.Trace) -> None:
    moved = rs.stats.transfer(trace, bootstrap=0, test=0.4)
    repeated = rs.stats.repetition(trace, top1=False, bootstrap=0)
    segments = rs.stats.segment_routing(trace, 2, bootstrap=0)
    larger = rs.stats.segment_routing(trace, 3, capacity=3, bootstrap=0)
    difference = rs.stats.compare_domains(trace, permutations=9, hops=())
    for call, message in (
        (lambda: rs.plots.transfer(moved, "exact"), "measure: expected one of"),
        (lambda: rs.plots.transfer(moved, hop=4), "hop: expected 1 to 3, got 4"),
        (lambda: rs.plots.repetition(repeated, "first_choice"), "measure: expected one of shared"),
        (lambda: rs.plots.segment_routing(), "results: expected 1 to 5, got 0"),
        (lambda: rs.plots.segment_routing(segments, segments), "each of another m, got \\[2, 2\\]"),
        (lambda: rs.plots.segment_routing(segments, larger), "capacity 2 as in the first"),
        (lambda: rs.plots.segment_routing(segments, measure="f1"), "measure: expected one of srp"),
        (
            lambda: rs.plots.domain_divergence(difference, difference, ax=axes_of_ones_own()),
            "results: expected 1 for ax, got 2",
        ),
    ):
        with pytest.raises(InvalidValueError, match=message):
            call()
    for name, result in (
        ("transfer", moved),
        ("repetition", repeated),
        ("segment_routing", segments),
        ("load_difference", difference),
    ):
        with pytest.raises(InvalidTypeError, match="results?: expected .*, got str"):
            getattr(rs.plots, name)("a result")
        with pytest.raises(InvalidTypeError, match="ax: expected matplotlib Axes or None"):
            getattr(rs.plots, name)(result, ax="here")
