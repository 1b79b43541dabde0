"""Figures that are maps: what their cells, colours and baselines are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from plots_cases import colour_centre
from stats_cases import make_trace

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure


def cells(axes: Any) -> npt.NDArray[np.float64]:
    (image,) = axes.get_images()
    values: npt.NDArray[np.float64] = np.ma.filled(image.get_array().astype(float), np.nan)
    return values


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.fixture(scope="module")
def trace() -> rs.Trace:
    return make_trace(5, layers=6, prompts=6)[0]


@pytest.fixture(scope="module")
def accuracy(trace: rs.Trace) -> rs.stats.HopAccuracy:
    return rs.stats.hop_accuracy(*trace.split(test=0.5), bootstrap=0)


@pytest.fixture(scope="module")
def information(trace: rs.Trace) -> rs.stats.Information:
    return rs.stats.information(trace, hops=(1, 3), null_draws=2)


@pytest.mark.parametrize("pairing", ["any", "top1"])
def test_affinity_shows_each_share_and_colours_it_over_that_of_all_tokens(
    trace: rs.Trace, pairing: str
) -> None:
    counts = rs.count(trace, hops=(2,), pairing=pairing)
    pairs, source, target = (
        np.asarray(values, float)
        for values in (counts.pair(1, 3), counts.expert[1], counts.expert[3])
    )
    share = pairs / source[:, None]
    figure = rs.plots.affinity(rs.stats.affinity(counts, 1, 3), note="a note")
    axes, bar = figure.axes
    ratio = share / (target / counts.tokens)
    image: Any = axes.get_images()[0]
    limit = image.norm.vmax
    assert image.norm.vmin == 1 / limit
    assert np.allclose(cells(axes), np.clip(ratio, 1 / limit, limit))
    shown = np.array([text.get_text() for text in axes.texts]).reshape(5, 5)
    assert (shown == [[f"{100 * value:.0f}" for value in row] for row in share]).all()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("expert of layer 3", "expert of layer 1")
    assert "share of all tokens" in bar.get_ylabel()
    assert pairing in figure.get_supxlabel()
    assert figure.get_supxlabel().endswith("a note")


def test_affinity_of_the_busiest_experts_keeps_their_ids(trace: rs.Trace) -> None:
    counts = rs.count(trace, hops=(1,), pairing="any")
    result = rs.stats.affinity(counts, 0, 1)
    rows, columns = (
        np.sort(np.argsort(-counts.expert[layer].astype(int), kind="stable")[:2])
        for layer in (0, 1)
    )
    axes = rs.plots.affinity(result, top=2, relative=False).axes[0]
    assert np.allclose(cells(axes), 100 * result.matrix[np.ix_(rows, columns)])
    assert ticks(axes.yaxis) == [str(row) for row in rows]
    assert ticks(axes.xaxis) == [str(column) for column in columns]


def test_affinity_of_an_expert_without_tokens_is_blank() -> None:
    experts = np.zeros((4, 2, 1), np.uint8)
    experts[:, 1, 0] = [0, 1, 1, 1]
    result = rs.stats.affinity(rs.count(experts, hops=(1,), pairing="any", num_experts=3), 0, 1)
    figure = rs.plots.affinity(result)
    assert np.isnan(cells(figure.axes[0])).tolist() == [
        [False, False, True],
        [True] * 3,
        [True] * 3,
    ]
    assert "grey: expert without tokens" in figure.get_supxlabel()


def test_many_experts_are_zoomed_into() -> None:
    rng = np.random.default_rng(0)
    experts = rng.integers(0, 100, (400, 2, 1))
    counts = rs.count(experts, hops=(1,), pairing="any", num_experts=100)
    figure = rs.plots.affinity(rs.stats.affinity(counts, 0, 1))
    assert cells(figure.axes[0]).shape == (32, 32)
    assert "the 32 busiest of the 100 experts" in figure.get_supxlabel()
    assert cells(rs.plots.affinity(rs.stats.affinity(counts, 0, 1), top=100).axes[0]).shape == (
        100,
        100,
    )
    grid = rs.plots.affinity_grid(counts)
    assert cells(grid.axes[0]).shape == (32, 32)
    assert "the 32 busiest of 100 experts" in grid.get_supxlabel()
    load = rs.stats.expert_load(counts)
    drawn = cells(rs.plots.expert_load(load).axes[0])
    assert (np.diff(np.nan_to_num(drawn), axis=1) <= 0).all()
    by_id = cells(rs.plots.expert_load(load, order="id").axes[0])
    largest_first = -np.sort(-by_id, axis=1)  # and experts without tokens last
    assert np.array_equal(largest_first, drawn, equal_nan=True)
    assert not np.array_equal(by_id, drawn, equal_nan=True)


def test_the_rows_of_a_load_map_and_its_profiles_are_level(trace: rs.Trace) -> None:
    load = rs.stats.expert_load(rs.count(trace, hops=(), pairing="any"))
    figure = rs.plots.expert_load(load)
    figure.draw_without_rendering()
    heat, imbalance, effective, _ = figure.axes
    for axes in (imbalance, effective):
        assert axes.get_ylim() == heat.get_ylim()
        assert axes.get_position().y0 == pytest.approx(heat.get_position().y0)
        assert axes.get_position().height == pytest.approx(heat.get_position().height)
    assert np.array_equal(imbalance.get_lines()[0].get_xdata(), load.imbalance)
    low, high = effective.get_xlim()
    assert low < load.effective_experts.min() <= 5 < high


@pytest.mark.parametrize("measure", ["top1_accuracy", "recall_at_2"])
def test_an_accuracy_matrix_diverges_around_the_mean_marginal(
    accuracy: rs.stats.HopAccuracy, measure: str
) -> None:
    found = accuracy[measure]
    figure = rs.plots.layer_matrix(accuracy, measure)
    axes, bar = figure.axes
    later = np.triu(np.ones((6, 6), bool), 1)
    assert np.array_equal(np.isfinite(cells(axes)), later)
    assert np.allclose(cells(axes)[later], 100 * found.hop.value[later])
    # Of each pair the marginal of its target.
    marginal = 100 * np.array([found.marginal.value[t] for _, t in np.argwhere(later)])
    assert colour_centre(axes) == pytest.approx(marginal.mean())
    (line,) = bar.get_lines()
    assert np.asarray(line.get_ydata())[0] == pytest.approx(marginal.mean())
    assert f"mean {marginal.mean():.1f}%" in bar.get_ylabel()
    # The bar shows the values that occur, and the baseline.
    low, high = bar.get_ylim()
    assert low == pytest.approx(min(np.nanmin(cells(axes)), marginal.mean()))
    assert high == pytest.approx(max(np.nanmax(cells(axes)), marginal.mean()))
    assert axes.get_xlabel().startswith("target layer")
    assert ticks(axes.xaxis) == [str(layer) for layer in accuracy.layer_ids]


def test_the_gain_is_over_each_pairs_own_baseline(accuracy: rs.stats.HopAccuracy) -> None:
    for predictor in ("single_hop", "token_id"):
        axes = rs.plots.layer_matrix(accuracy, predictor=predictor, gain=True).axes[0]
        expected = 100 * accuracy.main[predictor].gain.value
        assert np.allclose(cells(axes), expected, equal_nan=True)
        assert colour_centre(axes) == 0
    axes = rs.plots.layer_matrix(accuracy, baseline="uniform", gain=True).axes[0]
    assert np.allclose(cells(axes), 100 * (accuracy.main.hop.value - 1 / 5), equal_nan=True)


def test_an_information_matrix_diverges_around_its_null(
    information: rs.stats.Information,
) -> None:
    known = np.isfinite(information.mi_bits.value)
    figure = rs.plots.layer_matrix(information, "mi_bits", baseline="token")
    axes, bar = figure.axes
    assert np.allclose(cells(axes), information.mi_bits.value, equal_nan=True)
    null = information.token_null_bits[known].mean()
    assert colour_centre(axes) == pytest.approx(null)
    assert "permuted within token ids" in bar.get_ylabel()
    gain = rs.plots.layer_matrix(information, "mi_bits", gain=True).axes[0]
    assert np.allclose(cells(gain), information.excess_over_request_bits, equal_nan=True)
    axes, bar = rs.plots.layer_matrix(information).axes
    assert np.allclose(cells(axes), 100 * information.normalised, equal_nan=True)
    entropy = information.mi_bits.value[known] / information.normalised[known]
    expected = 100 * (information.request_null_bits[known] / entropy).mean()
    assert colour_centre(axes) == pytest.approx(expected)


def test_a_measure_without_a_null_begins_at_zero(
    trace: rs.Trace, information: rs.stats.Information
) -> None:
    axes = rs.plots.layer_matrix(information, "cramers_v").axes[0]
    assert np.allclose(cells(axes), information.cramers_v, equal_nan=True)
    assert axes.get_images()[0].norm.vmin == 0
    bare = rs.stats.information(trace, null_draws=0)
    assert rs.plots.layer_matrix(bare).axes[0].get_images()[0].norm.vmin == 0


def test_a_correlation_matrix_shows_each_pair_once(trace: rs.Trace) -> None:
    result = rs.stats.correlation(rs.count(trace, hops="all", pairing="any"))
    axes = rs.plots.layer_matrix(result).axes[0]
    later = np.triu(np.ones((6, 6), bool), 1)
    assert np.array_equal(np.isfinite(cells(axes)), later)
    assert np.allclose(cells(axes)[later], result.mean_abs[later])
    assert colour_centre(axes) == result.independent_mean_abs
    axes = rs.plots.layer_matrix(result, "largest").axes[0]
    assert np.allclose(cells(axes)[later], result.largest[later])
    assert colour_centre(axes) == 0


def test_axes_that_are_given_are_drawn_on_and_returned(
    trace: rs.Trace, accuracy: rs.stats.HopAccuracy
) -> None:
    counts = rs.count(trace, hops=(1,), pairing="any")
    figure = Figure(figsize=(12, 4))
    given = figure.subplots(1, 3)
    assert rs.plots.layer_matrix(accuracy, ax=given[0]) is given[0]
    assert rs.plots.affinity(rs.stats.affinity(counts, 0, 1), ax=given[1]) is given[1]
    assert rs.plots.expert_load(rs.stats.expert_load(counts), ax=given[2]) is given[2]
    assert all(len(axes.get_images()) == 1 and axes.get_title() for axes in given)
    assert not figure.get_suptitle()


@pytest.mark.parametrize("name", ["affinity", "layer_matrix", "expert_load"])
def test_what_is_no_result_is_refused(name: str) -> None:
    with pytest.raises(InvalidTypeError, match="result: expected .*, got ndarray"):
        getattr(rs.plots, name)(np.zeros((2, 2)))


def test_what_does_not_exist_is_refused(
    trace: rs.Trace, accuracy: rs.stats.HopAccuracy, information: rs.stats.Information
) -> None:
    counts = rs.count(trace, hops=(1,), pairing="any")
    result = rs.stats.affinity(counts, 0, 1)
    for call, message in (
        (lambda: rs.plots.layer_matrix(accuracy, "recall"), "measure: expected one of top1"),
        (lambda: rs.plots.layer_matrix(accuracy, predictor="luck"), "predictor: expected one of"),
        (lambda: rs.plots.layer_matrix(accuracy, baseline="null"), "baseline: expected one of"),
        (lambda: rs.plots.layer_matrix(information, "bits"), "measure: expected one of norm"),
        (
            lambda: rs.plots.layer_matrix(information, "cramers_v", gain=True),
            "gain: expected a measure with a null",
        ),
        (
            lambda: rs.plots.layer_matrix(information, "cramers_v", baseline="token"),
            "baseline: expected None, as cramers_v has no null",
        ),
        (
            lambda: rs.plots.layer_matrix(
                rs.stats.information(trace, "any", null_draws=0), "normalised"
            ),
            "measure: expected one with values",
        ),
        (
            lambda: rs.plots.layer_matrix(rs.stats.correlation(counts), gain=True),
            "expected neither for a Correlation",
        ),
        (lambda: rs.plots.affinity(result, top=6), "top: expected at most 5"),
        (
            lambda: rs.plots.expert_load(rs.stats.expert_load(counts), order="size"),
            "order: expected 'id', 'load' or None",
        ),
    ):
        with pytest.raises(InvalidValueError, match=message):
            call()
    with pytest.raises(InvalidTypeError, match="ax: expected matplotlib Axes or None, got Figure"):
        rs.plots.affinity(result, ax=Figure())  # type: ignore[call-overload]
