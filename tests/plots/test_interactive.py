"""The interactive figures: the data behind them, what is named, and that they stay small."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speculation_cases import chain, trace_of
from timing_cases import write as write_timings

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError, RouteStatsError
from routestats.plots import interactive
from routestats.stats._predictors.table import PREDICTORS

LAYERS, EXPERTS, TOKENS = 6, 8, 400


def trace(layers: int = LAYERS, experts: int = EXPERTS, top_k: int = 2) -> rs.Trace:
    rng = np.random.default_rng(layers)
    ids = rng.random((TOKENS, layers, experts)).argsort(axis=2)[:, :, :top_k].astype(np.uint8)
    ids[:, 1, 0] = ids[:, 0, 0]  # something to see; a set may then hold an expert twice: mend it
    same = ids[:, 1, 0] == ids[:, 1, 1]
    ids[same, 1, 1] = (ids[same, 1, 0] + 1) % experts
    requests = [f"r{i // 10}" for i in range(TOKENS)]
    return rs.Trace.from_arrays(
        ids,
        num_experts=experts,
        request_ids=requests,
        token_ids=rng.integers(0, 9, TOKENS),
        domain={r: "ab"[int(r[1:]) % 2] for r in requests},
        ordered=True,
    )


def source(layout: Any, name: str) -> dict[str, Any]:
    """Data of the source of that name."""
    from bokeh.models import ColumnDataSource

    (found,) = (s for s in layout.select({"type": ColumnDataSource}) if s.name == name)
    data: dict[str, Any] = found.data
    return data


def plots(layout: Any) -> list[Any]:
    from bokeh.plotting import figure

    return list(layout.select({"type": figure}))


def wide(layers: int = 58, experts: int = 256, hops: Any = "all") -> rs.RouteCounts:
    rng = np.random.default_rng(0)
    ids = rng.random((30, layers, experts)).argsort(axis=2)[:, :, :8].astype(np.uint8)
    return rs.count(ids, num_experts=experts, hops=hops, pairing="any")


# --- affinity ---


@pytest.mark.parametrize("pairing", ["any", "top1"])
def test_affinity_holds_every_pair_and_shows_the_one_asked_for(pairing: Any) -> None:
    counts = rs.count(trace(), hops="all", pairing=pairing)
    layout = interactive.affinity(counts, source=1, hop=2)
    cells = source(layout, "cells")
    expected = rs.stats.affinity(counts, 1, 3)
    assert np.allclose(cells["affinity"], expected.matrix.ravel() * 100, atol=1e-4)
    load = counts.expert[3] / counts.tokens * 100
    assert np.allclose(cells["load"], load[cells["target"]], atol=1e-4)
    assert np.allclose(cells["difference"], cells["affinity"] - cells["load"], atol=1e-4)
    assert np.array_equal(cells["tokens"], counts.expert[1][cells["source"]])
    everything = np.reshape(source(layout, "all pairs")["affinity"], (-1, EXPERTS, EXPERTS))
    pairs = [(s, s + h) for h in range(1, LAYERS) for s in range(LAYERS - h)]
    assert len(everything) == len(pairs)
    for matrix, (src, dst) in zip(everything, pairs, strict=True):
        expected = rs.stats.affinity(counts, src, dst)
        assert np.allclose(matrix, expected.matrix * 100, atol=1e-4)
    (plot,) = plots(layout)
    assert plot.title.text == "layer 1 to layer 3"
    assert (plot.x_range.end, plot.y_range.start) == (EXPERTS - 0.5, EXPERTS - 0.5)
    slider = layout.select_one({"name": "source layer"})
    assert (slider.value, slider.end) == (1, LAYERS - 2)


def test_the_strongest_link_is_named_with_its_baseline() -> None:
    counts = rs.count(trace(), hops="all", pairing="top1")
    text = interactive.affinity(counts, min_tokens=1).select_one({"name": "strongest link"}).text
    lift = rs.stats.affinity(counts, 0, 1).matrix - counts.expert[1] / counts.tokens
    e, f = np.unravel_index(np.nanargmax(lift), lift.shape)
    assert e == f  # the second layer repeats the first
    assert f"expert {e} at layer 0" in text
    assert f"expert {f} at layer 1, against {counts.expert[1][f] / counts.tokens:.1%}" in text
    none = interactive.affinity(counts, min_tokens=TOKENS + 1)
    assert none.select_one({"name": "strongest link"}).text == ""


def test_many_experts_are_shown_in_groups_and_hops_left_out() -> None:
    counts = wide()
    layout = interactive.affinity(counts)
    cells = source(layout, "cells")
    assert len(cells["affinity"]) == 32 * 32
    assert cells["source_name"][0] == "0–7"
    both = counts.pair(0, 1).reshape(32, 8, 32, 8).sum(axis=(1, 3))
    chosen = counts.expert[0].reshape(32, 8).sum(axis=1)
    assert np.allclose(cells["affinity"], (both / chosen[:, None]).ravel() * 100, atol=1e-3)
    assert layout.select_one({"name": "hop"}).options == ["1", "2", "4", "8", "16", "32"]
    from bokeh.models import Div

    texts = [div.text for div in layout.select({"type": Div})]
    assert any("groups of 8 consecutive experts" in text for text in texts)
    assert any("51 hops left out" in text for text in texts)
    assert len(interactive.show(layout).html) < 2_500_000


def test_affinity_refuses_what_it_cannot_show() -> None:
    with pytest.raises(InvalidValueError, match="expected one from 1 on"):
        interactive.affinity(rs.count(trace(), hops=(0,), pairing="any"))
    counts = rs.count(trace(), hops=(1,), pairing="any")
    with pytest.raises(InvalidValueError, match="expected a counted pair"):
        interactive.affinity(counts, source=LAYERS - 1)
    with pytest.raises(InvalidValueError, match="at least 1 token"):
        interactive.affinity(rs.RouteCounts.empty(counts.shape, hops=(1,), pairing="any"))


# --- load ---


def test_load_by_layer_and_domain() -> None:
    both = trace()
    loads = {
        d: rs.stats.expert_load(rs.count(both.filter(domain=d), hops=(), pairing="any"))
        for d in both.domains
    }
    layout = interactive.expert_load(loads, layer=2)
    cells, bars = source(layout, "cells"), source(layout, "bars")
    for letter, load in zip("ab", loads.values(), strict=True):
        assert np.allclose(cells[f"share_{letter}"], load.share.ravel() * 100, atol=1e-4)
        assert np.allclose(bars[f"share_{letter}"], load.share[2] * 100, atol=1e-4)
    assert np.allclose(cells["log_ratio"], np.log2(loads["a"].share.ravel() * EXPERTS), atol=1e-4)
    assert layout.select_one({"name": "domain"}).options == ["a", "b"]
    titled = {plot.title.text: plot for plot in plots(layout)}
    map_plot, bar_plot = (
        titled["load relative to even use"],
        titled["layer 2: share of each expert"],
    )
    assert bar_plot.y_range.end > cells["share_a"].max()
    assert map_plot.yaxis[0].axis_label == "MoE layer"
    with pytest.raises(InvalidValueError, match="expected 1 to 5 domains, got 0"):
        interactive.expert_load({})
    with pytest.raises(InvalidValueError, match="layer: expected 0 to 5"):
        interactive.expert_load(loads["a"], layer=6)
    assert len(interactive.show(interactive.expert_load(rs.stats.expert_load(wide()))).html) < 1e6


# --- prediction and layer pairs ---


@pytest.fixture(scope="module")
def accuracy() -> rs.stats.HopAccuracy:
    return rs.stats.hop_accuracy(*trace().split(test=0.5), bootstrap=30)


def test_prediction_has_a_line_for_every_predictor(accuracy: rs.stats.HopAccuracy) -> None:
    layout = interactive.prediction(accuracy)
    (plot,) = plots(layout)
    labels = [item.label.value for item in plot.legend[0].items]
    assert labels == [p.label for p in accuracy.main.predictions]
    assert plot.legend[0].click_policy == "hide"
    for each in accuracy.main.predictions:
        data = source(layout, each.label)
        assert np.array_equal(data["hop"], np.arange(1, LAYERS))
        for measure in accuracy.measures:
            found = measure[each.name].by_hop
            assert np.allclose(data[f"value_{measure.name}"], found.value * 100, atol=1e-4)
            assert np.allclose(data[f"low_{measure.name}"], found.low * 100, atol=1e-4)
        assert np.array_equal(data["value"], data["value_top1_accuracy"])
    assert layout.select_one({"name": "measure"}).options == [m.label for m in accuracy.measures]
    with pytest.raises(InvalidValueError, match="measure"):
        interactive.prediction(accuracy, measure="luck")


def test_layer_pairs_of_accuracy(accuracy: rs.stats.HopAccuracy) -> None:
    layout = interactive.layer_pairs(accuracy, layer=1)
    cells, row = source(layout, "cells"), source(layout, "row")
    assert len(cells["value"]) == LAYERS * (LAYERS - 1) // 2
    at = cells["source"], cells["target"]
    hop = accuracy.main["single_hop"]
    assert np.allclose(cells["value"], hop.matrix.value[at] * 100, atol=1e-4)
    assert np.allclose(cells["low"], hop.matrix.low[at] * 100, atol=1e-4)
    assert np.allclose(cells["baseline"], accuracy.main.marginal.value[at[1]] * 100, atol=1e-4)
    assert row["target"].tolist() == [2, 3, 4, 5]
    assert np.allclose(row["value"], hop.matrix.value[1, 2:] * 100, atol=1e-4)
    shown = layout.select_one({"name": "shown"})
    assert shown.value == "top-1 accuracy, single hop"
    assert len(shown.options) == 2 * 5  # of each measure all predictors but the two baselines


def test_layer_pairs_of_information_and_correlation() -> None:
    found = rs.stats.information(trace(), "top1", hops=(1, 3), null_draws=9)
    layout = interactive.layer_pairs(found)
    cells = source(layout, "cells")
    assert set((cells["target"] - cells["source"]).tolist()) == {1, 3}
    at = cells["source"], cells["target"]
    assert np.allclose(cells["value"], found.mi_bits.value[at], atol=1e-5)
    assert np.allclose(cells["baseline"], found.request_null_bits[at], atol=1e-5)
    assert np.allclose(cells["baseline_1"], found.token_null_bits[at], atol=1e-5)
    counts = rs.count(trace(), hops="all", pairing="any")
    related = rs.stats.correlation(counts)
    cells = source(interactive.layer_pairs(related), "cells")
    at = cells["source"], cells["target"]
    assert np.allclose(cells["value"], related.mean_abs[at], atol=1e-5)
    assert np.allclose(cells["value_1"], np.abs(related.largest[at]), atol=1e-5)
    with pytest.raises(InvalidTypeError, match="got RouteCounts"):
        interactive.layer_pairs(counts)  # type: ignore[arg-type]


# --- paths, domains ---


def test_path_flow_draws_each_path_through_its_experts() -> None:
    data = trace()
    windows = [rs.count_paths(data, "top1", start, 3, 20) for start in range(LAYERS - 2)]
    layout = interactive.path_flow(*windows, shown=5)
    lines = source(layout, "paths")
    assert len(lines["xs"]) == 5
    for rank in range(5):
        path = windows[0].paths[rank]
        assert lines["xs"][rank] == [0, 1, 2]
        assert np.array_equal(np.round(lines["ys"][rank]), path)  # beside the expert's own line
        assert lines["path"][rank] == " ".join(map(str, path))
        assert lines["tokens"][rank] == windows[0].counts[rank]
    assert lines["width"] == sorted(lines["width"], reverse=True)
    (plot,) = plots(layout)
    assert f"the 5 most frequent of {windows[0].distinct:,} paths" in plot.title.text
    assert layout.select_one({"name": "window"}).end == len(windows) - 1
    with pytest.raises(InvalidValueError, match="kind 'top1', got 'set'"):
        interactive.path_flow(rs.count_paths(data, "set", 0, 3, 5))
    with pytest.raises(InvalidValueError, match="got none"):
        interactive.path_flow()


def test_domain_difference_shows_both_phases_and_the_null() -> None:
    one = rs.stats.compare_domains(trace(), phase="prefill", permutations=19)
    layout = interactive.domain_difference(one, one)
    cells, layers = source(layout, "cells"), source(layout, "layers")
    points = (one.load_share[0] - one.load_share[1]) * 100
    assert np.allclose(cells["points"], points.ravel(), atol=1e-4)
    assert np.allclose(cells["expert_q"], one.experts.q_value.ravel(), atol=1e-6)
    veiled = np.asarray(cells["chance_1"]) > 0
    assert np.array_equal(veiled, ~one.experts.beyond().ravel())
    assert veiled.sum() > 0
    assert np.allclose(layers["bits"], one.load.bits, atol=1e-6)
    assert np.allclose(layers["null"], one.load.null_mean_bits, atol=1e-6)
    assert np.allclose(layers["q_1"], one.load.q_value, atol=1e-6)
    with pytest.raises(InvalidValueError, match="expected 1 to 9, got 0"):
        interactive.domain_difference()


# --- inside the engine ---


def test_timing_stacks_the_stages_of_every_kind_of_step(tmp_path: Path) -> None:
    write_timings(tmp_path)
    write_timings(tmp_path, prefill_rows=4)
    times = rs.stats.timing(tmp_path)
    layout = interactive.timing(times, cited=(0.47, 0.592))
    stages, overhead = source(layout, "stages"), source(layout, "overhead")
    assert layout.select_one({"name": "steps"}).options == [g.label for g in times.groups]
    for place, group in enumerate(times.groups):
        for part in ("gate", "experts", "host"):
            assert np.allclose(stages[f"us_{part}_{place}"], group.part_ns[part].value / 1e3)
            share = group.share_of_moe[part].value * 100
            assert np.allclose(stages[f"share_{part}_{place}"], share, atol=1e-4)
        share = group.share_of_moe["overhead"].value * 100
        assert np.allclose(overhead[f"value_{place}"], share, atol=1e-4)
    stacked = sum(stages[part] for part in ("gate", "topk", "dispatch", "experts", "combine"))
    assert np.allclose(stacked + stages["host"], 100, atol=0.1)
    from bokeh.models import BoxAnnotation

    (band,) = layout.select({"type": BoxAnnotation})
    assert (band.bottom, band.top) == pytest.approx((47, 59.2))
    assert not list(interactive.timing(times).select({"type": BoxAnnotation}))


def test_speculation_starts_at_what_was_computed(tmp_path: Path) -> None:
    write_timings(tmp_path)
    trace = trace_of(chain(np.random.default_rng(0), 2000, 0.8))
    judged = rs.stats.speculation(trace, rs.stats.timing(tmp_path), miss_ns=1e4)
    layout = interactive.speculation(judged)
    curve, points = source(layout, "curve"), source(layout, "predictors")
    assert curve["speed_up"] == pytest.approx([judged.speed_up_at(r / 100) for r in range(101)])
    shown = [c for c in judged.cases if (c.hop, c.over_fetch) == (1, judged.top_k)]
    assert points["predictor"] == [c.predictor for c in shown]
    assert points["speed_up"] == pytest.approx([c.speed_up for c in shown])
    share = layout.select_one({"name": "share"})
    assert share.value == pytest.approx(100 * judged.prepared_ns / judged.moe_ns)
    best = max(shown, key=lambda c: c.speed_up).predictor
    assert PREDICTORS[best].label in layout.select_one({"name": "verdict"}).text


# --- tables, embedding ---


def test_table_formats_escapes_and_is_cut() -> None:
    rows = [{"a": 1234, "b": 0.256, "c": "<x>"}, {"a": 2, "b": float("nan"), "c": None}]
    html = str(interactive.table(rows, {"b": ".1%", "c": ""}, caption="of <it>"))
    assert "25.6%" in html
    assert "&lt;x&gt;" in html
    assert "of &lt;it&gt;" in html
    assert "1,234" not in html
    assert html.count("<td></td>") == 2
    many = str(interactive.table([{"n": i} for i in range(50)], most=10))
    assert many.count("<tr>") == 11
    assert "the first 10 of 50 rows" in many
    counts = rs.count(trace(), hops=(1,), pairing="any")
    arrow = interactive.table(rs.stats.affinity(counts, 0, 1).to_table())
    assert "<th>source expert</th>" in str(arrow)
    with pytest.raises(InvalidValueError, match="expected columns of a, b, c, got d"):
        interactive.table(rows, {"d": ""})


def test_embedded_layout_cannot_end_its_script_and_load_is_one_library() -> None:
    counts = rs.count(trace(), hops=(1,), pairing="any")
    layout = interactive.affinity(counts)
    layout.name = "a</script><b>"
    html = interactive.show(layout).html
    assert html.count("</script>") == 1  # the end of the element itself
    item = html.split("embed_item(")[1].rsplit(', "routestats-', 1)[0]
    assert "<" not in item
    assert json.loads(item)["doc"]["roots"][0]["attributes"]["name"] == layout.name
    loaded = interactive.load()
    assert 1_000_000 < len(loaded.html) < 2_000_000
    assert loaded.html.count("</script>") == loaded.html.count("<script>")
    assert "cdn.bokeh.org" not in html


def test_without_bokeh_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = rs.count(trace(), hops=(1,), pairing="any")
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "bokeh":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RouteStatsError, match=r"pip install 'routestats\[notebook\]'"):
        interactive.affinity(counts)


def test_import_of_routestats_brings_no_bokeh() -> None:
    code = "import sys, routestats; assert 'bokeh' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_diverging_map_is_purple_below_and_orange_above() -> None:
    """As in the static figures; of a colour `#rrggbb`, blue is the stronger end of purple."""
    from routestats.plots._draw.bokeh import diverging

    low, high = (bytes.fromhex(colour[1:7]) for colour in np.array(diverging(1.0).palette)[[0, -1]])
    assert low[2] > low[0]
    assert high[0] > high[2]
