"""Held-out single-hop prediction on cases with known answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from trace_cases import write_run

import routestats as rs
from routestats.counts._plan import pair_layers
from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.stats import hop_accuracy
from routestats.stats._history.hits import history_hits

Experts = npt.NDArray[np.uint8]


def trace(experts: Experts, num_experts: int, *, requests: int = 20, **options: Any) -> rs.Trace:
    """Tokens dealt to `requests` requests of nearly equal length."""
    owner = np.arange(len(experts)) * requests // len(experts)
    ids = [f"r{i}" for i in owner]
    positions = np.concatenate([np.arange(n) for n in np.bincount(owner)]).astype(np.int32)
    options.setdefault("ordered", True)
    return rs.Trace.from_arrays(
        experts, num_experts=num_experts, request_ids=ids, positions=positions, **options
    )


def random_sets(rng: np.random.Generator, tokens: int, layers: int, e: int, k: int) -> Experts:
    return rng.random((tokens, layers, e)).argsort(axis=2)[:, :, :k].astype(np.uint8)


@pytest.mark.parametrize("pairing", ["any", "top1"])
def test_a_permutation_between_layers_is_predicted_always(pairing: str) -> None:
    rng = np.random.default_rng(0)
    first = random_sets(rng, 900, 1, 8, 1)[:, 0]
    permutations = np.stack([rng.permutation(8) for _ in range(5)])
    experts = permutations[:, first[:, 0]].T[:, :, None].astype(np.uint8)
    result = hop_accuracy(
        trace(experts[:600], 8), trace(experts[600:], 8), pairing=pairing, bootstrap=100
    )
    above = np.triu_indices(5, 1)
    for name in ("top1_accuracy", "recall_at_1", "exact_set"):
        assert (result[name].hop.value[above] == 1.0).all()
        assert (result[name].hop.low[above] == 1.0).all()
    assert np.isnan(result.main.hop.value[np.tril_indices(5)]).all()
    assert result.main.marginal_by_distance.value.max() < 0.3
    assert result.main.gain_by_distance.low.min() > 0.6


def test_independent_layers_gain_nothing_over_the_marginal() -> None:
    rng = np.random.default_rng(1)
    skew = np.log(np.arange(8, 0, -1.0))
    noise = rng.gumbel(size=(12_000, 4, 8)) + skew
    experts = (-noise).argsort(axis=2)[:, :, :2].astype(np.uint8)
    result = hop_accuracy(trace(experts[:10_000], 8), trace(experts[10_000:], 8), bootstrap=200)
    for name in ("top1_accuracy", "recall_at_2"):
        gain = result[name].gain_by_distance
        assert (np.abs(gain.value) < 0.01).all()
        assert gain.low[0] <= 0.0 <= gain.high[0]
    # The marginal itself is well above uniform here, so the comparison is not an empty one.
    assert result.main.marginal_by_distance.value[0] > 1.5 * result.main.uniform


def test_a_constant_target_is_no_gain_and_has_no_spread() -> None:
    rng = np.random.default_rng(2)
    experts = random_sets(rng, 400, 3, 4, 2)
    experts[:, 2] = [3, 1]
    result = hop_accuracy(trace(experts[:200], 4), trace(experts[200:], 4), bootstrap=50)
    recall = result["recall_at_2"]
    assert recall.hop.value[0, 2] == recall.marginal.value[2] == 1.0
    assert (recall.gain.value[0, 2], recall.gain.low[0, 2], recall.gain.high[0, 2]) == (0, 0, 0)
    assert result["exact_set"].hop.value[1, 2] == 1.0
    # Both members are certain, so scores tie and the lowest id wins: expert 1, never first.
    assert result.main.hop.value[0, 2] == 0.0


def test_unseen_source_experts_fall_back_to_the_marginal() -> None:
    train = np.zeros((10, 2, 1), dtype=np.uint8)
    train[:, 1, 0] = [2, 2, 2, 2, 2, 2, 1, 1, 1, 3]
    test = np.full((6, 2, 1), 3, dtype=np.uint8)  # source expert 3 was never seen
    test[:, 1, 0] = [2, 2, 2, 1, 3, 0]
    result = hop_accuracy(trace(train, 4, requests=2), trace(test, 4, requests=2), bootstrap=0)
    assert result.main.hop.value[0, 1] == result.main.marginal.value[1] == 0.5
    assert result["recall_at_2"].hop.value[0, 1] == pytest.approx(4 / 6)


def test_uniform_baselines() -> None:
    experts = random_sets(np.random.default_rng(3), 60, 2, 8, 2)
    result = hop_accuracy(trace(experts[:40], 8), trace(experts[40:], 8), bootstrap=0)
    uniform = {measure.name: measure.uniform for measure in result.measures}
    assert uniform == {
        "top1_accuracy": 1 / 8,
        "recall_at_2": 2 / 8,
        "recall_at_4": 4 / 8,
        "exact_set": 1 / 28,
    }


def test_recall_sizes_stop_below_all_experts() -> None:
    experts = random_sets(np.random.default_rng(4), 30, 2, 4, 4)
    result = hop_accuracy(trace(experts[:20], 4), trace(experts[20:], 4), bootstrap=0)
    assert [m.name for m in result.measures] == ["top1_accuracy", "recall_at_4", "exact_set"]
    assert result["recall_at_4"].hop.value[0, 1] == 1.0


def test_means_by_distance_are_means_of_cells() -> None:
    experts = random_sets(np.random.default_rng(5), 300, 5, 8, 2)
    result = hop_accuracy(trace(experts[:200], 8), trace(experts[200:], 8), bootstrap=0)
    for measure in result.measures:
        for k in range(1, 5):
            cells = np.diagonal(measure.hop.value, k)
            assert measure.hop_by_distance.value[k - 1] == pytest.approx(cells.mean())
            gain = (cells - measure.marginal.value[k:]).mean()
            assert measure.gain_by_distance.value[k - 1] == pytest.approx(gain)


def test_intervals_come_from_groups_not_requests() -> None:
    # Four samples of each of five prompts, all alike within a prompt: only five units.
    rng = np.random.default_rng(6)
    prompts = random_sets(rng, 5, 3, 8, 2)
    test = np.repeat(prompts, 40, axis=0)
    groups = {f"r{i}": f"prompt {i // 4}" for i in range(20)}
    train = trace(random_sets(rng, 500, 3, 8, 2), 8)
    by_prompt = hop_accuracy(train, trace(test, 8, groups=groups), bootstrap=400)
    by_request = hop_accuracy(train, trace(test, 8), bootstrap=400)
    assert by_prompt.test_groups == 5
    assert by_request.test_groups == 20
    width = [
        r["recall_at_4"].hop_by_distance.high[0] - r["recall_at_4"].hop_by_distance.low[0]
        for r in (by_prompt, by_request)
    ]
    assert width[0] > 1.5 * width[1]


def test_a_domain_with_one_group_gives_no_interval() -> None:
    experts = random_sets(np.random.default_rng(7), 120, 2, 8, 2)
    domain = {f"r{i}": "code" if i else "maths" for i in range(20)}
    result = hop_accuracy(trace(experts[:60], 8), trace(experts[60:], 8, domain=domain))
    assert result.domains == ("code", "maths") or result.domains == ("maths", "code")
    assert np.isnan(result.main.hop_by_distance.low[0])
    assert "no intervals" in result.summary()
    assert "[" not in result.summary()


def test_the_seed_decides_and_results_become_json() -> None:
    experts = random_sets(np.random.default_rng(8), 200, 3, 8, 2)
    train, test = trace(experts[:100], 8), trace(experts[100:], 8)
    first, again = (hop_accuracy(train, test, bootstrap=50, seed=1).to_dict() for _ in range(2))
    assert first == again
    assert first != hop_accuracy(train, test, bootstrap=50, seed=2).to_dict()
    loaded = json.loads(json.dumps(first, allow_nan=False))
    assert loaded["measures"][0]["hop"]["value"][1][0] is None


def test_training_counts_serve_as_well_as_a_training_trace() -> None:
    experts = random_sets(np.random.default_rng(9), 200, 3, 8, 2)
    train, test = trace(experts[:100], 8), trace(experts[100:], 8)
    counts = rs.count(train, pairing="any")
    names = ("previous_token", "single_hop")
    assert (
        hop_accuracy(counts, test, predictors=names, bootstrap=20).to_dict()
        == hop_accuracy(train, test, predictors=names, bootstrap=20).to_dict()
    )
    with pytest.raises(InvalidValueError, match=r"train\.pairing: expected 'top1', got 'any'"):
        hop_accuracy(counts, test, pairing="top1")


def test_unknown_order_refuses_first_choices_only() -> None:
    experts = random_sets(np.random.default_rng(10), 200, 3, 8, 2)
    known, unknown = trace(experts[:100], 8), trace(experts[100:], 8, ordered=False)
    with pytest.raises(InvalidValueError, match=r"test\.ordered"):
        hop_accuracy(known, unknown)
    with pytest.raises(InvalidValueError, match=r"test\.ordered"):
        hop_accuracy(known, unknown, pairing="top1", top1=False)
    result = hop_accuracy(known, unknown, top1=False, bootstrap=0)
    reference = hop_accuracy(known, trace(experts[100:], 8), bootstrap=0)
    assert result.main.name == "recall_at_2"
    assert np.array_equal(result.main.hop.value, reference["recall_at_2"].hop.value, equal_nan=True)


def test_wrong_arguments() -> None:
    experts = random_sets(np.random.default_rng(11), 40, 2, 8, 2)
    good = trace(experts, 8)
    with pytest.raises(InvalidTypeError, match="test: expected a Trace, got ndarray"):
        hop_accuracy(good, experts)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="pairing: expected one of any, top1, got 'all'"):
        hop_accuracy(good, good, pairing="all")
    with pytest.raises(InvalidValueError, match="confidence"):
        hop_accuracy(good, good, confidence=95)
    with pytest.raises(InvalidValueError, match="context: expected"):
        hop_accuracy(good, good, history_context="any")
    with pytest.raises(InvalidTypeError, match="seed: expected an integer, got 'x'"):
        hop_accuracy(good, good, seed="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="at least 2 layers"):
        hop_accuracy(good, trace(experts[:, :1], 8))
    with pytest.raises(InvalidValueError, match=r"train\.shape"):
        hop_accuracy(trace(experts, 9), good)
    with pytest.raises(InvalidValueError, match="measure: expected one of top1_accuracy"):
        hop_accuracy(good, good, bootstrap=0)["recall"]


def test_summary_has_a_line_per_predictor_and_a_column_per_hop() -> None:
    experts = random_sets(np.random.default_rng(12), 200, 6, 8, 2)
    train, test = trace(experts[:100], 8), trace(experts[100:], 8)
    result = hop_accuracy(train, test, bootstrap=50)
    lines = result.summary().splitlines()
    assert "prediction of later layers (any)" in lines[0]
    assert lines[2].split() == ["top-1", "accuracy", "hop", "1", "hop", "2", "hop", "4"]
    labels = (
        "uniform guess",
        "marginal",
        "previous token",
        "single hop",
        "history, longest",
        "history, selected",
        "hop - marginal",
    )
    for line, label in zip(lines[3:10], labels, strict=True):
        assert line.strip().startswith(label)
        assert line.count("[") == (0 if label == "uniform guess" else 3)
    low, high = (part[3] * 100 for part in result.main.hop_by_distance[1:])
    assert lines[6].rstrip().endswith(f"[{low:.1f},{high:.1f}]")
    assert lines[-1] == "  token_id: not measured, train has rows without a token id"
    assert str(result) == result.summary()


def with_token_ids(seed: int = 13, **options: Any) -> tuple[rs.Trace, rs.Trace]:
    rng = np.random.default_rng(seed)
    experts = random_sets(rng, 200, 4, 8, 2)
    ids = rng.integers(0, 30, 200)
    return (
        trace(experts[:100], 8, token_ids=ids[:100]),
        trace(experts[100:], 8, token_ids=ids[100:], **options),
    )


def test_a_token_id_that_decides_everything_is_found() -> None:
    rng = np.random.default_rng(14)
    paths = random_sets(rng, 40, 5, 8, 2)
    ids = rng.integers(0, 40, 2000)
    train = trace(paths[ids[:1600]], 8, token_ids=ids[:1600])
    test = trace(paths[ids[1600:]], 8, token_ids=ids[1600:])
    result = hop_accuracy(train, test, bootstrap=50)
    for measure in (result["recall_at_2"], result["exact_set"]):
        assert (measure["token_id"].by_hop.value == 1.0).all()
        assert (measure["token_id"].gain_by_hop.low > 0.5).all()
        assert measure["previous_token"].by_hop.value.max() < 0.5
    assert result.fallback_tokens["token_id"] == 0


def test_a_request_that_repeats_itself_is_known_from_the_previous_token() -> None:
    rng = np.random.default_rng(15)
    experts = np.repeat(random_sets(rng, 40, 3, 8, 2), 10, axis=0)  # one path per request
    train, test = trace(experts[:200], 8), trace(experts[200:], 8)
    result = hop_accuracy(train, test, predictors=["previous_token"], bootstrap=0)
    assert result.predictors == ("uniform", "marginal", "previous_token", "single_hop")
    assert result.fallback_tokens == {"previous_token": 20}
    top1, recall = (result[name]["previous_token"] for name in ("top1_accuracy", "recall_at_2"))
    # Nine tokens of ten are certain; the first of each request is the marginal's guess.
    assert (top1.by_hop.value >= 0.9).all()
    assert (recall.by_hop.value >= 0.9).all()
    assert (recall.by_hop.value < 1.0).all()


def test_predictors_compare_at_equal_targets() -> None:
    result = hop_accuracy(*with_token_ids(), bootstrap=30)
    source, target = pair_layers(4)
    for measure in result.measures:
        assert tuple(p.name for p in measure.predictions) == result.predictors
        marginal = measure["marginal"]
        assert (marginal.gain.value[source, target] == 0).all()
        assert np.array_equal(marginal.by_hop.value, measure.marginal_by_distance.value)
        assert measure["single_hop"].matrix is measure.hop
        assert (measure["uniform"].matrix.value[source, target] == measure.uniform).all()
        for each in measure.predictions:
            assert np.isnan(each.matrix.value[target, source]).all()
            difference = each.matrix.value - marginal.matrix.value
            assert each.gain.value[source, target] == pytest.approx(difference[source, target])
            for k in range(1, 4):
                cells = np.diagonal(each.matrix.value, k)
                assert each.by_hop.value[k - 1] == pytest.approx(cells.mean())
            low, high = each.by_hop.low, each.by_hop.high
            assert ((low <= each.by_hop.value + 1e-12) & (each.by_hop.value <= high + 1e-12)).all()
    with pytest.raises(InvalidValueError, match=r"predictor: expected one of uniform.*'history'"):
        result.main["history"]


def test_gains_are_resampled_together_with_the_marginal() -> None:
    # Where the previous token says what the marginal says, the gain has no spread at all.
    experts = np.zeros((200, 3, 1), dtype=np.uint8)
    experts[:, 1:, 0] = np.random.default_rng(16).integers(0, 2, 200)[:, None] * 3
    result = hop_accuracy(
        trace(experts[:100], 8, requests=100), trace(experts[100:], 8, requests=100)
    )
    previous = result.main["previous_token"]
    assert previous.by_hop.high[0] - previous.by_hop.low[0] > 0.1
    assert [float(part[0]) for part in previous.gain_by_hop] == [0.0, 0.0, 0.0]


def test_predictors_that_cannot_be_measured() -> None:
    train, test = with_token_ids()
    unknown = trace(random_sets(np.random.default_rng(17), 100, 4, 8, 2), 8)
    counts = rs.count(train, pairing="any")
    for sides, reason in (
        ((unknown, test), "train has rows without a token id"),
        ((train, unknown), "test has rows without a token id"),
        ((counts, test), "it is fitted on a trace, and train is counts"),
    ):
        result = hop_accuracy(*sides, bootstrap=0)
        history = ("history_longest", "history_selected") if sides[0] is counts else ()
        assert not {"token_id", *history} & set(result.predictors)
        assert result.left_out == dict.fromkeys(("token_id", *history), reason)
        assert reason in result.summary()
        with pytest.raises(InvalidValueError, match=f"'token_id' cannot be measured: {reason}"):
            hop_accuracy(*sides, predictors=["token_id"])
    assert hop_accuracy(train, test, bootstrap=0).left_out == {}
    with pytest.raises(InvalidValueError, match="predictors: expected 'all' or some of uniform"):
        hop_accuracy(train, test, predictors=["token"])
    with pytest.raises(InvalidTypeError, match="predictors: expected names, got 3"):
        hop_accuracy(train, test, predictors=[3])  # type: ignore[list-item]
    with pytest.raises(InvalidTypeError, match="predictors: expected 'all' or names, got 3"):
        hop_accuracy(train, test, predictors=3)  # type: ignore[arg-type]
    one = hop_accuracy(train, test, predictors="token_id", bootstrap=0)
    assert one.predictors == ("uniform", "marginal", "token_id", "single_hop")


def test_history_is_that_of_the_history_predictor() -> None:
    train, test = with_token_ids()
    for pairing, given, context in (
        ("any", None, "set"),
        ("any", "top1", "top1"),
        ("top1", None, "top1"),
    ):
        result = hop_accuracy(
            train, test, pairing, predictors="history_selected", history_context=given, bootstrap=20
        )
        assert result.history_context == context
        # The longest context overfits: it comes along, and never alone.
        assert result.predictors[-2:] == ("history_longest", "history_selected")
        names = [measure.name for measure in result.measures]
        history = history_hits(train, test, context=context, names=names, seed=0)
        source, target = pair_layers(4)
        for index, measure in enumerate(result.measures):
            most = 100 * (2 if measure.name.startswith("recall") else 1)
            for kind, hits in (("longest", history.longest), ("selected", history.selected)):
                got = measure[f"history_{kind}"].matrix.value[source, target]
                assert got == pytest.approx(hits[index].sum(axis=0) / most)
        assert result.history_order is not None
        assert result.history_support is not None
        assert (result.history_order[source, target] == history.selected_order).all()
        assert (result.history_support[source, target] == history.selected_support).all()
        assert (result.history_order[target, source] == 0).all()


def test_history_beats_single_hop_where_two_layers_decide() -> None:
    # The third layer is the sum of the first two: neither alone says anything about it.
    rng = np.random.default_rng(19)
    pair = rng.integers(0, 4, (3000, 2))
    experts = np.stack([pair[:, 0], pair[:, 1], pair.sum(axis=1) % 4], axis=1)[:, :, None]
    experts = experts.astype(np.uint8)
    result = hop_accuracy(trace(experts[:2000], 4), trace(experts[2000:], 4), bootstrap=50)
    for name in ("history_longest", "history_selected"):
        assert result.main[name].matrix.value[1, 2] == 1.0
        assert result.main[name].gain.low[1, 2] > 0.6
    assert result.main.hop.value[1, 2] < 0.35
    assert result.history_order is not None
    assert result.history_order[1, 2] >= 2


def test_history_needs_two_prompts_to_choose_its_order() -> None:
    experts = random_sets(np.random.default_rng(20), 100, 3, 8, 2)
    one, test = trace(experts[:50], 8, requests=1), trace(experts[50:], 8)
    result = hop_accuracy(one, test, bootstrap=0)
    assert set(result.left_out) == {"token_id", "history_longest", "history_selected"}
    assert result.history_order is None
    with pytest.raises(InvalidValueError, match="'history_longest' cannot be measured: its order"):
        hop_accuracy(one, test, predictors="history_longest")


def test_an_expert_twice_in_one_layer_is_refused() -> None:
    experts = random_sets(np.random.default_rng(18), 100, 3, 8, 2)
    good = trace(experts, 8)
    experts[70, 1] = 5
    message = r"test\.experts\[70, 1\]: expected distinct experts, got 5 in slots 0 and 1"
    with pytest.raises(InvalidValueError, match=message):
        hop_accuracy(good, trace(experts, 8), bootstrap=0)


def test_unknown_order_leaves_all_predictors_of_sets() -> None:
    train, test = with_token_ids()
    result = hop_accuracy(train, test, bootstrap=0)
    unordered = [
        rs.Trace.from_arrays(
            side.experts[:, :, ::-1],
            num_experts=8,
            request_ids=side.rows["request_id"].to_pylist(),
            positions=side.rows["position"].to_numpy(),
            token_ids=side.rows["token_id"].to_numpy(),
        )
        for side in (train, test)
    ]
    sets = hop_accuracy(unordered[0], unordered[1], top1=False, bootstrap=0)
    assert [m.name for m in sets.measures] == [m.name for m in result.measures[1:]]
    for measure in sets.measures:
        for each in measure.predictions:
            if each.name == "history_selected":
                continue  # selected by the first measure, which here is another
            same = result[measure.name][each.name]
            assert np.array_equal(each.by_hop.value, same.by_hop.value)


def test_the_table_holds_every_value_once() -> None:
    result = hop_accuracy(*with_token_ids(), bootstrap=30)
    table = result.to_table()
    cells = len(result.measures) * len(result.predictors)
    assert table.num_rows == cells * (6 + 3)
    rows = {
        (r["measure"], r["predictor"], r["source"], r["target"], r["hop"]): r
        for r in table.to_pylist()
    }
    assert len(rows) == table.num_rows
    token_id = result["exact_set"]["token_id"]
    pair = rows["exact_set", "token_id", 1, 3, 2]
    assert pair["kind"] == "pair"
    assert pair["value"] == token_id.matrix.value[1, 3]
    assert pair["gain_high"] == token_id.gain.high[1, 3]
    mean = rows["exact_set", "token_id", None, None, 2]
    assert mean["kind"] == "hop"
    assert (mean["low"], mean["gain"]) == (token_id.by_hop.low[1], token_id.gain_by_hop.value[1])
    without = hop_accuracy(*with_token_ids(), bootstrap=0).to_table()
    assert without["low"].null_count == without.num_rows
    assert without["value"].null_count == 0


def test_train_is_parted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = with_token_ids()
    seen = []
    split = rs.Trace.split

    def counted(trace: rs.Trace, test: float, seed: int) -> tuple[rs.Trace, rs.Trace]:
        seen.append(trace)
        return split(trace, test, seed)

    monkeypatch.setattr(rs.Trace, "split", counted)
    result = hop_accuracy(train, test, bootstrap=0)
    assert "history_selected" in result.predictors
    assert seen == [train]


def test_a_measure_has_its_size_as_a_field() -> None:
    result = hop_accuracy(*with_token_ids(), bootstrap=0)
    sizes = {measure.name: measure.size for measure in result.measures}
    assert sizes["top1_accuracy"] is None
    assert sizes["exact_set"] is None
    recalls = {name: size for name, size in sizes.items() if size is not None}
    assert recalls
    assert list(recalls) == [f"recall_at_{size}" for size in recalls.values()]


@pytest.mark.parametrize(("held", "passes"), [(True, 1), (False, 2)])
def test_experts_are_decoded_once_and_weights_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool, passes: int
) -> None:
    """Of a run too large to be kept, the files are read once for each side."""
    write_run(tmp_path / "run", requests=12, rows=20)
    if not held:
        monkeypatch.setattr("routestats.trace._sources.HELD_BYTES", 0)
    decoded: Counter[str] = Counter()

    def note(part: Any) -> Any:
        decoded.update(dict.fromkeys(part.schema.names, part.num_rows))
        return part

    file = pq.ParquetFile
    for name in ("read", "read_row_group", "read_row_groups"):
        method = getattr(file, name)
        monkeypatch.setattr(file, name, lambda *a, method=method, **k: note(method(*a, **k)))
    batches = file.iter_batches
    monkeypatch.setattr(file, "iter_batches", lambda *a, **k: map(note, batches(*a, **k)))
    trace = rs.Trace.open(tmp_path / "run")
    result = hop_accuracy(*trace.split(test=0.4, seed=0))
    assert result.predictors[-1] == "history_selected"
    assert decoded["experts"] == passes * 240
    assert decoded["weights"] == 0
    assert decoded["position"] <= passes * 240
