"""Every figure that shows predictors shows each of them as the one table says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lookahead_cases import LAYOUT, PAIRS, random_ids
from lookahead_cases import write_run as write_lookahead_run
from speculation_cases import chain, trace_of
from timing_cases import write as write_timings

import routestats as rs
from routestats.plots import interactive
from routestats.plots._draw.predictors import MARKERS, mark
from routestats.stats._predictors.table import PREDICTORS

pytest.importorskip("matplotlib")

# Names in a legend may be followed by a value.
OF_LABEL = {predictor.label: predictor for predictor in PREDICTORS.values()}
FIGURES = ("prediction", "hop_accuracy", "lookahead", "lookahead alone", "confidence")


@pytest.fixture(scope="module")
def accuracy() -> rs.stats.HopAccuracy:
    rng = np.random.default_rng(0)
    experts = rng.random((400, 9, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8)
    both = rs.Trace.from_arrays(
        experts,
        num_experts=8,
        request_ids=[f"r{i // 10}" for i in range(400)],
        token_ids=rng.integers(0, 9, 400),
        ordered=True,
    )
    found = rs.stats.hop_accuracy(*both.split(test=0.5), bootstrap=20)
    assert len(found.predictors) == 7
    return found


@pytest.fixture(scope="module")
def looked_ahead(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[rs.stats.Lookahead, rs.stats.HopAccuracy]:
    rng = np.random.default_rng(0)
    run = tmp_path_factory.mktemp("lookahead") / "run"
    write_lookahead_run(
        run,
        random_ids(rng, 200, 5, best=2),
        random_ids(rng, 200, 2, len(PAIRS), best=LAYOUT.ranks),
        requests=20,
    )
    train, test = rs.Trace.open(run).split(test=0.5)
    ahead = rs.stats.lookahead(test, train=train, bootstrap=20)
    return ahead, rs.stats.hop_accuracy(train, test, "top1", bootstrap=20)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> rs.stats.Speculation:
    folder = tmp_path_factory.mktemp("times")
    write_timings(folder)
    train, test = trace_of(chain(np.random.default_rng(0), 2000, 0.8)).split(test=0.5)
    accuracy = rs.stats.hop_accuracy(train, test, bootstrap=0)
    return rs.stats.speculation(test, rs.stats.timing(folder), accuracy=accuracy)


def looks_of(figure: Any) -> dict[str, tuple[str, str, str]]:
    """By predictor, colour, marker and line style of what is drawn under its label."""
    found: dict[str, tuple[str, str, str]] = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            predictor = OF_LABEL.get(str(line.get_label()).split(":")[0])
            if predictor is not None:
                look = (line.get_color(), str(line.get_marker()), line.get_linestyle())
                assert found.setdefault(predictor.name, look) == look
    return found


STYLES = {"solid": "-", "dashed": "--", "dotted": ":"}


def expected(name: str) -> tuple[str, str, str]:
    look = PREDICTORS[name]
    return look.colour, MARKERS.get(look.marker, "None"), STYLES[look.line]


@pytest.mark.parametrize("name", FIGURES)
def test_lines_of_predictors_are_those_of_the_table(
    name: str,
    accuracy: rs.stats.HopAccuracy,
    looked_ahead: tuple[rs.stats.Lookahead, rs.stats.HopAccuracy],
) -> None:
    ahead, beside = looked_ahead
    if name == "confidence":
        rng = np.random.default_rng(1)
        weights = np.sort(rng.random((400, 3, 2)), axis=2)[:, :, ::-1].astype(np.float32)
        trace = rs.Trace.from_arrays(
            rng.random((400, 3, 8)).argsort(axis=2)[:, :, :2].astype(np.uint8),
            num_experts=8,
            request_ids=[f"r{i // 10}" for i in range(400)],
            token_ids=rng.integers(0, 9, 400),
            weights=weights / weights.sum(axis=2, keepdims=True),
            ordered=True,
        )
        figure = rs.plots.confidence(rs.stats.confidence(trace, bootstrap=20))
        least = 3
    elif name == "lookahead":
        figure, least = rs.plots.lookahead(ahead, beside), 6
    elif name == "lookahead alone":
        figure, least = rs.plots.lookahead(ahead), 3
    else:
        figure = getattr(rs.plots, name)(accuracy)
        least = 7 if name == "prediction" else 3
    found = looks_of(figure)
    assert len(found) >= least
    for predictor, (colour, marker, line) in found.items():
        assert (colour, marker or "None", line) == expected(predictor), predictor
    if name == "lookahead":
        assert "not drawn: history, longest" in figure.get_supxlabel()


def test_points_of_predictors_are_those_of_the_table(judged: rs.stats.Speculation) -> None:
    figure = rs.plots.speculation(judged)
    found = looks_of(figure)
    assert set(found) == {case.predictor for case in judged.cases} - {"history_longest"}
    assert len(found) >= 5
    for name, (colour, marker, _) in found.items():
        assert (colour, marker) == (
            PREDICTORS[name].colour,
            MARKERS[mark(PREDICTORS[name])],
        )
    assert "not drawn: history, longest" in figure.get_supxlabel()


def test_interactive_lines_are_those_of_the_table(
    accuracy: rs.stats.HopAccuracy,
    looked_ahead: tuple[rs.stats.Lookahead, rs.stats.HopAccuracy],
) -> None:
    from bokeh.models import GlyphRenderer, Legend, Line, Scatter, VArea

    ahead, beside = looked_ahead
    for layout, names in (
        (interactive.prediction(accuracy), accuracy.predictors),
        (
            interactive.prediction(beside, ahead),
            (*beside.predictors, *(p.name for p in ahead.recall.predictions)),
        ),
    ):
        (legend,) = layout.select({"type": Legend})
        entries = {item.label.value: item.renderers for item in legend.items}
        assert list(entries) == [PREDICTORS[name].label for name in names]
        bands = {
            band.name.removesuffix(", interval"): band.glyph
            for band in layout.select({"type": GlyphRenderer})
            if isinstance(band.glyph, VArea)
        }
        for name in names:
            look = PREDICTORS[name]
            glyphs = {type(r.glyph): r.glyph for r in entries[look.label]}
            line, points = glyphs[Line], glyphs[Scatter]
            assert line.line_color == points.fill_color == look.colour
            assert bands[look.label].fill_color == look.colour
            assert line.line_dash == {"dashed": [6], "dotted": [2, 4], "solid": []}[look.line]
            assert points.marker == mark(look)
            assert points.fill_alpha == (1.0 if look.marker else 0.0)


def test_interactive_points_are_those_of_the_table(judged: rs.stats.Speculation) -> None:
    from bokeh.models import ColumnDataSource, Legend

    layout = interactive.speculation(judged)
    (points,) = (
        s.data for s in layout.select({"type": ColumnDataSource}) if s.name == "predictors"
    )
    looks = [PREDICTORS[name] for name in points["predictor"]]
    assert len(looks) >= 6
    assert points["label"] == [look.label for look in looks]
    assert points["colour"] == [look.colour for look in looks]
    assert points["marker"] == [mark(look) for look in looks]
    (legend,) = layout.select({"type": Legend})
    measured = {case.predictor for case in judged.cases}
    entries = [(item.label.value, item.renderers[0].glyph) for item in legend.items]
    listed = [look for name, look in PREDICTORS.items() if name in measured]
    assert [(label, glyph.marker, glyph.fill_color) for label, glyph in entries] == [
        (look.label, mark(look), look.colour) for look in listed
    ]
    (callback,) = layout.select_one({"name": "share"}).js_property_callbacks["change:value"]
    for case in callback.args["cases"]:
        look = PREDICTORS[case["predictor"]]
        assert (case["label"], case["colour"], case["marker"]) == (
            look.label,
            look.colour,
            mark(look),
        )


def test_the_rows_of_layer_pairs_are_those_of_the_table(accuracy: rs.stats.HopAccuracy) -> None:
    from bokeh.models import GlyphRenderer

    layout = interactive.layer_pairs(accuracy)
    select = layout.select_one({"name": "shown"})
    show = select.js_property_callbacks["change:value"][0]
    for option, look in zip(select.options, show.args["looks"], strict=True):
        predictor = OF_LABEL[option.split(", ", 1)[1]]
        assert look == [predictor.colour, predictor.marker, predictor.line]
    glyphs = {r.name: r.glyph for r in layout.select({"type": GlyphRenderer}) if r.name is not None}
    single, marginal = PREDICTORS["single_hop"], PREDICTORS["marginal"]
    assert glyphs["value"].line_color == glyphs["points"].fill_color == single.colour
    assert (glyphs["baseline"].line_color, glyphs["baseline"].line_dash) == (marginal.colour, [6])


def test_no_two_predictors_look_alike() -> None:
    assert len({look[2:] for look in PREDICTORS.values()}) == len(PREDICTORS)
    assert {look.marker for look in PREDICTORS.values()} <= {"", *MARKERS}
