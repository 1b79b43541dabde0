"""What capture costs in vLLM itself, with a real model's config and dummy weights.

Engines of three kinds take turns, each in a process of its own: ``nothing``, ``ours`` (capture with
weights), ``theirs`` (vLLM's `enable_return_routed_experts`). Each generates at batch 1, 32, 256 and
1,024 and reports output tokens per second and the mean, median and 95th percentile of its decode
steps; ours also says what its drain thread took. Before that, one engine with both on: ids must be
equal, as sets, in every row that both have. Exit status 1 if they are not, or ours adds more than
1 % to the mean step, or more than theirs.

Needs vLLM with CUDA and memory for the model (Qwen3-30B-A3B: 61 GB of weights, and 26 GB of cache
for batch 1,024). The parts can be run one by one, as `make gpu-hour` does:

    python bench/gpu_vllm.py                              # all of it
    python bench/gpu_vllm.py --only ours --into FILE      # one engine; FILE collects them
    python bench/gpu_vllm.py --judge FILE                 # what FILE holds

``--only check`` asks nothing of speed: one engine captures, and what it captured is verified.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _gpu import ratio, require_gpu, save
from _models import CONFIGS, write_config
from _vllm_engine import KINDS, Load, run_engine

BATCHES = (1, 32, 256, 1024)
TIMED = ("nothing", "ours", "theirs")
GOAL = 1.01


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _batches(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def one_engine(args: argparse.Namespace) -> dict[str, Any]:
    """Run an engine of kind ``--only`` in this process."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = Load(
            model=str(write_config(args.model, folder / args.model, args.layers)),
            batches=args.batches if args.only in TIMED else args.batches[-1:],
            output_tokens=args.tokens,
            repeats=args.repeats,
            engine_arguments=dict(args.engine_arg),
        )
        found = run_engine(args.only, load, folder / "run")
    return {"model": args.model, "layers": args.layers, **found}


def add_to(path: Path, kind: str, found: dict[str, Any]) -> None:
    """Collect what an engine found, beside what others of its kind did."""
    engines = json.loads(path.read_text()) if path.exists() else {}
    engines.setdefault(kind, []).append(found)
    path.write_text(json.dumps(engines, indent=1, default=str) + "\n")


def wrong(kind: str, found: dict[str, Any]) -> str | None:
    """What an engine found that may not be, in one line."""
    if kind == "both" and (found["different"] or not found["rows"]):
        return f"{found['different']} of {found['rows']} rows differ from vLLM's own"
    if kind != "check":
        return None
    if "refused" in found:
        return f"capture was refused: {found['refused']}"
    if not found["verified"]:
        return f"verify: {found['report']}"
    if found["rows"] != found["expected_rows"]:
        return f"expected {found['expected_rows']} rows, got {found['rows']}"
    return None


def compare(engines: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row per batch that every kind has timed: medians over engines, ratios to ``nothing``."""
    timed: dict[int, dict[str, list[dict[str, float]]]] = {}
    for kind in TIMED:
        for found in engines.get(kind, []):
            for row in found["rows"]:
                if "step_ms_mean" in row:
                    timed.setdefault(row["batch"], {}).setdefault(kind, []).append(row)
    rows = []
    for batch, kinds in timed.items():
        if "nothing" not in kinds:
            continue
        figures: dict[str, Any] = {"batch": batch}
        for kind, measured in kinds.items():
            for name in ("tokens_per_s", "step_ms_mean", "step_ms_p50", "step_ms_p95"):
                figures[f"{kind}_{name}"] = round(
                    statistics.median(one[name] for one in measured), 4
                )
            if kind == "nothing":
                continue
            for name in ("step_ms_mean", "step_ms_p95"):
                pairs = list(zip(measured, kinds["nothing"], strict=False))
                mine, theirs = ([one[name] for one in side] for side in zip(*pairs, strict=True))
                figures[f"{kind}_{name}_ratio"] = ratio(mine, theirs)
        rows.append(figures)
    return rows


def failures(engines: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]]) -> list[str]:
    """Goals that were missed, one line each."""
    lines = [
        f"{kind}: {line}"
        for kind, found in engines.items()
        for one in found
        if (line := wrong(kind, one))
    ]
    for row in rows:
        ours, theirs = (row.get(f"{kind}_step_ms_mean_ratio") for kind in ("ours", "theirs"))
        if ours and (ours["median"] > GOAL or (theirs and ours["median"] > theirs["median"])):
            beside = f", theirs {theirs['median']:.4f}" if theirs else ""
            lines.append(f"batch {row['batch']}: ours {ours['median']:.4f}{beside}")
    return lines


def judge(path: Path, folder: Path | None) -> int:
    """Print what the engines of a file found; 1 if a goal was missed."""
    engines = json.loads(path.read_text())
    rows = compare(engines)
    for row in rows:
        print(json.dumps(row))
    for found in engines.get("ours", []):
        captured = found["captured"]
        print(f"drain thread: {captured['drain_cpu_ms']} ms for {captured['rows']:,} rows")
    lines = failures(engines, rows)
    if folder is not None:
        import torch
        import vllm

        result = {"vllm": vllm.__version__, "engines": engines, "rows": rows}
        print(save(torch, "vllm", result, folder))
    for line in lines:
        print(f"FAILED: {line}", file=sys.stderr)
    if not rows:
        print("FAILED: no batch was timed in two kinds of engines", file=sys.stderr)
    return 1 if lines or not rows else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=CONFIGS, default="qwen3-30b-a3b")
    parser.add_argument("--layers", type=int, help="only so many, where memory is small")
    parser.add_argument("--batches", type=_batches, default=BATCHES, help="default: 1,32,256,1024")
    parser.add_argument("--tokens", type=int, default=128, help="to generate (default: 128)")
    parser.add_argument("--repeats", type=int, default=5, help="of a batch in an engine")
    parser.add_argument("--rounds", type=int, default=3, help="engines of each kind")
    parser.add_argument("--engine-arg", action="append", type=_setting, default=[])
    parser.add_argument("--only", choices=KINDS, help="one engine, in this process")
    parser.add_argument("--into", type=Path, help="with --only: add its figures to this file")
    parser.add_argument("--judge", type=Path, help="run nothing: what this file of figures says")
    parser.add_argument("--output", type=Path, help="folder of the results (bench/results)")
    args = parser.parse_args()
    if args.judge:
        return judge(args.judge, args.output)
    if args.only:
        found = one_engine(args)
        print(json.dumps(found, default=str), flush=True)
        if args.into:
            add_to(args.into, args.only, found)
        if line := wrong(args.only, found):
            print(f"FAILED: {line}", file=sys.stderr)
        return 1 if wrong(args.only, found) else 0
    require_gpu("gpu_vllm")
    with tempfile.TemporaryDirectory() as name:
        into = Path(name) / "engines.json"
        for kind in ("both", *(kind for _ in range(args.rounds) for kind in TIMED)):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", kind]
            done = subprocess.run([*command, "--into", str(into)], check=False)
            if done.returncode != 0 and (kind != "both" or not into.exists()):
                sys.exit(f"gpu_vllm: the engine with {kind} failed")
        return judge(into, args.output or Path(__file__).parent / "results")


if __name__ == "__main__":
    sys.exit(main())
