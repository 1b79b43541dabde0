"""Capture of transformers models against their own router logits."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import routestats as rs
from routestats.errors import CaptureError, InvalidValueError
from routestats.trace import sort_by_weight

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what transformers itself imports
    transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("default")  # transformers' own are not ours

EOS = 60
COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}


def mixtral(**more: Any) -> Any:
    config = transformers.MixtralConfig(
        **{
            **COMMON,
            "intermediate_size": 48,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            **more,
        }
    )
    return build(transformers.MixtralForCausalLM, config)


def build(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def qwen3(norm: bool) -> Any:
    config = transformers.Qwen3MoeConfig(
        **COMMON, intermediate_size=48, moe_intermediate_size=24, num_experts=12,
        num_experts_per_tok=3, norm_topk_prob=norm, head_dim=16,
    )  # fmt: skip
    return build(transformers.Qwen3MoeForCausalLM, config)


def olmoe() -> Any:
    config = transformers.OlmoeConfig(
        **COMMON, intermediate_size=24, num_experts=10, num_experts_per_tok=4
    )
    return build(transformers.OlmoeForCausalLM, config)


def deepseek() -> Any:
    config = transformers.DeepseekV3Config(
        **COMMON, intermediate_size=48, moe_intermediate_size=24, n_routed_experts=8, n_group=2,
        topk_group=1, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1,
        q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16,
    )  # fmt: skip
    return build(transformers.DeepseekV3ForCausalLM, config)


def softmax_choices(model: Any, tokens: Any, top_k: int, *, norm: bool) -> tuple[Any, Any]:
    """[T, L, K] of one sequence, from the logits that transformers reports."""
    with torch.no_grad():
        logits = model(tokens[None], output_router_logits=True).router_logits
    probability = torch.stack([torch.softmax(x.float(), -1) for x in logits], dim=1)
    weights, ids = probability.topk(top_k, dim=-1)
    if norm:
        weights = weights / weights.sum(-1, keepdim=True)
    return sort_by_weight(ids.numpy(), weights.numpy())


@pytest.mark.parametrize(
    ("make", "top_k", "norm"),
    [
        (mixtral, 2, True),
        (lambda: qwen3(True), 3, True),
        (lambda: qwen3(False), 3, False),
        (olmoe, 4, False),
    ],
    ids=["mixtral", "qwen3-norm", "qwen3", "olmoe"],
)
def test_every_row_equals_the_models_own_logits(
    tmp_path: Path, make: Any, top_k: int, norm: bool
) -> None:
    model = make()
    tokens = torch.randint(1, 50, (2, 20))
    with torch.no_grad():
        plain = model(tokens).logits
        with rs.capture(model, tmp_path / "run", domain="x"):
            captured = model(tokens).logits
    assert torch.equal(plain, captured)
    trace = rs.Trace.open(tmp_path / "run")
    result = rs.verify(trace)
    assert result.ok, result.render()
    for i in range(2):
        ids, weights = softmax_choices(model, tokens[i], top_k, norm=norm)
        np.testing.assert_array_equal(trace.experts[20 * i : 20 * i + 20], ids)
        assert trace.weights is not None
        error = np.abs(trace.weights[20 * i : 20 * i + 20].astype(float) - weights.astype(float))
        assert error.max() < 2e-3


def test_deepseek_counts_its_routed_layers_only(tmp_path: Path) -> None:
    model = deepseek()
    tokens = torch.randint(1, 50, (1, 16))
    seen = []
    gate = model.model.layers[1].mlp.gate
    handle = gate.register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad(), rs.capture(model, tmp_path / "run"):
        model(tokens)
    handle.remove()
    trace = rs.Trace.open(tmp_path / "run")
    assert trace.layer_ids == (1, 2)
    _, weights, ids = seen[0]
    expected, _ = sort_by_weight(ids.numpy(), weights.detach().numpy())
    np.testing.assert_array_equal(trace.experts[:, 0], expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_rows(tmp_path: Path, side: str) -> None:
    model = mixtral()
    tokens = torch.randint(1, 50, (2, 12))
    mask = torch.ones_like(tokens)
    padded = slice(0, 5) if side == "left" else slice(7, 12)
    mask[1, padded] = 0
    tokens[1, padded] = 0
    with torch.no_grad(), rs.capture(model, tmp_path / "run"):
        model(tokens, attention_mask=mask)
    trace = rs.Trace.open(tmp_path / "run")
    assert len(trace) == 12 + 7
    assert rs.verify(trace).ok
    assert trace.rows["position"].to_pylist()[12:] == list(range(7))
    assert trace.rows["token_id"].to_pylist()[12:] == tokens[1][mask[1] == 1].tolist()


def test_generate_follows_each_sequence_to_its_end(tmp_path: Path) -> None:
    model = mixtral()
    prompts = torch.randint(1, 50, (4, 6))
    free = model.generate(prompts, max_new_tokens=12, do_sample=False, eos_token_id=None)
    eos = int(free[0, 9])  # greedy decoding will meet it
    model.generation_config.eos_token_id = eos
    with rs.capture(model, tmp_path / "run") as capture:
        out = model.generate(prompts, max_new_tokens=12, do_sample=False)
        capture.label(task_ids=[f"t/{i}" for i in range(4)])
    trace = rs.Trace.open(tmp_path / "run")
    result = rs.verify(trace)
    assert result.ok, result.render()
    requests = {r["task_id"]: r for r in trace.requests.to_pylist()}
    for i in range(4):
        tokens = out[i].tolist()
        ends = [p for p in range(6, len(tokens)) if tokens[p] == eos]
        total = ends[0] + 1 if ends else len(tokens)
        record = requests[f"t/{i}"]
        assert record["prompt_tokens"] + record["output_tokens"] == total
        part = trace.filter(requests=[record["request_id"]])
        assert part.rows["token_id"].to_pylist() == tokens[: total - 1]
        ids, _ = softmax_choices(model, out[i, : total - 1], 2, norm=True)
        np.testing.assert_array_equal(part.experts, ids)
    assert any(requests[f"t/{i}"]["output_tokens"] < 12 for i in range(4))


def test_nested_and_repeated_captures_make_one_run(tmp_path: Path) -> None:
    model = mixtral()
    tokens = torch.randint(1, 50, (1, 5))
    with torch.no_grad():
        with rs.capture(model, tmp_path / "run", domain="outer"):
            model(tokens)
            with rs.capture(model, tmp_path / "run", domain="inner"):
                model(tokens)
            model(tokens)
        with rs.capture(model, tmp_path / "run", domain="inner", counts=True):
            model(tokens)
    trace = rs.Trace.open(tmp_path / "run")
    assert {d: len(trace.filter(domain=d)) for d in trace.domains} == {"inner": 10, "outer": 10}
    assert rs.verify(trace).ok
    counts = rs.RouteCounts.load(tmp_path / "run" / "counts-any.npz")
    assert counts.tokens == 20
    assert counts == rs.count(trace, hops=(0, 1), pairing="any")
    assert not model._forward_hooks


def test_rows_of_a_forward_pass_share_a_step(tmp_path: Path) -> None:
    model = mixtral()
    prompts = torch.randint(1, 50, (3, 6))
    for capture in range(2):
        with rs.capture(model, tmp_path / "run"):
            model.generate(prompts, max_new_tokens=4, do_sample=False, eos_token_id=None)
        rows = rs.Trace.open(tmp_path / "run").rows.to_pylist()[27 * capture :]
        assert len(rows) == 27
        for row in rows:  # the prompt in one pass, then one token of each sequence a pass
            assert row["step"] == 4 * capture + max(row["position"] - 5, 0)


def test_what_is_refused(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**COMMON, intermediate_size=48)
    dense = build(transformers.LlamaForCausalLM, config)
    with pytest.raises(CaptureError, match="LlamaForCausalLM has no MoE layers"):
        rs.capture(dense, tmp_path / "dense").__enter__()
    model = mixtral()
    tokens = torch.randint(1, 50, (1, 5))
    with rs.capture(model, tmp_path / "run") as capture:
        model(tokens)
        with pytest.raises(CaptureError, match="num_beams=2"):
            model.generate(tokens, num_beams=2, max_new_tokens=2)
        with pytest.raises(CaptureError, match="expected input_ids, got inputs_embeds"):
            model(inputs_embeds=torch.zeros(1, 2, 32))
        with pytest.raises(InvalidValueError, match="task_ids: expected 1"):
            capture.label(task_ids=["a", "b"])
    assert not (tmp_path / "dense").exists()
    assert rs.verify(tmp_path / "run").ok


def test_a_layer_that_does_not_fire_stops_the_run(tmp_path: Path) -> None:
    model = mixtral()
    tokens = torch.randint(1, 50, (1, 5))
    with pytest.raises(CaptureError, match="MoE layer 1 was not written"), torch.no_grad():
        run_without_layer(model, tokens, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not model._forward_hooks


def run_without_layer(model: Any, tokens: Any, run: Path) -> None:
    with rs.capture(model, run):
        model.model.layers[1].mlp.gate._forward_hooks.clear()
        model(tokens)
