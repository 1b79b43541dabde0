"""Timings of steps: files, clocks, and what is read from them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from timing_cases import BASE_NS, LAYERS, MOE_NS, write

import routestats as rs
from routestats.errors import InvalidTypeError, InvalidValueError, TraceError
from routestats.stats._timing.groups import median_interval
from routestats.stats._timing.result import PARTS
from routestats.trace.timings import (
    STAGES,
    StepFigures,
    TimingInfo,
    read_timings,
    timing_sources,
    write_overhead,
    write_timings,
)


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path, steps=5)
    write(tmp_path, steps=3, prefill_rows=4, warm_up=True)
    times = read_timings(tmp_path)
    assert times.phase.tolist() == ["decode"] * 5 + ["prefill"] * 3
    assert times.warm_up.tolist() == [False] * 5 + [True] * 3
    assert times.stage_ns["experts"].shape == (8, LAYERS)
    assert times.stage_ns["experts"][2].tolist() == [100_000, 200_000, 300_000]
    assert timing_sources(tmp_path) == ("hooks",)
    names = sorted(path.name for path in (tmp_path / "timing").iterdir())
    assert names == ["hooks-000000.parquet", "hooks-000001.parquet"]


def test_phases() -> None:
    assert StepFigures("d", 4, 0, 1, False).phase == "decode"
    assert StepFigures("d", 4, 4, 1, False).phase == "prefill"
    assert StepFigures("d", 4, 2, 1, False).phase == "mixed"


def test_parts_and_shares_are_those_of_the_stages(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, steps=9, warm_up=True, stage_scale={"experts": 50.0})  # must not count
    found = rs.stats.timing(tmp_path)
    (group,) = found.groups
    assert (group.phase, group.rows_low, group.steps) == ("decode", 4, 21)
    assert (found.steps, found.warm_up_steps) == (21, 9)
    expected = {"host": 30, "kernel": 8, "rest": 220, "overhead": 50, "experts": 100}
    for part, ns in expected.items():
        np.testing.assert_allclose(group.part_ns[part].value, ns * 1000 * np.arange(1, 4))
        if part != "rest":
            np.testing.assert_allclose(group.share_of_moe[part].value, ns / 180, rtol=1e-4)
        assert group.total_share_of_layer[part].value[0] == pytest.approx(ns / 400, rel=1e-4)
    assert sum(group.total_share_of_layer[part].value[0] for part in PARTS) == pytest.approx(1.0)
    assert found.unexplained is None
    assert group.unexplained is None
    assert found.outside_stages == pytest.approx(30 / 180, rel=1e-4)
    low, high = group.part_ns["moe"].low, group.part_ns["moe"].high
    assert (low < group.part_ns["moe"].value).all()
    assert (high > group.part_ns["moe"].value).all()
    assert found.to_table().num_rows == LAYERS * (len(PARTS) + 4)
    assert json.loads(found.to_json())["groups"][0]["steps"] == 21


def write_outline(run: Path, moe_scale: float, **options: Any) -> None:
    """Steps whose MoE blocks were clocked from outside alone."""
    inside = dict.fromkeys(STAGES, 0.0) | {"block": moe_scale * MOE_NS / BASE_NS["block"]}
    write(run, source="outline", stage_scale=inside | {"rest": 1.0}, **options)


def test_the_parts_are_held_against_blocks_without_clocks_inside(tmp_path: Path) -> None:
    write(tmp_path, rows=4, call_ns=400.0)
    write(tmp_path, rows=300, prefill_rows=300)
    write_outline(tmp_path, 1.25, rows=4)
    write_outline(tmp_path, 0.8, rows=300, prefill_rows=300)
    write_outline(tmp_path, 9.0, rows=4, warm_up=True)  # must not count
    write_outline(tmp_path, 9.0, rows=5)  # other work
    found = rs.stats.timing(tmp_path)
    prefill, decode = found.groups
    assert (decode.pairs, prefill.pairs) == (21, 21)
    assert decode.unexplained is not None
    assert prefill.unexplained is not None
    assert decode.unexplained.value[0] == pytest.approx(0.2, rel=1e-3)
    assert prefill.unexplained.value[0] == pytest.approx(-0.25, rel=1e-3)
    assert found.unexplained == pytest.approx(1 - 2 / 2.05, rel=1e-3)
    assert found.call_ns == 400.0
    text = found.summary()
    assert "2.4% unexplained; 400 ns have been taken off" in text
    with pytest.raises(InvalidValueError, match="source: expected one of hooks, profiler"):
        rs.stats.timing(tmp_path, source="outline")


def test_steps_are_grouped_by_phase_and_size(tmp_path: Path) -> None:
    write(tmp_path, rows=1)
    write(tmp_path, rows=5)
    write(tmp_path, rows=7)
    write(tmp_path, rows=300, prefill_rows=300)
    write(tmp_path, steps=4, rows=2000, prefill_rows=2000)  # too few
    found = rs.stats.timing(tmp_path)
    assert [group.label for group in found.groups] == [
        "prefill, 300 tokens",
        "decode, 1 token",
        "decode, 5-7 tokens",
    ]
    assert found.group("decode").steps == 42
    assert found.group("decode", rows=1).steps == 21
    with pytest.raises(InvalidValueError, match="expected one of prefill, 300 tokens; decode, 1"):
        found.group("decode", rows=100)


def test_the_profiler_agrees_or_not(tmp_path: Path) -> None:
    write(tmp_path)
    assert rs.stats.timing(tmp_path).agrees is None
    write(tmp_path, source="profiler", stage_scale={"experts": 1.1})
    found = rs.stats.timing(tmp_path)
    assert found.agrees
    assert "agrees" in found.summary()
    worst = max(found.agreement, key=lambda part: part.difference)
    assert round(worst.difference, 3) == 0.053  # of what is left to the others: 1 - 180 / 190
    assert rs.stats.timing(tmp_path, source="profiler").source == "profiler"
    write(tmp_path / "other")
    write(tmp_path / "other", source="profiler", stage_scale={"experts": 1.6})
    found = rs.stats.timing(tmp_path / "other")
    assert not found.agrees
    assert "DISAGREES" in found.summary()


def test_the_cost_of_the_clocks_is_paired(tmp_path: Path) -> None:
    write(tmp_path)
    assert rs.stats.timing(tmp_path).clock_cost is None
    pairs = [[1.02 * x, x] for x in np.linspace(1, 5, 11)]
    write_overhead(tmp_path, {"pairs_s": pairs})
    found = rs.stats.timing(tmp_path)
    assert found.clock_pairs == 11
    assert found.clock_cost is not None
    assert float(found.clock_cost.value[0]) == pytest.approx(1.02)
    assert "the clocks themselves: +2.0%" in found.summary()


def test_the_interval_of_a_median_covers_it() -> None:
    rng = np.random.default_rng(0)
    for steps in (6, 25, 200):
        draws = rng.lognormal(size=(steps, 4000))
        interval = median_interval(draws, 0.95)
        covered = ((interval.low <= 1.0) & (interval.high >= 1.0)).mean()
        assert 0.945 <= covered <= 0.985
    assert np.isnan(median_interval(rng.random((5, 1)), 0.95).low).all()


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such folder"):
        rs.stats.timing(tmp_path / "none")
    with pytest.raises(TraceError, match="a finished run cannot be timed afterwards"):
        rs.stats.timing(tmp_path)
    write(tmp_path, steps=3)
    with pytest.raises(TraceError, match="has timings of 3 steps; expected at least 5"):
        rs.stats.timing(tmp_path)
    with pytest.raises(TraceError, match="no timings by profiler"):
        rs.stats.timing(tmp_path, source="profiler")
    with pytest.raises(InvalidValueError, match="source: expected one of hooks, profiler"):
        rs.stats.timing(tmp_path, source="nvprof")
    with pytest.raises(InvalidTypeError, match="run: expected a path or a Trace, got int"):
        rs.stats.timing(3)  # type: ignore[arg-type]
    experts = np.zeros((4, 2, 1), np.uint8)
    with pytest.raises(InvalidValueError, match="expected a run on disk"):
        rs.stats.timing(rs.Trace.from_arrays(experts, num_experts=2))
    with pytest.raises(InvalidTypeError, match=r"model: expected a vllm\.LLM, got object"):
        rs.time_stages(object(), tmp_path).__enter__()
    other = TimingInfo("hooks", (0, 1, 2), "clock", "another model", {"device": "cpu"})
    write_timings(
        tmp_path,
        other,
        [StepFigures("d", 1, 0, 1, False)],
        np.ones(1, np.int64),
        np.ones((1, LAYERS, len(STAGES)), np.int64),
    )
    with pytest.raises(TraceError, match=r"hooks-000001.parquet: differs from hooks-000000"):
        read_timings(tmp_path)


def test_the_claim_is_compared_and_not_confirmed(tmp_path: Path) -> None:
    from routestats.report import claim_check

    write(tmp_path)
    text = "\n".join(claim_check(rs.stats.timing(tmp_path)))
    assert "47-59 %" in text
    assert "59.2 %" in text
    assert "a comparison, not a validation" in text
    assert "27.8%" in text  # 50 of 180


def layer_of(module: object) -> Any:
    from routestats.engines.vllm.routers import MoELayer

    return MoELayer(0, None, 8, 2, "model.layers.0.moe.experts", module)


def test_a_kernel_in_one_piece_is_refused() -> None:
    pytest.importorskip("vllm")
    from routestats.engines.vllm.stages import kernel_of
    from routestats.errors import CaptureError

    method = SimpleNamespace(is_monolithic=True)
    module = SimpleNamespace(routed_experts=SimpleNamespace(quant_method=method))
    with pytest.raises(CaptureError, match=r"layers\.0\.moe\.experts.*stages cannot be told apart"):
        kernel_of(layer_of(module))


def test_layers_without_gate_or_decoder_are_named() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("vllm")
    import torch

    from routestats.engines.vllm.stages import modules_of
    from routestats.errors import CaptureError

    class Model(torch.nn.Module):
        def __init__(self, block: torch.nn.Module) -> None:
            super().__init__()
            self.model = torch.nn.Module()
            decoder = torch.nn.Module()
            decoder.moe = block
            self.model.layers = torch.nn.ModuleList([decoder])

    block = torch.nn.Module()
    block.experts = torch.nn.Module()
    with pytest.raises(CaptureError, match="Module has no gate that can be found"):
        modules_of(Model(block), [layer_of(block.experts)])
    block.gate = torch.nn.Linear(2, 2)
    model = Model(block)
    (found,) = modules_of(model, [layer_of(block.experts)])
    assert found.gate is block.gate
    assert found.decoder is model.model.layers[0]
    assert found.norm is None


def test_wrapping_leaves_nothing_behind() -> None:
    pytest.importorskip("vllm")
    from routestats.engines.vllm.stages import Wrapping

    class Thing:
        def run(self) -> int:
            return 1

    thing, own = Thing(), Thing()
    own.run = lambda: 5  # type: ignore[method-assign]
    before = own.run
    wrapping = Wrapping()
    for target in (thing, own, thing):
        wrapping.wrap(target, "run", lambda inner: lambda: inner() + 10)
    assert (thing.run(), own.run()) == (21, 15)
    wrapping.release()
    assert (thing.run(), own.run) == (1, before)
    assert "run" not in vars(thing)

    class Heir(Thing):
        pass

    function = Thing.run
    for owner in (Heir, Thing, Heir):
        wrapping.wrap_class(owner, "run", lambda inner: lambda self: inner(self) + 100)
    assert (Thing().run(), Heir().run()) == (101, 201)
    wrapping.release()
    assert Thing.run is Heir.run is function
    assert "run" not in vars(Heir)


def test_a_step_that_passes_by_a_stage_is_refused() -> None:
    pytest.importorskip("vllm")
    from routestats.engines.vllm.step_timer import _check_all_fired
    from routestats.errors import CaptureError

    calls = np.ones((5, 2, len(STAGES)), np.int64)
    calls[:, :, STAGES.index("combine")] = 0  # not clocked
    _check_all_fired(calls, (4, 6), set(STAGES) - {"combine"})
    calls[3, 1, STAGES.index("experts")] = 0  # a step that replays a graph calls nothing
    with pytest.raises(CaptureError, match="step 3 of 5, layer 6: its stage experts did not run"):
        _check_all_fired(calls, (4, 6), set(STAGES) - {"combine"})


def test_clocks_are_those_of_the_device(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from routestats.engines.timing import TimingRequest
    from routestats.engines.vllm.clocks import EventClock, HostClock
    from routestats.engines.vllm.step_timer import _clock_for
    from routestats.errors import CaptureError

    request = TimingRequest(str(tmp_path), "d", "hooks", 0, 1)
    assert isinstance(_clock_for(request, 2, "cpu"), HostClock)
    assert isinstance(_clock_for(request, 2, "cuda"), EventClock)
    with pytest.raises(CaptureError, match="timing: expected an engine on cpu or cuda, got xpu"):
        _clock_for(request, 2, "xpu")


def test_what_a_time_is_stands_in_files_result_figure_and_report(tmp_path: Path) -> None:
    measure = "between events on the GPU's stream, launch gaps included"
    (tmp_path / "run.json").write_text('{"format_version": 2, "shape": {}}')
    write(tmp_path, measure=measure)
    write(tmp_path, source="profiler", measure="kernels")
    noted = json.loads((tmp_path / "run.json").read_text())
    assert noted["shape"] == {}
    assert noted["timing"] == {
        "hooks": {"clock": "clock", "measure": measure},
        "profiler": {"clock": "clock", "measure": "kernels"},
    }
    assert not list(tmp_path.glob("*lock*"))
    found = rs.stats.timing(tmp_path)
    assert found.measure == measure
    assert measure in repr(found)
    assert f"times {measure} (clock)" in found.summary()
    assert found.to_dict()["measure"] == measure
    pytest.importorskip("matplotlib")
    from routestats.report.sections.timing import TimingPart

    drawn = rs.plots.timing(found)
    assert any(measure in text.get_text().replace("\n", " ") for text in drawn.texts)
    part = TimingPart()
    analysis: Any = SimpleNamespace(timing=found)
    (blocks,) = part.sections(analysis).values()
    assert measure in str(blocks[0])


def test_timings_of_before_measures_were_named_still_open(tmp_path: Path) -> None:
    write(tmp_path)
    assert "times of a measure that is not known (clock)" in rs.stats.timing(tmp_path).summary()
