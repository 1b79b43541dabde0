"""Capture in vLLM itself, with Mixtral-8x7B's config and dummy bf16 weights, CUDA graphs on.

Engines of three kinds take turns, each in a process of its own: ``nothing``, ``ours`` (capture with
weights), ``theirs`` (vLLM's `enable_return_routed_experts`). Each generates at batch 1, 32 and 256
and reports output tokens per second and time per output token, the prompt's own time taken off.
Before that, one engine with both on: ids must be equal, as sets, in every row that both have. Exit
status 1 if they are not, or ours adds more than 1 % to the time per output token, or more than
theirs.

Needs vLLM with CUDA and about 100 GB of device memory (an H200); takes about half an hour.

    python bench/gpu_vllm.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from _engine import engine
from _gpu import ratio, require_gpu, save

BATCHES = (1, 32, 256)
PROMPT_TOKENS, OUTPUT_TOKENS = 128, 128
GOAL = 1.01
MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


# --- in the process of one engine ---


def make_engine(kind: str, folder: Path) -> AbstractContextManager[Any]:
    import routestats as rs

    if kind in ("ours", "both"):
        rs.enable()
    options: dict[str, Any] = {}
    if kind in ("theirs", "both"):
        options["enable_return_routed_experts"] = True
    return engine(
        model=str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=2 * (PROMPT_TOKENS + OUTPUT_TOKENS),
        max_num_seqs=max(BATCHES),
        enable_prefix_caching=False,
        gpu_memory_utilization=0.92,
        seed=0,
        **options,
    )


def generate(llm: Any, batch: int, tokens: int, seed: int) -> Any:
    import vllm

    random = np.random.default_rng(seed)
    prompts = [
        {"prompt_token_ids": random.integers(3, 32000, PROMPT_TOKENS).tolist()}
        for _ in range(batch)
    ]
    params = vllm.SamplingParams(
        max_tokens=tokens, ignore_eos=True, temperature=0.0, detokenize=False
    )
    return llm.generate(prompts, params, use_tqdm=False)


def time_engine(llm: Any, repeats: int) -> list[dict[str, float]]:
    rows = []
    for batch in BATCHES:
        generate(llm, batch, 8, 0)
        whole: list[float] = []
        prompt: list[float] = []
        for seed in range(repeats):
            for tokens, times in ((OUTPUT_TOKENS, whole), (1, prompt)):
                start = time.perf_counter()
                generate(llm, batch, tokens, seed)
                times.append(time.perf_counter() - start)
        spent, first = statistics.median(whole), statistics.median(prompt)
        rows.append(
            {
                "batch": batch,
                "tokens_per_s": batch * OUTPUT_TOKENS / spent,
                "ms_per_token": (spent - first) / (OUTPUT_TOKENS - 1) * 1e3,
            }
        )
    return rows


def compare_rows(llm: Any, run: Path) -> dict[str, int]:
    """Rows that ours and vLLM's own feature both have, and how many of them differ."""
    import routestats as rs
    from routestats.engines._requests import external_id

    with rs.capture(llm, run):
        outputs = generate(llm, 32, OUTPUT_TOKENS, 1)
    trace = rs.Trace.open(run)
    names = np.asarray([external_id(name)[0] for name in trace.rows["request_id"].to_pylist()])
    positions = np.asarray(trace.rows["position"])
    experts = np.sort(np.asarray(trace.experts), axis=2)
    found = {"rows": 0, "different": 0}
    for output in outputs:
        theirs = output.outputs[0].routed_experts
        if theirs is None:
            sys.exit("gpu_vllm: vLLM returned no routed experts")
        theirs = np.sort(np.asarray(theirs), axis=2)
        mine = np.flatnonzero(names == output.request_id)
        mine = mine[positions[mine] < len(theirs)]
        found["rows"] += len(mine)
        unequal = (experts[mine] != theirs[positions[mine]]).any(axis=(1, 2))
        found["different"] += int(unequal.sum())
    return found


def child(kind: str, folder: Path, repeats: int) -> None:
    import routestats as rs

    run = folder / f"run-{os.getpid()}"
    result: dict[str, Any]
    with make_engine(kind, folder) as llm:
        if kind == "both":
            result = compare_rows(llm, run)
        elif kind == "ours":
            with rs.capture(llm, run) as capture:
                result = {"rows": time_engine(llm, repeats)}
            result["captured"] = capture.summary
        else:
            result = {"rows": time_engine(llm, repeats)}
    (folder / "result.json").write_text(json.dumps(result, default=str))


# --- in the process that compares ---


def run_child(kind: str, folder: Path, repeats: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, "--folder", str(folder)]
    done = subprocess.run([*command, "--repeats", str(repeats)], check=False)
    if done.returncode != 0:
        sys.exit(f"gpu_vllm: the engine with {kind} failed")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    print(kind, json.dumps(result), flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="folder of the results (bench/results)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder, arguments.repeats)
        return 0
    torch = require_gpu("gpu_vllm")
    try:
        import vllm
    except ImportError:
        sys.exit("gpu_vllm: vllm is not installed")

    kinds = ("nothing", "ours", "theirs")
    times: dict[str, list[list[dict[str, float]]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(MIXTRAL_8X7B))
        equality = run_child("both", folder, arguments.repeats)
        for _ in range(arguments.rounds):
            for kind in kinds:
                times[kind].append(run_child(kind, folder, arguments.repeats)["rows"])

    rows, failed = [], []
    if equality["different"] or not equality["rows"]:
        failed.append(f"{equality['different']} of {equality['rows']} rows differ from vLLM's own")
    for i, batch in enumerate(BATCHES):
        row: dict[str, Any] = {"batch": batch}
        spent = {k: [round_[i]["ms_per_token"] for round_ in times[k]] for k in kinds}
        for kind in kinds:
            row[f"{kind}_ms_per_token"] = statistics.median(spent[kind])
            row[f"{kind}_tokens_per_s"] = statistics.median(
                round_[i]["tokens_per_s"] for round_ in times[kind]
            )
        for kind in ("ours", "theirs"):
            row[f"{kind}_ratio"] = ratio(spent[kind], spent["nothing"])
        rows.append(row)
        print(row)
        mine, theirs = row["ours_ratio"]["median"], row["theirs_ratio"]["median"]
        if mine > GOAL or mine > theirs:
            failed.append(f"batch {batch}: ours {mine:.4f}, theirs {theirs:.4f}")
    result = {"vllm": vllm.__version__, "equality": equality, "rows": rows}
    print(save(torch, "vllm", result, arguments.output))
    for line in failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
