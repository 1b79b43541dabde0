"""What later gates would have chosen: on disk, in a trace, and as a statistic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from lookahead_cases import LAYOUT, PAIRS, SHAPE, Ids, random_ids, write_run

import routestats as rs
from routestats.counts._plan import pair_layers
from routestats.engines._assembler import RowAssembler
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.capture import lookahead_hops
from routestats.errors import InvalidTypeError, InvalidValueError, TraceError
from routestats.schema import LookaheadLayout, RoutingBatch
from routestats.stats import lookahead, lookahead_hits
from routestats.trace import join


@pytest.fixture
def drawn() -> tuple[Ids, Ids]:
    rng = np.random.default_rng(0)
    return random_ids(rng, 40, 5, best=2), random_ids(rng, 40, 2, len(PAIRS), best=4)


def test_pairs_stand_source_by_source() -> None:
    assert PAIRS == ((0, 1), (0, 3), (1, 2), (1, 4), (2, 3), (3, 4))
    assert LAYOUT.width(5) == 2 * 6 * 4
    assert LookaheadLayout.from_dict(json.loads(json.dumps(LAYOUT.to_dict()))) == LAYOUT
    assert LookaheadLayout.from_dict(None) is None


def test_what_is_written_is_read_with_its_row(tmp_path: Path, drawn: tuple[Ids, Ids]) -> None:
    experts, ahead = drawn
    write_run(tmp_path, experts, ahead)
    trace = rs.Trace.open(tmp_path)
    assert trace.lookahead == LAYOUT
    batches = list(trace.iter_lookahead(rows=3))
    np.testing.assert_array_equal(np.concatenate([b.lookahead for b in batches]), ahead)
    np.testing.assert_array_equal(np.concatenate([b.experts for b in batches]), experts)
    kept = trace.filter(requests=["d1", "d3"])
    found = np.concatenate([b.lookahead for b in kept.iter_lookahead()])
    np.testing.assert_array_equal(found, np.concatenate([ahead[10:20], ahead[30:40]]))
    result = rs.verify(trace)
    assert result.ok, result.render()
    assert "480 predictions of distinct experts" in result.render()


def test_a_file_alone_knows_its_layout(tmp_path: Path, drawn: tuple[Ids, Ids]) -> None:
    write_run(tmp_path, *drawn)
    file = sorted(tmp_path.rglob("tokens/*/part-*.parquet"))[0]
    trace = rs.Trace.open(file)
    assert trace.lookahead == LAYOUT
    ids = next(trace.iter_lookahead()).lookahead
    assert ids is not None
    assert ids.shape[1:] == (2, 6, 4)


def test_nobody_reads_it_who_does_not_ask(tmp_path: Path, drawn: tuple[Ids, Ids]) -> None:
    write_run(tmp_path, *drawn)
    assert all("lookahead" not in b.columns() for b in rs.Trace.open(tmp_path).iter_batches())
    for file in tmp_path.rglob("tokens/*/part-*.parquet"):  # the column gone, all else still reads
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["lookahead"]), file)
    trace = rs.Trace.open(tmp_path)
    np.testing.assert_array_equal(trace.experts, drawn[0])
    with pytest.raises(TraceError, match="expected a column 'lookahead'"):
        list(trace.iter_lookahead())


def test_verify_finds_what_no_gate_would_choose(tmp_path: Path, drawn: tuple[Ids, Ids]) -> None:
    experts, ahead = drawn
    for name, value in (("twice", ahead[17, 1, 2, 1]), ("beyond", 8)):
        wrong = ahead.copy()
        wrong[17, 1, 2, 0] = value
        write_run(tmp_path / name, experts, wrong)
        result = rs.verify(tmp_path / name)
        assert not result.ok
        assert "FAIL  lookahead whole       first: lookahead[17, 1, 2]" in result.render()


def test_a_run_has_it_throughout_or_not_at_all(tmp_path: Path, drawn: tuple[Ids, Ids]) -> None:
    experts, ahead = drawn
    write_run(tmp_path / "with", experts, ahead)
    with pytest.raises(TraceError, match="is a run with lookahead"):
        write_run(tmp_path / "with", experts, None)
    with rs.TraceWriter(tmp_path / "none", SHAPE, weights=False, model="m", engine={}) as writer:
        batch = RoutingBatch(
            "d",
            ("a",),
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            np.zeros(1, np.uint8),
            experts[:1],
            None,
            ahead[:1],
        )
        with pytest.raises(InvalidValueError, match="lookahead: expected none in this run"):
            writer.write(batch)
    with pytest.raises(InvalidValueError, match="the trace has none; a finished run cannot"):
        rs.Trace.open(tmp_path / "none").iter_lookahead()
    trace = rs.Trace.open(tmp_path / "with").filter(layers=slice(0, 3))
    with pytest.raises(InvalidValueError, match="expected a trace of all 5 layers, got one filter"):
        trace.iter_lookahead()


def test_joined_traces_keep_it(tmp_path: Path, drawn: tuple[Ids, Ids]) -> None:
    experts, ahead = drawn
    write_run(tmp_path / "a", experts[:20], ahead[:20])
    write_run(tmp_path / "b", experts[20:], ahead[20:])
    both = join({name: rs.Trace.open(tmp_path / name) for name in "ab"})
    found = np.concatenate([b.lookahead for b in both.iter_lookahead()])
    np.testing.assert_array_equal(found, ahead)
    write_run(tmp_path / "c", experts, None)
    mixed = join({name: rs.Trace.open(tmp_path / name) for name in "ac"})
    assert mixed.lookahead is None
    assert len(mixed.experts) == 60


def test_rows_that_are_not_real_take_it_with_them() -> None:
    rng = np.random.default_rng(1)
    assembler = RowAssembler()
    ids, seen = random_ids(rng, 10, 5, best=2), random_ids(rng, 10, 2, 6, best=4)
    tokens = np.arange(4, dtype=np.int32)

    def step(start: int, rows: int, at: int, new: bool = False) -> None:
        one = StepRows(["a"], [rows], new=[NewRequest("a", "d", tokens)] if new else [])
        columns: dict[str, Any] = {
            "positions": np.arange(start, start + rows, dtype=np.int32),
            "token_ids": np.zeros(rows, np.int32),
            "experts": ids[at : at + rows],
            "lookahead": seen[at : at + rows],
        }
        assembler.add(one, columns)

    step(0, 4, 0, new=True)
    step(2, 4, 4)  # two rows run twice
    (batch,) = assembler.take_batches()
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(batch.lookahead, seen[[0, 1, 2, 3, 6, 7]])


# --- the statistic ---


def test_hits_equal_a_naive_count(tmp_path: Path, drawn: tuple[Ids, Ids]) -> None:
    experts, ahead = drawn
    write_run(tmp_path, experts, ahead)
    sums = lookahead_hits(rs.Trace.open(tmp_path))
    assert sums.tally.names == ("top1_accuracy", "recall_at_2", "recall_at_4", "exact_set")
    source, target = pair_layers(5)
    columns = {pair: i for i, pair in enumerate(zip(source.tolist(), target.tolist(), strict=True))}
    assert sums.captured.tolist() == [pair in PAIRS for pair in columns]
    for v, name in enumerate(("lookahead", "lookahead_renormed")):
        expected = np.zeros((4, 4, 10), np.int64)
        for t in range(40):
            for p, (s, d) in enumerate(PAIRS):
                guess, truth = ahead[t, v, p].tolist(), experts[t, d].tolist()
                at = columns[s, d]
                expected[0, t // 10, at] += guess[0] == truth[0]
                expected[1, t // 10, at] += len(set(guess[:2]) & set(truth))
                expected[2, t // 10, at] += len(set(guess) & set(truth))
                expected[3, t // 10, at] += set(guess[:2]) == set(truth)
        np.testing.assert_array_equal(sums.hits[name], expected)


def test_a_gate_that_sees_everything_is_always_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    full = random_ids(rng, 400, 5, best=8)
    experts = full[..., :2]
    ahead = random_ids(rng, 400, 2, len(PAIRS), best=4)
    ahead[:, 0] = full[:, [d for _, d in PAIRS], :4]
    write_run(tmp_path, experts, ahead, requests=20)
    found = lookahead(rs.Trace.open(tmp_path), bootstrap=200)
    assert (found.hops, found.groups, found.tokens) == ((1, 3), 20, 400)
    for measure in found.measures:
        sure, drawn = measure["lookahead"], measure["lookahead_renormed"]
        assert sure.by_hop.value[[0, 2]].tolist() == [1.0, 1.0]
        assert np.isnan(sure.by_hop.value[[1, 3]]).all()
        assert np.isnan(sure.matrix.value[0, 2])
        assert sure.matrix.value[1, 4] == 1.0
        assert drawn.by_hop.low[0] <= measure.uniform <= drawn.by_hop.high[0] + 0.03
        assert (sure.gain_by_hop.low[[0, 2]] > 0.3).all()
    text = found.summary()
    for word in ("hop 1", "hop 3", "uniform guess", "marginal (same tokens)", "renormed"):
        assert word in text
    table = found.to_table().to_pylist()
    assert {row["hop"] for row in table} == {1, 3}
    assert len(table) == 4 * 2 * (len(PAIRS) + 2)
    json.loads(found.to_json())


def test_the_marginal_is_the_best_constant_guess(tmp_path: Path) -> None:
    experts = np.tile(np.array([3, 1], np.uint8), (40, 5, 1))
    ahead = random_ids(np.random.default_rng(3), 40, 2, len(PAIRS), best=4)
    write_run(tmp_path, experts, ahead)
    recall = lookahead(rs.Trace.open(tmp_path), bootstrap=0).recall
    assert recall.marginal.value[1:].tolist() == [1.0] * 4
    assert np.isnan(recall.marginal.value[0])
    assert recall.marginal_by_hop.value[[0, 2]].tolist() == [1.0, 1.0]


def test_hops() -> None:
    assert lookahead_hops(0) == ()
    assert lookahead_hops(3) == (1, 2, 3)
    assert lookahead_hops([8, 2, 8]) == (2, 8)
    with pytest.raises(InvalidValueError, match="hops of at least 1"):
        lookahead_hops([0, 2])
    with pytest.raises(InvalidValueError, match="hops of at least 1"):
        lookahead_hops(-1)
    with pytest.raises(InvalidTypeError, match="an integer or integers"):
        lookahead_hops([1.5])  # type: ignore[list-item]


# --- routers ---


@pytest.mark.filterwarnings("default")  # importing a router imports the compiler
def test_routers_that_choose_otherwise_are_asked() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

    from routestats.engines.vllm.lookahead import asked, chooses_by_logits
    from routestats.engines.vllm.routers import MoELayer

    plain = CPURouter(2, 8)
    bias = torch.tensor([9.0, 0, 0, 0, 0, 0, 0, 9.0])
    biased = CPURouter(
        2,
        8,
        use_grouped_topk=True,
        num_expert_group=2,
        topk_group=2,
        scoring_func="sigmoid",
        e_score_correction_bias=bias,
    )
    assert chooses_by_logits(plain)
    assert not chooses_by_logits(biased)
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    found = asked(MoELayer(0, plain, 8, 2), None, logits)
    assert torch.equal(found.long(), logits.topk(2, dim=-1).indices)
    found = asked(MoELayer(0, biased, 8, 2), None, logits)
    first = torch.where(logits[:, 0] >= logits[:, 7], 0, 7)  # the bias chooses, the weight orders
    assert torch.equal(found[:, 0].long(), first)
    assert (found.sum(dim=1) == 7).all()
    tie = asked(MoELayer(0, plain, 8, 2), None, torch.zeros(1, 8))
    assert tie[0, 0] < tie[0, 1]


def test_what_cannot_look_ahead_fails_the_capture_and_not_the_forward_pass() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("vllm")
    from routestats.engines.vllm.lookahead import Lookahead, layout_of
    from routestats.engines.vllm.routers import MoELayer
    from routestats.engines.vllm.stages import LayerModules
    from routestats.errors import CaptureError
    from routestats.shape import RouteShape

    class Router:
        pass

    shape = RouteShape(2, 8, 2)
    places = []
    for i in range(2):
        block, gate = torch.nn.Identity(), torch.nn.Linear(4, 8)
        layer = MoELayer(i, Router(), 8, 2, f"layers.{i}")
        places.append(LayerModules(layer, None, block, None, gate, None))
    ahead = Lookahead(places, layout_of(places, (1,), shape), shape, 16, torch.device("cpu"))
    ahead.bind()
    for width, message in ((4, None), (5, "cannot be multiplied")):
        ahead.open()
        x = torch.randn(3, width)
        with torch.no_grad():
            assert places[0].block(x) is x
        if message is None:
            assert ahead.close(3)().shape == (3, 1, 1, 4)
        else:
            with pytest.raises(CaptureError, match=message):
                ahead.close(3)
    ahead.release()


def test_a_compiled_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from vllm.engine.arg_utils import EngineArgs

    from routestats.engines.vllm.description import is_eager, require_eager
    from routestats.errors import CaptureError
    from routestats.models import tiny_model

    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    why = "whose gates can be called by themselves"
    made = {
        eager: EngineArgs(
            model=str(tiny_model()), max_model_len=64, enforce_eager=eager
        ).create_engine_config()
        for eager in (True, False)
    }
    assert [is_eager(config) for config in made.values()] == [True, False]
    require_eager(made[True], "lookahead", why)
    with pytest.raises(CaptureError, match=r"lookahead needs an eager engine, .*enforce_eager"):
        require_eager(made[False], "lookahead", why)
