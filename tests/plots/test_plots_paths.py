"""Figures of paths: frequencies, coverage and flow."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plots_cases import legend_texts
from stats_cases import make_trace

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.plots._draw.flow_rows import ribbon, rows_by_straightness, stack

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from matplotlib.patches import Polygon


@pytest.fixture(scope="module")
def trace() -> rs.Trace:
    return make_trace(3, layers=4, taste=3.0)[0]


def widths(axes: Any) -> list[float]:
    """Of each line at the first layer, where it is level: half of its points are either side."""
    found = []
    for patch in axes.patches:
        if type(patch) is Polygon:
            outline = patch.get_xy()[:-1]
            found.append(abs(outline[0, 1] - outline[-1, 1]))
    return found


def test_counted_frequencies_are_drawn_exactly(trace: rs.Trace) -> None:
    counts = rs.count_paths(trace, length=3)
    figure = rs.plots.path_frequencies(counts, note="a note")
    (axes,) = figure.axes
    (line,) = axes.get_lines()
    last, tokens = (np.asarray(values)[1:] for values in line.get_data())
    # The line is at the number of tokens of each path, over its rank.
    at_rank = tokens[np.searchsorted(last, np.arange(1, counts.distinct + 1))]
    everything, each = counts.most_frequent(counts.distinct)
    assert len(everything) == counts.distinct
    assert np.array_equal(at_rank, each)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "tokens per path"
    assert "layers 0 to 2" in figure.get_suptitle()
    once = (each == 1).mean()
    assert f"{once:.0%} of the paths taken once" in figure.get_supxlabel()


def test_what_memoryless_routing_gives_stands_beside_the_paths(trace: rs.Trace) -> None:
    result = rs.stats.paths(trace, top=(1, 5, 20), simulations=2)
    axes: Any = rs.plots.path_frequencies(result).axes[0]
    window = result.windows[0]
    for container, null in zip(axes.containers, (window.markov, window.independent), strict=True):
        x, y = container.lines[0].get_data()
        share = np.asarray(null.coverage)
        assert y[0] == pytest.approx(share[0] * window.tokens)
        assert y[1] == pytest.approx((share[1] - share[0]) * window.tokens / 4)
        assert y[2] == pytest.approx((share[2] - share[1]) * window.tokens / 15)
        assert np.allclose(x, [1, np.sqrt(2 * 5), np.sqrt(6 * 20)])
    ranks, tokens = axes.get_lines()[0].get_data()
    # The steps carry all tokens.
    assert (np.diff(ranks[1:], prepend=0) * tokens[1:]).sum() == pytest.approx(window.tokens)


@pytest.mark.parametrize("domains", [2, 5, 6])
def test_more_domains_than_colours_are_not_drawn_apart(domains: int) -> None:
    rng = np.random.default_rng(0)
    tokens = 30 * domains
    trace = rs.Trace.from_arrays(
        rng.random((tokens, 3, 4)).argsort(axis=2)[:, :, :1].astype(np.uint8),
        num_experts=4,
        request_ids=[f"r{i // 10}" for i in range(tokens)],
        domain={f"r{i}": f"d{i // 3}" for i in range(3 * domains)},
        ordered=True,
    )
    figure = rs.plots.path_coverage(rs.stats.paths(trace, simulations=1))
    drawn = [str(line.get_label()) for line in figure.axes[0].get_lines()]
    assert sum(label.startswith("d") for label in drawn) == (domains if domains <= 5 else 0)
    told = f"{domains} domains are not drawn apart" in figure.get_supxlabel()
    assert told == (domains > 5)


def test_an_n_beyond_the_last_path_ends_at_it() -> None:
    experts = np.array([[[0], [1]]] * 3 + [[[1], [0]]], np.uint8)
    trace = rs.Trace.from_arrays(experts, num_experts=2, ordered=True)
    axes: Any = rs.plots.path_frequencies(rs.stats.paths(trace, top=(1, 10, 100))).axes[0]
    for container in axes.containers:
        assert len(container.lines[0].get_xdata()) <= 2
        assert np.isfinite(container.lines[0].get_ydata()).all()


def test_coverage_names_one_point_in_words(trace: rs.Trace) -> None:
    result = rs.stats.paths(trace, top=(1, 10), simulations=2)
    figure = Figure()
    axes = figure.add_subplot()
    assert rs.plots.path_coverage(result, ax=axes) is axes
    window = result.windows[0]
    line = axes.get_lines()[0]
    assert np.array_equal(line.get_xdata(), window.curve_paths)
    assert np.allclose(line.get_ydata(), 100 * window.curve_share)
    (text,) = axes.texts
    assert f"10 paths: {window.observed.coverage[1]:.1%}" in text.get_text()
    assert f"independent {window.independent.coverage[1]:.1%}" in text.get_text()


def test_few_experts_have_rows_of_their_own(trace: rs.Trace) -> None:
    counts = rs.count_paths(trace)
    figure = rs.plots.path_flow(counts, top=4)
    (axes,) = figure.axes
    paths, tokens = counts.most_frequent(4)
    lines = [patch for patch in axes.patches if type(patch) is Polygon]
    assert len(lines) == 4
    drawn = np.array(widths(axes))
    assert np.allclose(drawn / drawn[0], tokens / tokens[0])
    # Each line begins and ends within the rows of its experts.
    for path, line in zip(paths, lines, strict=True):
        outline = line.get_xy()
        for layer in (0, -1):
            at = outline[
                np.isclose(outline[:, 0], outline[:, 0].max() if layer else outline[:, 0].min())
            ]
            assert np.abs(at[:, 1] - path[layer]).max() <= 0.5
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2", "3", "4"]
    share = tokens.sum() / counts.tokens
    assert f"The 4 most travelled paths of first choices, layers 0 to 3: {share:.1%}" in (
        figure.get_suptitle()
    )
    labels = legend_texts(axes)
    assert labels[0] == f"1: {tokens[0] / counts.tokens:.2%} ({tokens[0]:,})"


def test_of_many_experts_only_those_on_the_paths_are_there() -> None:
    rng = np.random.default_rng(2)
    kinds = rng.integers(0, 256, (6, 58, 1)).astype(np.uint8)
    experts = kinds[rng.permutation(np.repeat(np.arange(6), [50, 30, 20, 10, 5, 2]))]
    counts = rs.count_paths(experts, num_experts=256)
    figure = rs.plots.path_flow(counts)
    (axes,) = figure.axes
    assert not axes.get_yticks().size
    ids = {(round(text.get_position()[0]), text.get_text()) for text in axes.texts}
    layers = {layer for layer, _ in ids}
    assert 20 <= len(layers) <= 58
    assert ids == {(layer, str(kind[layer, 0])) for kind in kinds for layer in layers}
    assert "a row is not one expert" in figure.get_supxlabel()
    assert len(axes.get_xticks()) <= 24
    assert legend_texts(axes)[-1].startswith("6 to 6:")


@given(
    st.integers(1, 8).flatmap(
        lambda paths: st.lists(
            st.lists(st.integers(0, 5), min_size=paths, max_size=paths), min_size=2, max_size=6
        )
    ),
    st.randoms(use_true_random=False),
)
def test_rows_hold_one_expert_each_and_lines_do_not_overlap(
    columns: list[list[int]], random: Random
) -> None:
    experts = np.array(columns).T
    tokens = np.sort([random.randint(1, 50) for _ in range(len(experts))])[::-1].astype(np.uint64)
    rows = rows_by_straightness(experts, tokens)
    width, offset = stack(experts, rows, tokens.astype(float))
    for layer in range(experts.shape[1]):
        pairs = set(zip(experts[:, layer].tolist(), rows[:, layer].tolist(), strict=True))
        assert len(pairs) == len({e for e, _ in pairs}) == len({r for _, r in pairs})
        centre = rows[:, layer] + offset[:, layer]
        order = np.argsort(centre)
        ends, begins = (centre + width / 2)[order][:-1], (centre - width / 2)[order][1:]
        assert (ends <= begins + 1e-9).all()
        assert np.abs(offset[:, layer]).max() + width.max() / 2 <= 1 + 1e-9


def test_a_path_that_changes_nothing_runs_straight() -> None:
    experts = np.array([[4, 9, 2, 7], [3, 3, 8, 8]])
    rows = rows_by_straightness(experts, np.array([5, 3], np.uint64))
    assert (rows == [[0] * 4, [1] * 4]).all()


def test_a_line_is_equally_wide_where_it_is_steep() -> None:
    aspect = 5.0
    outline, middle = ribbon(np.array([0.0, 6.0, 6.0]), 0.1, aspect)
    half = len(outline) // 2
    one, other = outline[:half], outline[half:][::-1]
    across = np.hypot(one[:, 0] - other[:, 0], (one[:, 1] - other[:, 1]) * aspect)
    assert np.allclose(across, 0.1 * aspect)
    for layer, row in ((0, 0.0), (1, 6.0), (2, 6.0)):
        place = np.argmin(np.abs(middle[:, 0] - layer))
        assert middle[place, 1] == pytest.approx(row)


def test_what_cannot_be_drawn_is_refused(trace: rs.Trace) -> None:
    counts = rs.count_paths(trace)
    empty = rs.count_paths(np.empty((0, 3, 1), np.uint8), num_experts=2)
    for call, message in (
        (lambda: rs.plots.path_flow(rs.count_paths(trace, "set")), "counts.kind: expected 'top1'"),
        (lambda: rs.plots.path_flow(rs.count_paths(trace, length=1)), "at least 2 layers, got 1"),
        (lambda: rs.plots.path_flow(counts, top=0), "top: expected at least 1"),
        (lambda: rs.plots.path_flow(counts, top=41), "top: expected at most 40"),
        (lambda: rs.plots.path_flow(empty), "expected at least 1, got 0"),
        (lambda: rs.plots.path_frequencies(empty), "expected at least 1 token"),
        (lambda: rs.plots.path_coverage(), "results: expected 1 to 4, got 0"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            call()
    other: Any = trace
    counted: Any = counts
    number: Any = 1
    for call, message in (
        (
            lambda: rs.plots.path_flow(rs.stats.paths(trace)),  # type: ignore[call-overload]
            "counts: expected PathCounts, got Paths",
        ),
        (lambda: rs.plots.path_frequencies(other), "expected Paths or PathCounts, got Trace"),
        (lambda: rs.plots.path_coverage(counted), "results: expected Paths, got PathCounts"),
        (
            lambda: rs.plots.path_flow(counts, ax=number),
            "ax: expected matplotlib Axes or None, got int",
        ),
    ):
        with pytest.raises(InvalidTypeError, match=message):
            call()
