"""Which kernels vLLM takes on which card, asked of vLLM's own selection, and what becomes of each.

What is expected of vLLM's defaults stands in docs/gpu.md. Where an update of vLLM changes one, the
table there is to be changed, with whatever follows from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("vllm", reason="it asks vLLM's own code")

import torch
from fake_platform import A100, B200, CUDA_CARDS, H100, L40S, MI300, RTX_5090, Card
from moe_layers import FAMILIES, FORMATS, make_layer, vllm_on

from routestats.engines.vllm.backends import alternatives
from routestats.engines.vllm.monolithic import BY_LOGIT, BY_SIGMOID
from routestats.engines.vllm.routers import find_layers
from routestats.errors import CaptureError
from routestats.models import tiny_model, tiny_settings

pytestmark = pytest.mark.filterwarnings("default")

DOCS = Path(__file__).parents[2] / "docs" / "gpu.md"
CARDS = (A100, L40S, H100, B200, RTX_5090, MI300)


def test_the_settings_of_the_built_in_model() -> None:
    with mock.patch("torch.cuda.is_available", return_value=False):
        assert tiny_settings(seed=1) == {"model": str(tiny_model()), "dtype": "float32", "seed": 1}
    with mock.patch("torch.cuda.is_available", return_value=True):
        assert tiny_settings() == {
            "model": str(tiny_model()),
            "dtype": "bfloat16",
            "moe_backend": "triton",
            "attention_backend": "TRITON_ATTN",
        }
        assert tiny_settings(moe_backend="auto", dtype="half", model="m") == {
            "model": "m",
            "dtype": "half",
            "moe_backend": "auto",
            "attention_backend": "TRITON_ATTN",
        }
        # vLLM refuses two attention back ends, and takes the option before the configuration.
        given = {"kernel_config": {"moe_backend": "auto"}, "attention_config": {"backend": None}}
        assert tiny_settings(**given).keys() == {"model", "dtype", *given}


@pytest.mark.parametrize("card", [*CUDA_CARDS, MI300], ids=lambda card: card.name)
def test_the_demo_gets_triton_kernels_in_bfloat16(card: Card) -> None:
    """From the settings through vLLM's own arguments and selection to the class of the kernels."""
    with mock.patch("torch.cuda.is_available", return_value=True):
        settings = tiny_settings(max_model_len=64)
    with vllm_on(card, **settings) as config:
        from vllm.v1.attention.selector import get_attn_backend

        model = config.model_config
        assert model.dtype is torch.bfloat16
        method = make_layer(FAMILIES["tiny"], "bf16")._quant_method
        assert method.experts_cls.__name__ == "TritonExperts"
        assert not method.is_monolithic
        attention = get_attn_backend(model.get_head_size(), model.dtype, "auto")
        assert attention.get_name() == "TRITON_ATTN"


def test_the_family_tiny_is_the_built_in_model() -> None:
    with vllm_on(H100, model=str(tiny_model()), max_model_len=64) as config:
        text = config.model_config.hf_text_config
        tiny = FAMILIES["tiny"]
        assert (tiny.num_experts, tiny.top_k) == (text.num_local_experts, text.num_experts_per_tok)
        assert (tiny.hidden_size, tiny.intermediate_size) == (
            text.hidden_size,
            text.intermediate_size,
        )


def documented() -> dict[tuple[str, str], list[str]]:
    """The table of docs/gpu.md: cells of the cards, by format and family."""
    lines = DOCS.read_text().splitlines()
    head = "| weights | models | " + " | ".join(card.name for card in CARDS) + " |"
    table: dict[tuple[str, str], list[str]] = {}
    for line in lines[lines.index(head) + 2 :]:
        if not line.startswith("|"):
            break
        weights, models, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table |= {(weights, model): cells for model in models.split(", ")}
    return table


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_vllms_defaults_are_those_of_the_table(card: Card) -> None:
    table, found = documented(), {}
    with vllm_on(card):
        for weights, model in table:
            method = make_layer(FAMILIES[model], weights)._quant_method
            found[weights, model] = cell(method.experts_cls)
    index = CARDS.index(card)
    assert found == {key: cells[index] for key, cells in table.items()}


def cell(experts: Any) -> str:
    """The class of a kernel, and how its routing is observed."""
    if not experts.is_monolithic():
        return f"`{experts.__name__}`"
    replays = experts.supports_routing_replay_capture(object.__new__(experts))
    return f"`{experts.__name__}` (beside{', checked' if replays else ''})"


def test_the_table_holds_every_family_in_every_format_it_comes_in() -> None:
    families = set(FAMILIES) - {"tiny"}
    oss = {"gpt-oss-120b"}  # MXFP4 is published of gpt-oss, and it of no other format
    formats = {weights: oss if weights == "mxfp4" else families - oss for weights in FORMATS}
    assert documented().keys() == {(w, model) for w, models in formats.items() for model in models}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_default_is_observed_and_has_modular_kernels_beside_it(card: Card) -> None:
    """Where a kernel tells what it chose, near ties can be told; and the names are right here."""
    with vllm_on(card):
        for (weights, model), cells in documented().items():
            layer = make_layer(FAMILIES[model], weights)
            assert refused(layer) is None, (weights, model)
            if "checked" in cells[CARDS.index(card)]:
                assert layer.router.routing_method_type.name in BY_LOGIT | BY_SIGMOID
            if layer._quant_method.is_monolithic:
                names = alternatives(layer)
                assert names, (weights, model)
                assert alternatives(layer._quant_method) == names
                for name in names:
                    method = make_layer(FAMILIES[model], weights, name)._quant_method
                    assert not method.is_monolithic, (weights, model, name)


def refused(layer: Any) -> str | None:
    """Why capture does not take a model of this layer; None where it does."""
    try:
        (found,) = find_layers(torch.nn.ModuleDict({"layer": layer}), layer.moe_config.num_experts)
    except CaptureError as error:
        return str(error)
    assert found.router is layer.router
    return None


def test_a_refusal_names_modular_kernels() -> None:
    from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import (
        RoutingSimulatorRouter,
    )

    with vllm_on(B200):
        layer = make_layer(FAMILIES["Mixtral-8x7B"], "bf16")
        layer.router = RoutingSimulatorRouter(top_k=2, global_num_experts=8)
        refusal = refused(layer)
        assert refusal is not None
        assert refusal.endswith("; expected moe_backend='triton' or 'flashinfer_cutlass'")


def test_int4_has_names_where_it_is_monolithic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_FLASHINFER_MOE_INT4", "1")
    family = FAMILIES["Qwen3-30B-A3B"]
    with vllm_on(B200):
        layer = make_layer(family, "int4")
        assert layer._quant_method.is_monolithic
        for name in alternatives(layer):
            assert not make_layer(family, "int4", name)._quant_method.is_monolithic, name


def test_nothing_is_named_on_a_cpu() -> None:
    assert alternatives(mock.Mock(_quant_method=mock.Mock())) == ()


def test_the_true_platform_is_back_afterwards() -> None:
    from vllm.platforms import current_platform
    from vllm.utils.import_utils import has_triton_kernels

    before = type(current_platform), has_triton_kernels()
    with vllm_on(B200):
        assert current_platform.is_cuda()
        assert has_triton_kernels()
    assert (type(current_platform), has_triton_kernels()) == before
