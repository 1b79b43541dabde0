"""A real engine whose kernels route by themselves: its run equals that of a modular engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_cases import script

import routestats as rs
from routestats.models import tiny_model
from routestats.models.untrained import make_mixtral

pytest.importorskip("vllm")
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("default")]

CASES = Path(__file__).parents[1] / "cases"
# What kernels tell is only to be had where the layers run as they are written.
SCRIPT = """
    sys.path.append(sys.argv[3])
    how, tells = sys.argv[4], sys.argv[5] == "eager"
    if how != "modular":
        from monolithic_cases import make_monolithic
        from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import (
            UnquantizedFusedMoEMethod,
        )
        process = UnquantizedFusedMoEMethod.process_weights_after_loading

        def process_and_exchange(self, layer):
            process(self, layer)
            choose = None
            if how == "other" and ".3." in layer.layer_name:
                choose = lambda logits: (-logits).topk(2, dim=-1)
            make_monolithic(layer, choose, tells)

        UnquantizedFusedMoEMethod.process_weights_after_loading = process_and_exchange
    rs.enable()
    from vllm import LLM, SamplingParams
    llm = LLM(model=sys.argv[2], max_model_len=256, enforce_eager=tells, dtype="float32")
    params = SamplingParams(temperature=0.0, max_tokens=12)
    prompts = ["def f(x):", "the sum of 3 and 4 is", "abcdefgh"]
    try:
        with rs.capture(llm, sys.argv[1], domain="d"):
            llm.generate(prompts, params, use_tqdm=False)
    except rs.RouteStatsError as error:
        print("stopped:", error)
    print("still answers:", len(llm.generate(prompts, params, use_tqdm=False)))
"""


def run(folder: Path, how: str, mode: str) -> str:
    """What the script prints; its run is the folder `how`."""
    model = tiny_model()
    if mode == "compiled":
        model = make_mixtral(folder / "model", num_layers=2)  # soon compiled
    done = script(
        SCRIPT,
        str(folder / how),
        str(model),
        str(CASES),
        how,
        mode,
        VLLM_ENABLE_V1_MULTIPROCESSING="0",  # kernels are exchanged in the engine's process
        VLLM_DISABLE_COMPILE_CACHE="1",
    )
    assert "still answers: 3" in done.stdout, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_rows_equal_those_of_a_modular_engine(tmp_path: Path, mode: str) -> None:
    traces = []
    for how in ("modular", "beside"):
        run(tmp_path, how, mode)
        traces.append(rs.Trace.open(tmp_path / how))
    modular, beside = traces
    for trace in traces:
        assert rs.verify(trace).ok
        assert trace.complete
    assert len(beside) == len(modular) > 30
    np.testing.assert_array_equal(beside.experts, modular.experts)
    np.testing.assert_array_equal(beside.weights, modular.weights)
    for column in ("position", "token_id", "phase"):
        assert beside.rows[column].equals(modular.rows[column])
    settings = beside.info["settings"]
    assert settings["observed"] == "recomputed beside the kernel"
    assert ("checked" in settings) == (mode == "eager")
    assert beside.info["totals"]["near_ties"] == 0
    expected = "as the router computed it for the kernel"
    assert modular.info["settings"]["observed"] == expected


def test_a_kernel_that_chooses_otherwise_ends_the_capture_and_not_the_engine(
    tmp_path: Path,
) -> None:
    said = run(tmp_path, "other", "eager")
    assert "stopped: " in said
    assert "MoE layer 3, row 0: the router chose experts {" in said
    assert not (tmp_path / "other").exists()  # its first step failed
