"""Kernels that route by themselves: what is recorded is what their router would have given them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated_device import emulated_device

from routestats.errors import CaptureError
from routestats.shape import RouteShape

pytest.importorskip("torch")
pytest.importorskip("vllm")

import torch
from monolithic_cases import Choose, Layers, llama4_choice, make_monolithic, softmax_choice
from vllm.lora.layers.fused_moe import FusedMoEWithLoRA
from vllm.model_executor.layers.fused_moe.routed_experts_capturer import RoutedExpertsSink
from vllm.model_executor.layers.fused_moe.router.fused_topk_router import FusedTopKRouter
from vllm.model_executor.layers.fused_moe.router.grouped_topk_router import GroupedTopKRouter
from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import (
    RoutingSimulatorRouter,
)

from routestats.engines._forward_fault import ForwardFault
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.engines.choice_check import Scores
from routestats.engines.recorder import Recorder
from routestats.engines.recorder_options import RecorderOptions
from routestats.engines.vllm.monolithic import selection_of, settings_of
from routestats.engines.vllm.routers import RouterBinding, find_layers
from routestats.engines.vllm.taps import DeviceTap, HostTap, StagedTap

pytestmark = pytest.mark.filterwarnings("default")
ROWS = 5


@dataclass
class Notes:
    """A tap that keeps what it is told."""

    fault: ForwardFault = field(default_factory=ForwardFault)
    checked_layers: int = 0
    seen: list[tuple[int, Any, Any]] = field(default_factory=list)
    checks: list[tuple[int, Any, Any, Scores]] = field(default_factory=list)

    def observe(self, layer: int, ids: Any, weights: Any) -> None:
        self.seen.append((layer, ids.clone(), weights.clone()))

    def check(self, layer: int, ids: Any, theirs: Any, scores: Scores) -> None:
        self.checks.append((layer, ids.clone(), theirs.clone(), scores))


def bind(model: Layers, tap: Any, experts: int = 8) -> RouterBinding:
    return RouterBinding(find_layers(model, experts), tap)


def inputs(model: Layers, experts: int = 8, seed: int = 0) -> tuple[Any, Any]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(model.layers), ROWS, experts, generator=draw)
    return torch.randn(ROWS, model.hidden, generator=draw), logits


BIAS = torch.linspace(-0.3, 0.4, 8)
FAMILIES: dict[str, dict[str, Any]] = {
    "Mixtral": {},
    "OLMoE": {"renormalize": False},
    "gpt-oss": {"top_k": 4, "activation": "swigluoai"},
    "DeepSeek-V3": {
        "scoring_func": "sigmoid",
        "e_score_correction_bias": BIAS,
        "use_grouped_topk": True,
        "num_expert_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
    },
    "Llama-4": {
        "top_k": 1,
        "custom_routing_function": llama4_choice,
        "apply_router_weight_on_input": True,
    },
    "by token": {  # hash routing
        "scoring_func": "sqrtsoftplus",
        "num_experts": 256,
        "top_k": 6,
        "hash_indices_table": torch.arange(192, dtype=torch.int32).reshape(32, 6),
    },
}


def asking(router: Any, tokens: Any = None) -> Choose:
    """The choice of a kernel that does exactly what the router would."""
    compute = type(router)._compute_routing

    def choose(logits: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = compute(router, logits, logits, None, input_ids=tokens)
        return found

    return choose


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """vLLM compiles one router's function; what it computes is the same."""
    with torch.compiler.set_stance("force_eager"):
        yield


def grouped_router() -> GroupedTopKRouter:
    """DeepSeek-V3's on a GPU."""
    return GroupedTopKRouter(
        top_k=2,
        global_num_experts=8,
        num_expert_group=4,
        topk_group=2,
        scoring_func="sigmoid",
        e_score_correction_bias=BIAS,
    )


@pytest.mark.parametrize("family", [*FAMILIES, "grouped"])
def test_what_is_observed_is_what_a_modular_kernel_is_given(family: str) -> None:
    options = FAMILIES.get(family) or {"router": grouped_router()}
    model = Layers(1, **options)
    experts = options.get("num_experts", 8)
    x, logits = inputs(model, experts)
    tokens = torch.tensor([3, 1, 4, 1, 5])
    modular, beside = Notes(), Notes()
    binding = bind(model, modular, experts)
    with model.running():
        (given,) = model(x, logits, tokens)
    binding.release()
    layer = model.layers[0]
    make_monolithic(layer.routed_experts, asking(layer.router, tokens))
    binding = bind(model, beside, experts)
    with model.running():
        (got,) = model(x, logits, tokens)
    binding.release()
    (expected,), (found,) = modular.seen, beside.seen
    assert found[0] == expected[0] == 0
    for one, other in ((expected[1], found[1]), (expected[2], found[2]), (given, got)):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
    assert (beside.fault.reason, beside.checked_layers) == (None, 0)


def test_taking_the_wrappers_off_leaves_nothing() -> None:
    model = Layers(1)
    make_monolithic(model.layers[0].routed_experts)
    notes = Notes()
    bind(model, notes).release()
    with model.running():
        model(*inputs(model))
    assert notes.seen == []


# --- where it runs ---


@pytest.mark.parametrize("shared", [False, True])
def test_it_runs_inside_vllms_operator(shared: bool) -> None:
    """On a GPU layers call an operator that torch.compile does not look into; so do these here."""
    name = "moe_forward_shared" if shared else "moe_forward"
    more = {"shared_experts": torch.nn.Linear(32, 32)} if shared else {}
    model = Layers(2, **more)
    for layer in model.layers:
        make_monolithic(layer.routed_experts)
        layer._forward_entry = getattr(torch.ops.vllm, name)
    notes = Notes()
    bind(model, notes)
    x, logits = inputs(model)
    graphs = []

    def keep(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with torch.compiler.set_stance("default"), torch.no_grad(), model.running():
        compiled = torch.compile(model, backend=keep, fullgraph=True)
        compiled(x, logits)
        traced = len(notes.seen)
        notes.seen.clear()
        compiled(x + 1, logits.flip(0))
    (graph,) = graphs
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert sum(f"vllm.{name}" in target for target in called) == 2
    assert not [target for target in called if "topk" in target or "routestats" in target]
    assert traced == 2  # by the operator, when the compiled code ran
    assert [layer for layer, _, _ in notes.seen] == [0, 1]
    for (_, ids, _), of_layer in zip(notes.seen, logits.flip(0), strict=True):
        expected = of_layer.topk(2).indices.sort().values
        torch.testing.assert_close(ids.sort().values.long(), expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_survives_compilation_where_layers_are_traced(backend: str) -> None:
    """vLLM on the CPU has torch.compile trace its layers."""
    model = Layers(2)
    for layer in model.layers:
        make_monolithic(layer.routed_experts)
    tap = HostTap(RouteShape(2, 8, 2))
    bind(model, tap)
    ring = tap.begin(RecorderOptions(ring_rows=64))
    with torch.compiler.set_stance("default"), torch.no_grad(), model.running():
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        compiled(*inputs(model))  # outside a step
        for seed in (1, 2):
            x, logits = inputs(model, seed=seed)
            ring.begin_step(4)  # of five rows
            tap.open()
            compiled(x, logits)
            assert tap.close(4) == 0
            ring.commit_step()
            _, ids, *_ = ring.drain(max_rows=64, wait_rows=1, seconds=0.0)
            expected = logits[:, :4].topk(2, dim=-1).indices.transpose(0, 1)
            np.testing.assert_array_equal(ids, expected.numpy())


def test_layers_with_lora_are_found_once() -> None:
    model = Layers(1)
    wrapped = object.__new__(FusedMoEWithLoRA)
    torch.nn.Module.__init__(wrapped)
    wrapped.base_layer = model.layers[0]
    holder = torch.nn.Module()
    holder.experts = wrapped
    (found,) = find_layers(holder, 8)
    assert found.module is model.layers[0]
    notes = Notes()
    tap: Any = notes
    RouterBinding([found], tap)
    with model.running():
        model(*inputs(model))
    assert len(notes.seen) == 1


# --- against what the kernel tells ---


SHAPE = RouteShape(2, 8, 2)
Tap = HostTap | StagedTap | DeviceTap


def taps() -> list[Tap]:
    cpu = torch.device("cpu")
    return [HostTap(SHAPE), StagedTap(SHAPE, 16, cpu), DeviceTap(SHAPE, 64, emulated_device())]


def telling(choose: Choose | None = None, **options: Any) -> Layers:
    """A model whose kernels tell what they chose; the second one chooses by `choose`."""
    model = Layers(2, **options)
    make_monolithic(model.layers[0].routed_experts, asking(model.layers[0].router), tells=True)
    second = model.layers[1]
    make_monolithic(second.routed_experts, choose or asking(second.router), tells=True)
    return model


def step_of(tap: Tap, model: Layers, logits: Any, rows: int = 4) -> tuple[Any, int]:
    """Ids that one captured step gives, and its near ties; of five rows the last is padding."""
    x, _ = inputs(model)
    ring: Any = tap.begin(RecorderOptions(ring_rows=64))
    with model.running():
        model(x, logits)  # outside a step
        ring.begin_step(rows)
        tap.open()
        model(x, logits)
    positions = torch.arange(ROWS)
    ties = tap.close(rows)
    tap.take_inputs(rows, positions, positions)
    ring.commit_step()
    _, ids, *_ = ring.drain(max_rows=64, wait_rows=1, seconds=0.0)
    return ids, ties + getattr(ring, "near_ties", 0)


def swapping(row: int, slot: int, expert: int) -> Choose:
    """A kernel that takes one other expert in one row."""

    def choose(logits: Any) -> tuple[Any, Any]:
        weights, ids = softmax_choice(2)(logits)
        ids[row, slot] = expert
        return weights, ids

    return choose


@pytest.mark.parametrize("which", range(3))
def test_a_kernel_that_agrees(which: int) -> None:
    tap, model = taps()[which], telling()
    bind(model, tap)
    assert tap.checked_layers == 2
    _, logits = inputs(model)
    ids, ties = step_of(tap, model, logits)
    np.testing.assert_array_equal(ids, logits[:, :4].topk(2, dim=-1).indices.transpose(0, 1))
    assert ties == 0


@pytest.mark.parametrize("which", range(3))
def test_a_near_tie_is_counted_and_the_routers_choice_is_recorded(which: int) -> None:
    tap, model = taps()[which], telling(swapping(row=2, slot=1, expert=5))
    bind(model, tap)
    logits = torch.zeros(2, ROWS, 8)
    logits[..., 0], logits[..., 1] = 2.0, 1.0
    logits[1, 2, 5] = 1.0 - 1e-7
    ids, ties = step_of(tap, model, logits)
    assert ties == 1
    np.testing.assert_array_equal(ids, np.broadcast_to([0, 1], (4, 2, 2)))


def test_near_ties_that_a_device_counts_are_in_the_totals(tmp_path: Path) -> None:
    tap, model = taps()[2], telling(swapping(row=2, slot=1, expert=5))
    bind(model, tap)
    options = RecorderOptions(ring_rows=64)
    recorder = Recorder(
        tmp_path / "run",
        SHAPE,
        [0, 1],
        model="m",
        engine={},
        settings={},
        options=options,
        hold_records=False,
        ring=tap.begin(options),
    )
    logits = torch.zeros(2, ROWS, 8)
    logits[..., 0], logits[..., 1] = 2.0, 1.0
    logits[1, 2, 5] = 1.0 - 1e-7
    assert recorder.begin(4)
    tap.open()
    with model.running():
        model(inputs(model)[0], logits)
    tap.close(4)
    tap.take_inputs(4, torch.arange(ROWS), torch.arange(ROWS))
    new = [NewRequest("a-00000001", "d", np.arange(4, dtype=np.int32))]
    recorder.commit(StepRows(["a-00000001"], [4], new=new))
    totals = recorder.close()
    assert (totals["near_ties"], totals["rows"], totals["error"]) == (1, 4, None)


@pytest.mark.parametrize("which", range(3))
def test_another_choice_fails_the_capture_and_names_it(which: int) -> None:
    tap, model = taps()[which], telling(swapping(row=2, slot=1, expert=5))
    bind(model, tap)
    logits = torch.zeros(2, ROWS, 8)
    logits[..., 0], logits[..., 1] = 2.0, 1.0
    logits[1, 2, 5] = 0.9
    message = r"MoE layer 1, row 2: the router chose experts \{0, 1\}, but the kernel \{0, 5\}$"
    with pytest.raises(CaptureError, match=message):
        step_of(tap, model, logits)


@pytest.mark.parametrize("which", range(3))
def test_padding_is_not_compared(which: int) -> None:
    tap, model = taps()[which], telling(swapping(row=4, slot=1, expert=5))
    bind(model, tap)
    logits = torch.zeros(2, ROWS, 8)
    logits[..., 0], logits[..., 1] = 2.0, 1.0
    assert step_of(tap, model, logits)[1] == 0


@pytest.mark.parametrize("which", range(3))
def test_a_kernel_that_stops_telling_fails_the_capture(which: int) -> None:
    tap, model = taps()[which], telling()
    bind(model, tap)
    make_monolithic(model.layers[1].routed_experts)  # as when weights are loaded anew
    _, logits = inputs(model)
    with pytest.raises(CaptureError, match="the kernels of 1 MoE layers told .*; expected 2"):
        step_of(tap, model, logits)


@pytest.mark.parametrize("which", range(3))
def test_vllms_own_capturer_gets_the_choice_as_well(which: int) -> None:
    """It takes the only slot, before capture is bound or after."""
    tap, model = taps()[which], telling()
    seen: list[Any] = []
    first, second = (layer.routed_experts for layer in model.layers)
    first.routing_sink = RoutedExpertsSink(first.moe_config, lambda ids: seen.append(ids.clone()))
    bind(model, tap)
    second.routing_sink = RoutedExpertsSink(second.moe_config, lambda ids: seen.append(ids.clone()))
    sinks = first.routing_sink, second.routing_sink
    _, logits = inputs(model)
    step_of(tap, model, logits)
    assert (first.routing_sink, second.routing_sink) == sinks
    assert len(seen) == 4  # two forward passes
    for ids, of_layer in zip(seen, [*logits, *logits], strict=True):
        assert ids.dtype == torch.int16
        torch.testing.assert_close(ids.long(), of_layer.topk(2).indices)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_that_tie(dtype: torch.dtype, which: int) -> None:
    """DeepSeek's groups count by their two best experts; of equal ones either may be taken.

    Their experts' scores are far from each other.
    """
    scores = torch.full((8,), 0.01)
    scores[0] = 0.95  # group 0 is taken for sure, and this expert
    scores[2:4] = torch.tensor([0.7, 0.1])  # group 1
    scores[4:6] = torch.tensor([0.6, 0.2])  # group 2
    logits = scores.logit().expand(2, ROWS, -1).to(dtype)

    def choose(_: Any) -> tuple[Any, Any]:
        ids = torch.tensor([[0, 2]] * ROWS)
        ids[2, 1] = 4
        return torch.ones(ROWS, 2), ids

    options = {**FAMILIES["DeepSeek-V3"], "e_score_correction_bias": torch.zeros(8)}
    tap, model = taps()[which], telling(choose, **options)
    bind(model, tap)
    ids, ties = step_of(tap, model, logits)
    chosen = np.sort(ids[:, 1]).tolist()
    assert {tuple(row) for row in chosen} <= {(0, 2), (0, 4)}
    assert ties == sum(row != ([0, 4] if i == 2 else [0, 2]) for i, row in enumerate(chosen)) > 0


def test_what_the_choice_is_made_by() -> None:
    model = telling(**FAMILIES["DeepSeek-V3"])
    found = selection_of(model.layers[0])
    assert found is not None
    assert (found.sigmoid, found.groups, found.chosen_groups) == (True, 4, 2)
    assert found.bias is BIAS
    exact = found.scores(torch.zeros(1, 8)).unit
    assert found.scores(torch.zeros(1, 8, dtype=torch.bfloat16)).unit > 2**-8 > 1e-5 > exact
    model = telling()
    found = selection_of(model.layers[0])
    assert found is not None
    assert (found.sigmoid, found.groups, found.bias) == (False, 1, None)
    model.layers[0].router.scoring_func = "sqrtsoftplus"  # no kernel that tells routes so
    assert selection_of(model.layers[0]) is None


# --- what cannot be observed ---


def test_a_router_that_draws_is_refused() -> None:
    model = Layers(1)
    model.layers[0].router = RoutingSimulatorRouter(top_k=2, global_num_experts=8)
    assert len(find_layers(model, 8)) == 1  # a modular kernel is given what was drawn
    make_monolithic(model.layers[0].routed_experts)
    message = "layer layers.0: its kernel UnquantizedFusedMoEMethod .* draws experts at random"
    with pytest.raises(CaptureError, match=message):
        find_layers(model, 8)


def test_a_kernel_that_is_called_otherwise_is_refused() -> None:
    model = Layers(1)
    experts = model.layers[0].routed_experts
    make_monolithic(experts)
    model.layers[0].routed_experts = torch.nn.Module()
    model.layers[0].routed_experts.quant_method = experts.quant_method
    with pytest.raises(CaptureError, match="is not called in a way that is understood"):
        find_layers(model, 8)


@pytest.mark.parametrize("which", range(3))
def test_a_router_that_fails_fails_the_capture_alone(which: int) -> None:
    """vLLM never calls the router of such a layer, which may be unable to run here."""
    tap = taps()[which]
    router = FusedTopKRouter(top_k=2, global_num_experts=8)  # has no kernel on the CPU
    model = Layers(2, router=router)
    for layer in model.layers:
        make_monolithic(layer.routed_experts)
    bind(model, tap)
    x, logits = inputs(model)
    with model.running():
        assert len(model(x, logits)) == 2  # profiling, before any capture
    with pytest.raises(CaptureError, match="MoE layer 0: "):
        tap.begin(RecorderOptions(ring_rows=64))
    with model.running():
        assert len(model(x, logits)) == 2


@pytest.mark.parametrize("which", range(3))
def test_a_fault_of_a_step_is_not_that_of_the_next_capture(which: int) -> None:
    tap = taps()[which]
    for columns in (3, 2):
        ring: Any = tap.begin(RecorderOptions(ring_rows=64))
        ring.begin_step(2)
        tap.open()
        for layer in range(2):
            ids = torch.arange(columns, dtype=torch.int32).expand(2, -1)
            tap.observe(layer, ids, torch.ones(2, columns))
        if columns == 2:
            assert tap.close(2) == 0
            continue
        with pytest.raises(CaptureError, match=r"expected 2 experts per token, got 3"):
            tap.close(2)
        ring.abandon_step()
        tap.end()


# --- fused shared experts ---


@pytest.mark.parametrize("which", range(3))
def test_columns_of_fused_shared_experts_are_left_out(which: int) -> None:
    """AITER's routers give every token the shared experts as well, after its own."""
    tap, model = taps()[which], Layers(2)
    for layer in model.layers:
        router = layer.router
        compute = router._compute_routing

        def with_shared(*args: Any, compute: Any = compute, **kwargs: Any) -> tuple[Any, Any]:
            weights, ids = compute(*args, **kwargs)
            shared = torch.arange(8, 10, dtype=ids.dtype).expand(len(ids), 2)
            return torch.cat([weights, torch.ones(len(ids), 2)], 1), torch.cat([ids, shared], 1)

        router._compute_routing = with_shared
        router.num_fused_shared_experts = 2
    bind(model, tap)
    x, logits = inputs(model)
    ring: Any = tap.begin(RecorderOptions(ring_rows=64))
    ring.begin_step(4)
    tap.open()
    with model.running():
        for layer, of_layer in zip(model.layers, logits, strict=True):
            layer.router.select_experts(x, of_layer)
    tap.close(4)
    tap.take_inputs(4, torch.arange(ROWS), torch.arange(ROWS))
    ring.commit_step()
    _, ids, *_ = ring.drain(max_rows=64, wait_rows=1, seconds=0.0)
    np.testing.assert_array_equal(ids, logits[:, :4].topk(2, dim=-1).indices.transpose(0, 1))


# --- what run.json says ---


def test_settings_say_how_the_routing_is_observed() -> None:
    model = Layers(2)
    modules = list(model.layers)
    assert settings_of(modules) == {"observed": "as the router computed it for the kernel"}
    make_monolithic(modules[0].routed_experts)
    found = settings_of(modules)
    assert found["observed"] == "recomputed beside the kernel in 1 of 2 layers"
    assert found["ties"].startswith("not compared with the kernel")
    make_monolithic(modules[1].routed_experts, tells=True)
    found = settings_of(modules)
    assert found["observed"] == "recomputed beside the kernel"
    assert found["checked"] == "1 of 2 layers against the experts that the kernel chose"
    assert "totals.near_ties" in found["ties"]
