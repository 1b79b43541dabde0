"""Confidence of gates, and the verdict on speculation, on cases with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from plots_cases import legend_texts
from speculation_cases import LAYERS, chain, trace_of
from timing_cases import write as write_timings

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats import _confidence, confidence, speculation, timing
from routestats.stats._predictors import guesses

# --- confidence ---


def test_weights_give_entropy_and_margin() -> None:
    first = chain(np.random.default_rng(0), 400, 0.5)
    weight = np.broadcast_to(np.array([0.5, 0.75, 1.0]), first.shape)
    found = confidence(trace_of(first, weight), bootstrap=50)
    np.testing.assert_allclose(found.top1_weight.value, [0.5, 0.75, 1.0])
    np.testing.assert_allclose(found.margin.value, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(found.entropy_bits.value, [1.0, 0.8112781, 0.0], atol=1e-6)
    np.testing.assert_allclose(found.margin.low, found.margin.high)
    assert found.to_table().num_rows == 3 * LAYERS
    json.loads(found.to_json())


def test_sure_choices_that_follow_are_predicted_and_unsure_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(0, 4, (8000, LAYERS))
    sure = rng.random((8000, LAYERS)) < 0.5
    for layer in (1, 2):  # where the gate is sure, it stays with the expert before
        first[:, layer] = np.where(sure[:, layer], first[:, layer - 1], first[:, layer])
    weight = np.where(sure, 0.9, 0.6) + rng.random((8000, LAYERS)) * 0.05
    found = confidence(trace_of(first, weight), bins=2, bootstrap=200)
    curves = {curve.predictor: curve for curve in found.curves}
    assert list(curves) == ["marginal", "previous_token", "single_hop", "history_selected"]
    assert "without a token id" in found.left_out["token_id"]
    assert "token_id: not measured" in found.summary()
    assert curves["history_selected"].accuracy.value[1] > 0.97
    unsure, certain = curves["single_hop"].accuracy.value
    assert unsure == pytest.approx(0.25, abs=0.04)
    assert certain > 0.97
    assert curves["single_hop"].accuracy.low[1] > curves["single_hop"].accuracy.high[0]
    assert abs(np.diff(curves["marginal"].accuracy.value)[0]) < 0.06
    # The margin of the source says nothing here about the target.
    at_source = confidence(trace_of(first, weight), bins=2, bootstrap=0, margin_at="source")
    single = next(curve for curve in at_source.curves if curve.predictor == "single_hop")
    assert abs(np.diff(single.accuracy.value)[0]) < 0.06
    assert "uniform guess 25.0%" in found.summary()


def test_a_chain_is_well_calibrated() -> None:
    rng = np.random.default_rng(2)
    keep = 0.6
    found = confidence(trace_of(chain(rng, 20_000, keep)), bootstrap=100)
    single = next(one for one in found.calibration if one.predictor == "single_hop")
    assert single.error < 0.02
    stated = np.nansum(single.stated * single.choices) / single.choices.sum()
    assert stated == pytest.approx(keep + (1 - keep) / 4, abs=0.02)
    # Fitted on another chain, it promises what it cannot keep.
    lying = confidence(
        trace_of(chain(rng, 4000, 0.1)), train=trace_of(chain(rng, 4000, 0.9)), bootstrap=0
    )
    assert next(one for one in lying.calibration if one.predictor == "single_hop").error > 0.5
    assert lying.test_tokens == 4000


def test_every_predictor_is_as_often_right_as_hop_accuracy_says() -> None:
    rng = np.random.default_rng(9)
    tokens = 3000
    first = chain(rng, tokens, 0.6)
    ids = rng.integers(0, 12, tokens)
    first[:, 2] = np.where(rng.random(tokens) < 0.5, ids % 4, first[:, 2])
    weight = np.full((tokens, LAYERS, 2), [0.75, 0.25], np.float32)
    trace = rs.Trace.from_arrays(
        np.stack([first, (first + 1) % 4], axis=2).astype(np.uint8),
        num_experts=4,
        request_ids=[f"r{i * 60 // tokens}" for i in range(tokens)],
        positions=np.arange(tokens) % (tokens // 60),
        token_ids=ids,
        weights=weight,
    )
    train, test = trace.split(test=0.3, seed=1)
    for hop in (1, 2):
        found = confidence(test, train=train, hop=hop, bootstrap=0, seed=3)
        other = rs.stats.hop_accuracy(train, test, "top1", bootstrap=0, seed=3)
        assert not found.left_out
        names = ["marginal", "token_id", "previous_token", "single_hop", "history_selected"]
        assert [curve.predictor for curve in found.curves] == names
        for curve in found.curves:
            right = np.nansum(curve.accuracy.value * curve.choices) / curve.choices.sum()
            expected = other["top1_accuracy"][curve.predictor].by_hop.value[hop - 1]
            assert right == pytest.approx(expected, abs=1e-12), curve.predictor
        assert [one.predictor for one in found.calibration] == [n for n in names if "prev" not in n]
        for one in found.calibration:
            assert one.error < 0.08, one.predictor


def test_guesses_from_tables_counted_in_parts_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = trace_of(chain(np.random.default_rng(3), 600, 0.7))
    whole = confidence(trace, bootstrap=0)
    monkeypatch.setattr(guesses, "TABLE_CELLS", 1)  # one context at a time
    monkeypatch.setattr(_confidence, "BATCH_ROWS", 7)
    parts = confidence(trace, bootstrap=0)
    for one, other in zip(whole.curves, parts.curves, strict=True):
        assert one.predictor == other.predictor
        for mine, theirs in zip(one.accuracy, other.accuracy, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert whole.summary() == parts.summary()


def test_confidence_needs_weights_and_order() -> None:
    first = chain(np.random.default_rng(3), 40, 0.5)
    experts = first[:, :, None].astype(np.uint8)
    bare = rs.Trace.from_arrays(experts, num_experts=4, ordered=True)
    with pytest.raises(InvalidValueError, match="expected gate weights, got a trace without any"):
        confidence(bare)
    good = trace_of(first)
    with pytest.raises(InvalidValueError, match="hop: expected below 3 layers, got 3"):
        confidence(good, hop=3)
    with pytest.raises(InvalidValueError, match="margin_at: expected one of target, source"):
        confidence(good, margin_at="both")
    with pytest.raises(InvalidTypeError, match="trace: expected a Trace"):
        confidence(experts)  # type: ignore[arg-type]


# --- speculation ---


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_timings(tmp_path)  # per layer: dispatch 10 us, MoE 360 us, decoder layer 800 us
    return tmp_path


def test_a_dispatch_of_nothing_cannot_pay(run: Path) -> None:
    trace = trace_of(chain(np.random.default_rng(4), 2000, 0.9))
    found = speculation(trace, timing(run), hides=("dispatch",), worthwhile=0.02)
    assert found.prepared_ns == pytest.approx(10_000)
    assert found.layer_ns == pytest.approx(800_000)
    assert found.bound == pytest.approx(800 / 790)
    assert not found.pays
    assert "cannot pay here" in found.verdict
    assert "1.25%" in found.verdict  # 10 of 800
    assert found.verdict in found.summary()


def test_times_follow_the_formula(run: Path) -> None:
    trace = trace_of(chain(np.random.default_rng(5), 2000, 0.9))
    found = speculation(
        trace,
        timing(run),
        hides=("dispatch", "combine"),
        fetch_ns=1_000_000.0,
        miss_ns=50_000.0,
        predict_ns=1_000.0,
        overlap=0.5,
    )
    prepared = 10_000 + 30_000 + 1_000_000
    others = 800_000 - 40_000
    for case in found.cases:
        exposed = max(0.0, prepared * case.over_fetch / 2 - 0.5 * case.hop * others)
        expected = others + 1_000 + exposed + (1 - case.recall) * (prepared + 50_000)
        assert case.layer_ns == pytest.approx(expected)
        assert case.speed_up == pytest.approx((others + prepared) / expected)
        even = found.expected_ns(case.break_even_recall, hop=case.hop, over_fetch=case.over_fetch)
        assert even == pytest.approx(found.layer_ns)
    single = [c for c in found.cases if (c.predictor, c.hop) == ("single_hop", 1)]
    marginal = [c for c in found.cases if (c.predictor, c.hop) == ("marginal", 1)]
    assert single[0].recall > marginal[0].recall
    assert single[0].speed_up > marginal[0].speed_up
    assert all(case.speed_up < found.bound for case in found.cases)
    assert found.to_table().num_rows == len(found.cases)
    json.loads(found.to_json())


def test_fetching_that_is_hidden_pays_as_far_as_it_is_predicted(run: Path) -> None:
    trace = trace_of(chain(np.random.default_rng(6), 4000, 0.95))
    found = speculation(trace, timing(run), fetch_ns=500_000.0)
    assert found.pays
    assert "can pay here under these assumptions" in found.verdict
    assert found.best.predictor != "uniform"
    assert found.speed_up_at(1.0) == pytest.approx(found.bound)
    assert found.speed_up_at(0.0) == pytest.approx(1.0)
    half = found.speed_up_at(1.0, share_of_moe=0.5)
    moe = found.moe_ns - found.prepared_ns
    others = found.layer_ns - found.prepared_ns
    assert half == pytest.approx((others + moe) / others)
    # A miss that costs enough turns it around.
    bad = speculation(trace, timing(run), fetch_ns=500_000.0, miss_ns=1e9)
    assert not bad.pays
    assert "does not pay here" in bad.verdict


def test_speculation_wrong_use(run: Path) -> None:
    trace = trace_of(chain(np.random.default_rng(7), 400, 0.5))
    times = timing(run)
    with pytest.raises(InvalidTypeError, match="timing: expected a Timing, got str"):
        speculation(trace, "run")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=r"timing\.layer_ids: expected \(0, 1\)"):
        speculation(trace.filter(layers=[0, 1]), times)
    with pytest.raises(InvalidValueError, match="hides: expected some of gate, topk"):
        speculation(trace, times, hides=("experts",))
    with pytest.raises(InvalidValueError, match="overlap: expected between 0 and 1, got 2"):
        speculation(trace, times, overlap=2.0)
    with pytest.raises(InvalidValueError, match="miss_ns: expected at least 0"):
        speculation(trace, times, miss_ns=-1.0)
    with pytest.raises(InvalidValueError, match="group: expected one of decode, 4 tokens"):
        speculation(trace, times, phase="prefill")


def test_figures(run: Path) -> None:
    pytest.importorskip("matplotlib")
    trace = trace_of(chain(np.random.default_rng(8), 2000, 0.9))
    times = timing(run)
    for figure in (
        rs.plots.timing(times),
        rs.plots.speculation(speculation(trace, times)),
        rs.plots.confidence(confidence(trace, bootstrap=20)),
    ):
        assert figure.get_size_inches()[0] * figure.dpi == 1000
        assert figure.axes


def test_the_figure_of_confidence_shows_every_predictor() -> None:
    pytest.importorskip("matplotlib")
    trace = trace_of(chain(np.random.default_rng(8), 2000, 0.9))
    found = confidence(trace, bootstrap=20)
    _, margins, stated = rs.plots.confidence(found).axes
    drawn = {line.get_label() for line in margins.lines}
    assert drawn == {
        "marginal", "previous token", "single hop", "history, selected", "uniform guess",
    }  # fmt: skip
    named = [text.partition(":")[0] for text in legend_texts(stated)]
    assert named == ["marginal", "single hop", "history, selected"]
